"""How Hugging Face checkpoints spell the names of tensors.

One table serves all families: a name that a family does not have is in none of its files.  `checkpoint.py` refuses
tensors that no name accounts for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from rotary_batch.model.geometry import Geometry

_ATTENTION, _EXPERTS = ("self_attn", "attention"), ("mlp.experts", "block_sparse_moe.experts", "feed_forward.experts")
_TOP = {
    "embed": ("model.embed_tokens.weight", "model.word_embeddings.weight"),
    "norm": ("model.norm.weight",),
    "norm.bias": ("model.norm.bias",),
    "head": ("lm_head.weight",),
    "head.bias": ("lm_head.bias",),
}
_LAYER = {
    "attention_norm": ("input_layernorm.weight",),
    "attention_norm.bias": ("input_layernorm.bias",),
    "moe_norm": ("post_attention_layernorm.weight",),
    "moe_norm.bias": ("post_attention_layernorm.bias",),
    "q_norm": ("self_attn.q_norm.weight", "self_attn.query_layernorm.weight", "attention.query_layernorm.weight"),
    "k_norm": ("self_attn.k_norm.weight", "self_attn.key_layernorm.weight", "attention.key_layernorm.weight"),
    "sinks": ("self_attn.sinks",),
    "q_a": ("self_attn.q_a_proj.weight",),
    "q_a_norm": ("self_attn.q_a_layernorm.weight",),
    "q_b": ("self_attn.q_b_proj.weight",),
    "kv_a": ("self_attn.kv_a_proj_with_mqa.weight",),
    "kv_a_norm": ("self_attn.kv_a_layernorm.weight",),
    "kv_b": ("self_attn.kv_b_proj.weight",),
    "router": (
        "mlp.gate.weight",
        "block_sparse_moe.gate.weight",
        "mlp.router.weight",
        "block_sparse_moe.router.layer.weight",
        "mlp.gate.wg.weight",
        "feed_forward.router.weight",
    ),
    "router.bias": ("mlp.router.bias",),
    "router.choice_bias": (
        "mlp.gate.e_score_correction_bias",
        "block_sparse_moe.e_score_correction_bias",
        "mlp.moe_statics.e_score_correction_bias",
        "mlp.gate.expert_bias",
    ),
    "shared.router": ("mlp.shared_expert_gate.weight",),
    "delta.qkv": ("linear_attn.in_proj_qkv.weight",),
    "delta.z": ("linear_attn.in_proj_z.weight",),
    "delta.b": ("linear_attn.in_proj_b.weight",),
    "delta.a": ("linear_attn.in_proj_a.weight",),
    "delta.conv": ("linear_attn.conv1d.weight",),
    "delta.A_log": ("linear_attn.A_log",),
    "delta.dt_bias": ("linear_attn.dt_bias",),
    "delta.norm": ("linear_attn.norm.weight",),
    "delta.out": ("linear_attn.out_proj.weight",),
}
_BY_KEY_HEAD = {"qkvz": ("q", "k", "v", "z"), "ba": ("b", "a")}
_SHARED = ("mlp.shared_expert", "mlp.shared_experts", "mlp.shared_mlp", "feed_forward.shared_expert")
_JOINED = {
    "shared_mlp.input_linear.weight": ("shared.gate", "shared.up"),
    "attention.query_key_value.weight": ("q", "k", "v"),
    "attention.query_key_value.bias": ("q.bias", "k.bias", "v.bias"),
}
_W_NAMES = {"gate": "w1", "up": "w3", "down": "w2"}
_SKIPPED = re.compile(
    r"(?:model\.)?(visual|vision_tower|audio_tower|multi_modal_projector|mtp)\.|.*(rotary_emb\.inv_freq)$"
)
_LAYER_NUMBER = re.compile(r"model\.layers\.(\d+)\.")


def plain_name(name: str) -> str:
    """A name as a model without vision has it."""
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.") if name.startswith("language_model.lm_head") else name


def skipped_part(name: str, geometry: Geometry) -> str | None:
    """Which part of a file this version leaves out a tensor belongs to; None = it is part of the language model."""
    if found := _SKIPPED.match(name):
        return found[1] or found[2]
    layer = _LAYER_NUMBER.match(name)
    if layer and int(layer[1]) >= geometry.num_layers:
        return f"layer {layer[1]}, which predicts further tokens"
    return None


def spellings(name: str) -> Iterator[str]:
    """How files spell one of our dense names."""
    if not name.startswith("layers."):
        yield from _TOP[name]
        return
    _, layer, part = name.split(".", 2)
    yield from (f"model.layers.{layer}.{theirs}" for theirs in _layer_spellings(part))


def _layer_spellings(part: str) -> Iterator[str]:
    if part in _LAYER:
        yield from _LAYER[part]
        return
    stem, _, kind = part.partition(".")
    if stem in {"q", "k", "v", "o"}:
        yield from (f"{module}.{stem}_proj.{kind or 'weight'}" for module in _ATTENTION)
        if stem == "o":
            yield f"attention.dense.{kind or 'weight'}"
    elif stem == "shared":
        yield from (f"{module}.{kind}_proj.weight" for module in _SHARED)
        if kind == "down":
            yield "shared_mlp.output_linear.weight"
    elif stem == "ffn":
        yield f"mlp.{kind}_proj.weight"
        yield f"feed_forward.{kind}_proj.weight"


def joined_spellings(name: str) -> Iterator[tuple[str, int]]:
    """Tensors of files that have one of our dense names among several, one above the other, and its place there."""
    _, layer, part = name.split(".", 2) if name.startswith("layers.") else ("", "", name)
    for theirs, parts in _JOINED.items():
        if part in parts:
            yield f"model.layers.{layer}.{theirs}", parts.index(part)


def joined_parts(theirs: str) -> tuple[str, ...]:
    """Our names of the parts of a tensor of a layer that has several."""
    return _JOINED[_LAYER_NUMBER.sub("", theirs)]


def by_key_head(name: str) -> tuple[str, Sequence[str]] | None:
    """For an input projection of a Gated DeltaNet layer: how Qwen3-Next's files spell the one tensor that has it.

    That tensor has the projections of each key head together; their names follow, in their order.
    """
    stem, _, part = name.partition(".delta.")
    for theirs, parts in _BY_KEY_HEAD.items():
        if part in parts or (part == "qkv" and theirs == "qkvz"):
            return f"model.{stem}.linear_attn.in_proj_{theirs}.weight", parts
    return None


def expert_spellings(layer: int, expert: int, matrix: str) -> Iterator[str]:
    """How files spell the matrix gate, up or down of one expert."""
    for module in _EXPERTS:
        yield f"model.layers.{layer}.{module}.{expert}.{matrix}_proj.weight"
        yield f"model.layers.{layer}.{module}.{expert}.{_W_NAMES[matrix]}.weight"


def fused_spellings(layer: int, matrix: str) -> Iterator[str]:
    """How files spell `gate_up` or `down` of all experts of a layer in one tensor [experts, rows, columns]."""
    yield f"model.layers.{layer}.mlp.experts.{matrix}_proj"
    theirs = {"gate_up": "input", "down": "output"}[matrix]
    yield f"model.layers.{layer}.block_sparse_moe.{theirs}_linear.weight"


def first_of(names: Iterator[str], known: Collection[str]) -> str | None:
    """The first spelling that a file has."""
    return next((name for name in names if name in known), None)
