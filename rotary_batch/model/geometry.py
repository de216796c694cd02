"""The description of a model: sizes, the switches that decide its arithmetic, the names and shapes of its tensors.

A family (model/families/) reads it from a config.json or from the keys of a GGUF file; a manifest stores it
(geometry_table.py).  The defaults of the switches are Mixtral's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError
from rotary_batch.model.delta import DeltaShape
from rotary_batch.model.rope_scaling import RopeScaling, yarn_mscale

# Names as safetensors spells them.
DTYPE_NBYTES = {"F32": 4, "BF16": 2, "F16": 2}
# Far above every existing model, and low enough that sizes computed from a damaged file fit in memory.
MAX_TOKENS = 2**24
MAX_VOCABULARY = 2**26
MAX_SLABS = 2**18
MAX_ENDS = 256
MAX_LAYERS = 2**12
MAX_SIZES = {
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_layers": MAX_LAYERS,
    "num_heads": 2**14,
    "num_kv_heads": 2**14,
    "head_dim": 2**14,
    "num_experts": 2**14,
    "top_k": 2**14,
    "vocab_size": MAX_VOCABULARY,
    "max_position": MAX_TOKENS,
}
FULL, WINDOW, DELTA = "full", "window", "delta"  # kinds of attention of a layer
ALL_ACTIVE = "all"  # scoring of a dense model: its "experts" are slices of one feed-forward, and every row has them all
SCORINGS = ("softmax", "topk_softmax", "sigmoid", "sparsemixer", ALL_ACTIVE)
QK_NORMS = ("", "head", "full", "head_after_rope")
_MATMULS = frozenset({"q", "k", "v", "o", "q_a", "q_b", "kv_a", "kv_b", "gate", "up", "down", "qkv", "z", "out"})
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Everything about a model that decides shapes and arithmetic."""

    hidden_size: int
    intermediate_size: int  # of one expert
    num_layers: int
    num_heads: int
    num_kv_heads: int  # as the KV cache has them: 1 in latent attention
    head_dim: int  # numbers of a key in the KV cache: in latent attention kv_lora_rank and the dimensions that rotate
    num_experts: int  # of a layer that has experts
    top_k: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position: int
    sliding_window: int | None
    dtype: str  # of the checkpoint's weights: F32, BF16 or F16
    eos_ids: tuple[int, ...]
    family: str = "mixtral"
    # layers
    attention_kinds: tuple[str, ...] = ()  # of each layer: full, window or delta; empty = the same for all
    dense_layers: tuple[int, ...] = ()  # whose feed-forward has no experts, and stays in device memory
    dense_intermediate_size: int = 0  # of these
    # router
    scoring: str = "softmax"
    renormalise: bool = True  # the weights of a row's experts sum to 1
    renormalise_min: float = 0.0  # the least that their sum counts for
    routed_scale: float = 1.0  # of these weights
    num_groups: int = 1  # of experts, of which a row has the best `top_groups`
    top_groups: int = 1
    router_bias: bool = False  # added to scores
    choice_bias: bool = False  # added to scores for the choice only
    # feed-forward
    shared_intermediate_size: int = 0  # of the expert that every row has
    shared_gate: bool = False  # its result is multiplied by the sigmoid of a score
    expert_bias: bool = False
    swiglu_limit: float = 0.0  # clamped SwiGLU of gpt-oss; 0 = plain
    swiglu_alpha: float = 1.702
    # attention
    attention_bias: str = ""  # which of q, k, v, o have a bias
    qk_norm: str = ""  # of queries and keys: of each head, of all together, of each head after the rotation
    attention_scale: float | None = None  # of scores; None = by the dimensions of a head: `score_scale`
    rotary_dim: int | None = None  # dimensions of a head that rotate, in latent attention the last; None = all
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    no_rope_layers: tuple[int, ...] = ()  # layers without rotation
    attention_sinks: bool = False  # a logit for each head that takes weight and gives no value
    output_gate: bool = False  # q also gives a gate for each head's output
    # norms
    zero_centred_norm: bool = False  # weights are stored less 1
    layer_norm: bool = False  # LayerNorm with bias instead of RMSNorm
    # multipliers
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_divisor: float = 1.0
    head_bias: bool = False
    # multi-head latent attention (arXiv 2405.04434): 0 = none
    kv_lora_rank: int = 0  # numbers of a latent, which is the value of all heads and the first part of their key
    q_lora_rank: int = 0  # 0 = queries are not compressed
    nope_head_dim: int = 0  # dimensions of a head that do not rotate, before they are a latent
    value_head_dim: int = 0  # dimensions of a head's value, after it was a latent
    # gated DeltaNet (arXiv 2412.06464)
    delta_key_heads: int = 0
    delta_value_heads: int = 0
    delta_key_dim: int = 0
    delta_value_dim: int = 0
    delta_conv: int = 0
    delta_out_by_turns: bool = False  # columns of delta.out: one value head of every key head, then the next of each

    def __post_init__(self) -> None:
        for holds, fact in (
            (self.num_heads % self.num_kv_heads == 0, "the heads are not a multiple of the key/value heads"),
            (self.top_k <= self.num_experts, f"each token asks {self.top_k} of {self.num_experts} experts"),
            (self.head_dim % 2 == 0, f"head_dim {self.head_dim} is odd"),
            (self.num_layers * self.num_experts <= MAX_SLABS, f"more than {MAX_SLABS:,} experts in all layers"),
            (self.scoring in SCORINGS, f"router scores {self.scoring!r}; known: {', '.join(SCORINGS)}"),
            (self.qk_norm in QK_NORMS, f"norm of queries and keys {self.qk_norm!r}"),
            (len(self.attention_kinds) in {0, self.num_layers}, "attention kinds are not one for each layer"),
            (set(self.attention_kinds) <= {FULL, WINDOW, DELTA}, "an unknown kind of attention"),
            (len(self.moe_layers) > 0, "no layer has experts"),
            (len(self.kv_layers) > 0, "no layer has a KV cache"),
            (self.num_rotary % 2 == 0 and 0 < self.num_rotary <= self.head_dim, f"rotary_dim {self.num_rotary}"),
            (self.num_experts % self.num_groups == 0, f"{self.num_experts} experts in {self.num_groups} groups"),
            (self.top_groups <= self.num_groups, f"each token asks {self.top_groups} of {self.num_groups} groups"),
            (self._has_room_in_groups, f"{self.top_groups} groups have less than {self.top_k} experts"),
            (self._is_latent_or_plain, f"a key of {self.head_dim} numbers in {self.num_kv_heads} heads is no latent"),
        ):
            if not holds:
                raise ModelError(fact)
        self.delta  # noqa: B018 - raises for sizes that cannot be

    @property
    def num_rotary(self) -> int:
        """Dimensions of a head that rotate."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    @property
    def _has_room_in_groups(self) -> bool:
        return self.top_k <= self.num_experts // self.num_groups * self.top_groups

    @property
    def _is_latent_or_plain(self) -> bool:
        if not self.kv_lora_rank:
            return True
        sizes = (self.num_kv_heads, self.head_dim) == (1, self.kv_lora_rank + self.num_rotary)
        return sizes and self.nope_head_dim > 0 and self.value_head_dim > 0

    @property
    def score_scale(self) -> float:
        """What the product of a query and a key is multiplied by.

        Latent attention has another where the context is stretched (arXiv 2309.00071), and its heads are those before
        they are latents.
        """
        if self.attention_scale is not None:
            return self.attention_scale
        if not self.kv_lora_rank:
            return 1 / math.sqrt(self.head_dim)
        sharpness = yarn_mscale(self.rope_scaling.factor, self.rope_scaling.mscale_all_dim)
        return sharpness**2 / math.sqrt(self.nope_head_dim + self.num_rotary)

    @property
    def value_dim(self) -> int:
        """Numbers of a value in the KV cache."""
        return self.kv_lora_rank or self.head_dim

    @property
    def kv_parts(self) -> tuple[tuple[int, ...], ...]:
        """The vectors of a token and head in the KV cache, each by its parts, which int8 scales apart.

        A key and a value; in latent attention one vector, whose first part is the value.
        """
        if self.kv_lora_rank:
            return ((self.kv_lora_rank, self.num_rotary),)
        return ((self.head_dim,), (self.head_dim,))

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Layers that have experts."""
        dense = frozenset(self.dense_layers)
        return tuple(layer for layer in range(self.num_layers) if layer not in dense)

    @property
    def has_router(self) -> bool:
        """Whether a router chooses experts; in a dense model every row has all slices."""
        return self.scoring != ALL_ACTIVE

    def attention_kind(self, layer: int) -> str:
        """full, window or delta."""
        if self.attention_kinds:
            return self.attention_kinds[layer]
        return FULL if self.sliding_window is None else WINDOW

    def window(self, layer: int) -> int | None:
        """How many tokens back a row of this layer sees; None = all."""
        return self.sliding_window if self.attention_kind(layer) == WINDOW else None

    def first_layers(self, count: int) -> Geometry:
        """The same model without the layers that follow."""
        return replace(
            self,
            num_layers=count,
            attention_kinds=self.attention_kinds[:count],
            dense_layers=tuple(layer for layer in self.dense_layers if layer < count),
            no_rope_layers=tuple(layer for layer in self.no_rope_layers if layer < count),
        )

    def with_window(self, window: int | None) -> Geometry:
        """The same model if every layer had this window."""
        return replace(self, sliding_window=window, attention_kinds=())

    @property
    def kv_layers(self) -> tuple[int, ...]:
        """Layers that have a KV cache."""
        return tuple(layer for layer in range(self.num_layers) if self.attention_kind(layer) != DELTA)

    @property
    def delta_layers(self) -> tuple[int, ...]:
        """Layers of linear attention, which have a state instead of a KV cache."""
        return tuple(layer for layer in range(self.num_layers) if self.attention_kind(layer) == DELTA)

    @property
    def delta(self) -> DeltaShape | None:
        """The shape of these layers; None = there are none."""
        if DELTA not in self.attention_kinds:
            return None
        return DeltaShape(
            num_key_heads=self.delta_key_heads,
            num_value_heads=self.delta_value_heads,
            key_head_dim=self.delta_key_dim,
            value_head_dim=self.delta_value_dim,
            conv_width=self.delta_conv,
        )

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state, over all layers."""
        return len(self.delta_layers) * self.delta.state_nbytes if self.delta else 0

    @property
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def kv_token_params(self) -> int:
        """Numbers of one token in the KV cache, over all layers."""
        return len(self.kv_layers) * self.num_kv_heads * sum(map(sum, self.kv_parts))

    @property
    def kv_token_scales(self) -> int:
        """Scales of one token in an int8 KV cache, over all layers."""
        return len(self.kv_layers) * self.num_kv_heads * sum(map(len, self.kv_parts))

    @property
    def dense_matmul_params(self) -> int:
        """Parameters of the matrices that every row passes, without embeddings and head."""
        return _dense_matmul_params(self)

    @property
    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """The two matrices of an expert, [rows, columns]: gate over up, and down."""
        hidden, middle = self.hidden_size, self.intermediate_size
        return {"gate_up": (2 * middle, hidden), "down": (hidden, middle)}

    @property
    def expert_bias_sizes(self) -> dict[str, int]:
        """The biases of an expert, by the matrix that they follow."""
        return {"gate_up": 2 * self.intermediate_size, "down": self.hidden_size} if self.expert_bias else {}

    def expert_keys(self) -> Iterator[ExpertKey]:
        """All experts in ring order."""
        return (ExpertKey(layer, expert) for layer in self.moe_layers for expert in range(self.num_experts))

    def dense_shapes(self) -> Shapes:
        """Names (our own, short) and shapes of everything but the experts."""
        hidden = self.hidden_size
        shapes: Shapes = {"embed": (self.vocab_size, hidden)} | self._norm_shapes("norm", hidden)
        if not self.tie_word_embeddings:
            shapes["head"] = (self.vocab_size, hidden)
        if self.head_bias:
            shapes["head.bias"] = (self.vocab_size,)
        for layer in range(self.num_layers):
            parts = (
                self._norm_shapes("attention_norm", hidden)
                | self._mixer_shapes(layer)
                | self._norm_shapes("moe_norm", hidden)
                | self._feed_forward_shapes(layer)
            )
            shapes |= {f"layers.{layer}.{name}": shape for name, shape in parts.items()}
        return shapes

    def _norm_shapes(self, name: str, size: int) -> Shapes:
        names = [name, f"{name}.bias"] if self.layer_norm else [name]
        return dict.fromkeys(names, (size,))

    def _mixer_shapes(self, layer: int) -> Shapes:
        if self.attention_kind(layer) == DELTA:
            return self._delta_shapes()
        return self._latent_attention_shapes() if self.kv_lora_rank else self._attention_shapes()

    def _attention_shapes(self) -> Shapes:
        hidden, q, kv = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        rows = {"q": q * (1 + self.output_gate), "k": kv, "v": kv}
        shapes: Shapes = {name: (size, hidden) for name, size in rows.items()}
        shapes["o"] = (hidden, q)
        for name in self.attention_bias:
            shapes[f"{name}.bias"] = (rows.get(name, hidden),)
        if self.qk_norm:
            is_full = self.qk_norm == "full"
            shapes |= {"q_norm": (q if is_full else self.head_dim,), "k_norm": (kv if is_full else self.head_dim,)}
        if self.attention_sinks:
            shapes["sinks"] = (self.num_heads,)
        return shapes

    def _latent_attention_shapes(self) -> Shapes:
        hidden, heads, rope = self.hidden_size, self.num_heads, self.num_rotary
        q = heads * (self.nope_head_dim + rope)
        queries: Shapes = {"q": (q, hidden)}
        if self.q_lora_rank:
            rank = self.q_lora_rank
            queries = {"q_a": (rank, hidden), "q_a_norm": (rank,), "q_b": (q, rank)}
        return queries | {
            "kv_a": (self.kv_lora_rank + rope, hidden),
            "kv_a_norm": (self.kv_lora_rank,),
            "kv_b": (heads * (self.nope_head_dim + self.value_head_dim), self.kv_lora_rank),
            "o": (hidden, heads * self.value_head_dim),
        }

    def _delta_shapes(self) -> Shapes:
        hidden, heads = self.hidden_size, self.delta_value_heads
        keys, values = self.delta_key_heads * self.delta_key_dim, heads * self.delta_value_dim
        return {
            "delta.qkv": (2 * keys + values, hidden),
            "delta.z": (values, hidden),
            "delta.b": (heads, hidden),
            "delta.a": (heads, hidden),
            "delta.conv": (2 * keys + values, self.delta_conv),
            "delta.A_log": (heads,),
            "delta.dt_bias": (heads,),
            "delta.norm": (self.delta_value_dim,),
            "delta.out": (hidden, values),
        }

    def _feed_forward_shapes(self, layer: int) -> Shapes:
        hidden = self.hidden_size
        if layer in self.dense_layers:
            return _feed_forward("ffn", hidden, self.dense_intermediate_size)
        shapes: Shapes = {"router": (self.num_experts, hidden)} if self.has_router else {}
        if self.router_bias:
            shapes["router.bias"] = (self.num_experts,)
        if self.choice_bias:
            shapes["router.choice_bias"] = (self.num_experts,)
        if self.shared_intermediate_size:
            shapes |= _feed_forward("shared", hidden, self.shared_intermediate_size)
        if self.shared_gate:
            shapes["shared.router"] = (1, hidden)
        return shapes

    def is_quantisable(self, name: str) -> bool:
        """Whether a dense tensor may be stored quantised: a matrix; never a router, a norm, a bias or a convolution."""
        return name in {"embed", "head"} or name.rpartition(".")[2] in _MATMULS

    def is_float32(self, name: str) -> bool:
        """Whether a dense tensor is float32 in memory in every numerics: it decides how states decay."""
        return name.endswith((".A_log", ".dt_bias"))


@cache  # it counts for the bound of every step, and 94 layers take 0.7 ms
def _dense_matmul_params(geometry: Geometry) -> int:
    shapes, apart = geometry.dense_shapes().items(), {"embed", "head"}
    return sum(math.prod(shape) for name, shape in shapes if geometry.is_quantisable(name) and name not in apart)


def _feed_forward(name: str, hidden: int, middle: int) -> Shapes:
    return {f"{name}.gate": (middle, hidden), f"{name}.up": (middle, hidden), f"{name}.down": (hidden, middle)}
