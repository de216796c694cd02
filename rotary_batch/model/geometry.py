"""The shape of a Mixtral checkpoint: sizes, byte counts and the names and shapes of its tensors.

Knows config.json in both spellings; knows nothing of files or of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError

# Names as safetensors spells them, and as config.json does.
DTYPE_NBYTES = {"F32": 4, "BF16": 2, "F16": 2}
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
ARCHITECTURE = "MixtralForCausalLM"


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
        self._require(
            self.num_heads % self.num_kv_heads == 0,
            "num_attention_heads is not a multiple of num_key_value_heads",
        )
        self._require(1 <= self.top_k <= self.num_experts, "num_experts_per_tok exceeds num_local_experts")
        self._require(self.head_dim % 2 == 0, "head_dim is odd")

    def _require(self, holds: bool, fact: str) -> None:  # noqa: FBT001 - reads as an assertion
        if not holds:
            raise ModelError(f"config.json: {fact}; this is not a Mixtral checkpoint")

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
        """Numbers that one token keeps in the KV cache, over all layers."""
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
    def from_dict(cls, table: Mapping[str, Any]) -> Geometry:
        """The inverse of `as_dict`."""
        return cls(**{**table, "eos_ids": tuple(table["eos_ids"])})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Geometry:
        """Read a config.json; `rope_theta` / `torch_dtype` or `rope_parameters` / `dtype`.  Raises ModelError."""
        found = config.get("architectures") or [config.get("model_type")]
        if ARCHITECTURE not in found and config.get("model_type") != "mixtral":
            raise ModelError(f"config.json: unknown architecture {found[0]!r}; only {ARCHITECTURE} is supported")
        try:
            return cls(**_sizes(config), **_rope(config), **_ends(config))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"config.json: {error} is missing or not a number") from error


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = int(config["num_attention_heads"])
    return {
        "hidden_size": int(config["hidden_size"]),
        "intermediate_size": int(config["intermediate_size"]),
        "num_layers": int(config["num_hidden_layers"]),
        "num_heads": heads,
        "num_kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        "num_experts": int(config["num_local_experts"]),
        "top_k": int(config["num_experts_per_tok"]),
        "vocab_size": int(config["vocab_size"]),
        "rms_norm_eps": float(config["rms_norm_eps"]),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "max_position": int(config["max_position_embeddings"]),
        "sliding_window": config.get("sliding_window"),
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = config.get("rope_parameters") or {}
    kind = parameters.get("rope_type") or (config.get("rope_scaling") or {}).get("rope_type") or "default"
    if kind != "default":
        raise ModelError(f"config.json: rope type {kind!r} is not supported; Mixtral uses the default one")
    theta = parameters.get("rope_theta", config.get("rope_theta", 1e6))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ModelError(f"config.json: dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    return {"rope_theta": float(theta), "dtype": _DTYPES[dtype]}


def _ends(config: Mapping[str, Any]) -> dict[str, Any]:
    eos = config.get("eos_token_id")
    return {"eos_ids": tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),)}
