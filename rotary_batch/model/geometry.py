"""The shape of a Mixtral checkpoint: sizes, byte counts and the names and shapes of its tensors.

Reads both spellings of config.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, shown

# Names as safetensors spells them, and as config.json does.
DTYPE_NBYTES = {"F32": 4, "BF16": 2, "F16": 2}
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
ARCHITECTURE = "MixtralForCausalLM"
# Far above every existing model, and low enough that sizes computed from a damaged file fit in memory.
MAX_TOKENS = 2**24
MAX_VOCABULARY = 2**26
MAX_SLABS = 2**18
MAX_ENDS = 256
_MAXIMA = {
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_layers": 2**12,
    "num_heads": 2**14,
    "num_kv_heads": 2**14,
    "head_dim": 2**14,
    "num_experts": 2**14,
    "top_k": 2**14,
    "vocab_size": MAX_VOCABULARY,
    "max_position": MAX_TOKENS,
}
_CONFIG_NAMES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_experts": "num_local_experts",
    "top_k": "num_experts_per_tok",
    "vocab_size": "vocab_size",
    "max_position": "max_position_embeddings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Everything about a Mixtral model that decides shapes and arithmetic."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    top_k: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position: int
    sliding_window: int | None
    dtype: str  # of the checkpoint's weights: F32, BF16 or F16
    eos_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for holds, fact in (
            (self.num_heads % self.num_kv_heads == 0, "the heads are not a multiple of the key/value heads"),
            (self.top_k <= self.num_experts, f"each token asks {self.top_k} of {self.num_experts} experts"),
            (self.head_dim % 2 == 0, f"head_dim {self.head_dim} is odd"),
            (self.num_layers * self.num_experts <= MAX_SLABS, f"more than {MAX_SLABS:,} experts in all layers"),
        ):
            if not holds:
                raise ModelError(fact)

    @property
    def expert_shapes(self) -> dict[str, tuple[int, int]]:
        """w1 and w3 [intermediate, hidden], w2 [hidden, intermediate], in the order of a slab."""
        up = (self.intermediate_size, self.hidden_size)
        return {"w1": up, "w3": up, "w2": (self.hidden_size, self.intermediate_size)}

    @property
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def kv_token_params(self) -> int:
        """Numbers of one token in the KV cache, over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    def expert_keys(self) -> Iterator[ExpertKey]:
        """All experts in ring order."""
        return (ExpertKey(layer, expert) for layer in range(self.num_layers) for expert in range(self.num_experts))

    def dense_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names (our own, short) and shapes of everything but the experts."""
        hidden, q, kv = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, hidden), "norm": (hidden,)}
        if not self.tie_word_embeddings:
            shapes["head"] = (self.vocab_size, hidden)
        for layer in range(self.num_layers):
            shapes |= {
                f"layers.{layer}.attention_norm": (hidden,),
                f"layers.{layer}.q": (q, hidden),
                f"layers.{layer}.k": (kv, hidden),
                f"layers.{layer}.v": (kv, hidden),
                f"layers.{layer}.o": (hidden, q),
                f"layers.{layer}.moe_norm": (hidden,),
                f"layers.{layer}.router": (self.num_experts, hidden),
            }
        return shapes

    def is_quantisable(self, name: str) -> bool:
        """Whether a dense tensor may be stored in int8: attention, embeddings and head; never the router or a norm."""
        return name in {"embed", "head"} or name.rpartition(".")[2] in {"q", "k", "v", "o"}

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return asdict(self) | {"eos_ids": list(self.eos_ids)}

    @classmethod
    def from_table(cls, table: Table) -> Geometry:
        """The inverse of `as_dict`.  Raises ModelError."""
        window = table.has("sliding_window")
        values: dict[str, Any] = {name: table.whole(name, most) for name, most in _MAXIMA.items()}
        values |= {name: table.positive(name) for name in ("rope_theta", "rms_norm_eps")}
        values |= {
            "dtype": table.one_of("dtype", DTYPE_NBYTES),
            "eos_ids": table.wholes("eos_ids", MAX_ENDS, MAX_VOCABULARY),
        }
        values |= {
            "tie_word_embeddings": table.boolean("tie_word_embeddings"),
            "sliding_window": table.whole("sliding_window", MAX_TOKENS) if window else None,
        }
        return table.explained(lambda: cls(**values))

    @classmethod
    def from_config(cls, config: Table) -> Geometry:
        """Read a config.json; `rope_theta` / `torch_dtype` or `rope_parameters` / `dtype`.  Raises ModelError."""
        _require_mixtral(config)
        values = _sizes(config) | _rope(config) | {"dtype": _dtype(config), "eos_ids": _ends(config)}
        return config.explained(lambda: cls(**values))


def _require_mixtral(config: Table) -> None:
    named = config.rows("architectures", MAX_ENDS) if config.has("architectures") else []
    kind = config.text("model_type") if config.has("model_type") else None
    if ARCHITECTURE not in named and kind != "mixtral":
        architecture = next(iter(named), kind)
        raise config.error(f"unknown architecture {shown(architecture)}; only {ARCHITECTURE} is supported")
    if config.has("hidden_act") and config.text("hidden_act") != "silu":
        raise config.error(f"hidden_act is {shown(config.text('hidden_act'))}; Mixtral has silu")


def _sizes(config: Table) -> dict[str, Any]:
    values: dict[str, Any] = {ours: config.whole(theirs, _MAXIMA[ours]) for ours, theirs in _CONFIG_NAMES.items()}
    heads, hidden = values["num_heads"], values["hidden_size"]
    if not config.has("head_dim") and hidden % heads:
        raise config.error(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    optional = {"num_kv_heads": ("num_key_value_heads", heads), "head_dim": ("head_dim", hidden // heads)}
    for ours, (theirs, default) in optional.items():
        values[ours] = config.whole(theirs, _MAXIMA[ours]) if config.has(theirs) else default
    return values | {
        "rms_norm_eps": config.positive("rms_norm_eps"),
        "tie_word_embeddings": config.has("tie_word_embeddings") and config.boolean("tie_word_embeddings"),
        "sliding_window": config.whole("sliding_window", MAX_TOKENS) if config.has("sliding_window") else None,
    }


def _rope(config: Table) -> dict[str, float]:
    parameters, scaling = config.table("rope_parameters"), config.table("rope_scaling")
    for table, name in ((parameters, "rope_type"), (scaling, "rope_type"), (scaling, "type")):
        if table.has(name) and table.text(name) != "default":
            raise config.error(f"rope type {shown(table.text(name))} is not supported; Mixtral has the default one")
    source = parameters if parameters.has("rope_theta") else config
    return {"rope_theta": source.positive("rope_theta") if source.has("rope_theta") else 1e6}


def _dtype(config: Table) -> str:
    for name in ("dtype", "torch_dtype"):
        if config.has(name):
            prefix = "torch." if config.text(name).startswith("torch.") else ""
            return _DTYPES[config.one_of(name, [prefix + known for known in _DTYPES]).removeprefix(prefix)]
    return "BF16"


def _ends(config: Table) -> tuple[int, ...]:
    if not config.has("eos_token_id"):
        return ()
    if config.holds("eos_token_id", list):
        return config.wholes("eos_token_id", MAX_ENDS, MAX_VOCABULARY)
    return (config.whole("eos_token_id", MAX_VOCABULARY, least=0),)
