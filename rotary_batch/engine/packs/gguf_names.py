"""What the tensors of a GGUF file are called here, and what llama.cpp's converter did to them.

Their names are those of `gguf-py/gguf/constants.py`, the changes those of the scripts in `conversion/`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from rotary_batch.engine.packs.gguf_order import Swap, halves, value_heads
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import shown
from rotary_batch.sizes import count


class Change(StrEnum):
    """How a tensor differs from the one of the Hugging Face checkpoint that it was converted from."""

    ROWS_SWAPPED = "rows_swapped"  # they are in the order that `Named.swap` describes
    COLUMNS_SWAPPED = "columns_swapped"
    PLUS_ONE = "plus_one"  # 1 was added
    MINUS_EXP = "minus_exp"  # -exp was taken
    SPLIT = "split"  # k_b and v_b were one kv_b
    TRANSPOSED = "transposed"  # its last two dimensions


class Named(NamedTuple):
    """A tensor, and what was done to it, in this order."""

    theirs: str  # its name in the file
    place: TensorPlace
    changes: tuple[Change, ...] = ()
    swap: Swap | None = None


class Census(NamedTuple):
    """Every tensor of a file, by our name or in a note."""

    tensors: dict[str, Named]
    notes: tuple[str, ...]


_TOP_NAMES = {
    "token_embd.weight": "embed",
    "output_norm.weight": "norm",
    "output_norm.bias": "norm.bias",
    "output.weight": "head",
    "output.bias": "head.bias",
}
_WITH_BIAS = {
    "attn_norm": "attention_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_qkv": "qkv",
    "attn_output": "o",
    "ffn_norm": "moe_norm",
    "post_attention_norm": "moe_norm",
    "ffn_gate_inp": "router",
    **{f"ffn_{part}": f"ffn.{part}" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_exps": f"experts.{part}" for part in ("gate", "up", "down", "gate_up")},
}
_LAYER_NAMES = {
    **{f"{theirs}.weight": ours for theirs, ours in _WITH_BIAS.items()},
    **{f"{theirs}.bias": f"{ours}.bias" for theirs, ours in _WITH_BIAS.items()},
    **{f"ffn_{part}_shexp.weight": f"shared.{part}" for part in ("gate", "up", "down")},
    "ffn_gate_inp_shexp.weight": "shared.router",
    "exp_probs_b.bias": "router.choice_bias",
    "attn_sinks.weight": "sinks",
    "attn_kv_a_mqa.weight": "kv_a",
    **{f"attn_{name}.weight": name for name in ("q_norm", "k_norm", "q_a", "q_a_norm", "q_b", "kv_a_norm")},
    **{f"attn_{name}.weight": name for name in ("kv_b", "k_b", "v_b")},
    "attn_gate.weight": "delta.z",
    "ssm_in.weight": "delta.qkvz",  # until December 2025: q, k, v and z of each key head stand together
    "ssm_ba.weight": "delta.ba",
    "ssm_beta.weight": "delta.b",
    "ssm_alpha.weight": "delta.a",
    "ssm_conv1d.weight": "delta.conv",
    "ssm_a": "delta.A_log",
    "ssm_dt.bias": "delta.dt_bias",
    "ssm_norm.weight": "delta.norm",
    "ssm_out.weight": "delta.out",
}
_LAYER = re.compile(r"blk\.(\d{1,5})\.(.+)")
_LAYER_PREFIX = re.compile(r"^layers\.(\d+)\.")  # of our names
_OLD_EXPERT = re.compile(r"ffn_(gate|up|down)\.(\d{1,5})\.weight")  # of Mixtral before April 2024
_ROPE = re.compile(r"(blk\.\d{1,5}\.)?(rope_freqs|rope_factors_long|rope_factors_short|attn_rot_embd)\.weight")
_VISION = re.compile(r"(v|a|mm|resampler)\..+")
_PERMUTED = ("llama", "granite", "granitemoe")
_DELTA_NETS = ("qwen3next", "qwen35moe")
_GATED = ("qwen3_next", "qwen3_5_moe_text")  # q holds a gate of each head too
_NORMS = ("norm", "attention_norm", "moe_norm", "q_norm", "k_norm")  # a DeltaNet's own norm is stored as it was


def census(architecture: str, tensors: Mapping[str, TensorPlace], config: Mapping[str, Any]) -> Census:
    """All tensors of a file by our names; `config` is what `config_from_gguf` made of its keys.

    Raises ModelError for a tensor that is not known.
    """
    named: dict[str, Named] = {}
    skipped: Counter[str] = Counter()
    for theirs, place in tensors.items():
        if _ROPE.fullmatch(theirs):
            continue  # its numbers are in the configuration
        if reason := _reason_to_skip(theirs, config):
            skipped[reason] += 1
            continue
        for ours, part in _by_our_names(architecture, theirs, place, config):
            if ours in named:
                raise ModelError(f"{place.path}: tensor {shown(theirs)} is a second {ours}; fetch the file again")
            named[ours] = Named(
                theirs, _unsqueezed(part, ours), *_changes(architecture, _LAYER_PREFIX.sub("", ours), config)
            )
    return Census(named, tuple(f"skipped {count(number, 'tensor')} of {what}" for what, number in skipped.items()))


def gguf_name(ours: str) -> str:
    """What a GGUF file calls one of our tensors; for messages."""
    prefix = _LAYER_PREFIX.match(ours)
    names = _LAYER_NAMES if prefix else _TOP_NAMES
    part = ours[prefix.end() :] if prefix else ours
    theirs = next((theirs for theirs, known in names.items() if known == part), part)
    return f"blk.{prefix[1]}.{theirs}" if prefix else theirs


def _reason_to_skip(theirs: str, config: Mapping[str, Any]) -> str | None:
    if _VISION.fullmatch(theirs):
        return "the vision or audio part"
    layer, first = _LAYER.fullmatch(theirs), int(config["num_hidden_layers"])
    is_predicting = layer and first <= int(layer[1]) < first + config.get("num_nextn_predict_layers", 0)
    return "layers that predict further tokens" if is_predicting else None


def _by_our_names(
    architecture: str, theirs: str, place: TensorPlace, config: Mapping[str, Any]
) -> Iterator[tuple[str, TensorPlace]]:
    ours, layer = _TOP_NAMES.get(theirs), _LAYER.fullmatch(theirs)
    if layer and int(layer[1]) < config["num_hidden_layers"]:
        expert = _OLD_EXPERT.fullmatch(layer[2])
        part = f"experts.{int(expert[2])}.{expert[1]}" if expert else _LAYER_NAMES.get(layer[2])
        if part == "qkv" and _is_linear(int(layer[1]), config):
            part = "delta.qkv"
        ours = part and f"layers.{int(layer[1])}.{part}"
    if ours is None:
        raise ModelError(
            f"{place.path}: tensor {shown(theirs)} is none of a model of architecture {architecture} with "
            f"{config['num_hidden_layers']} layers; this model cannot be read"
        )
    stem, _, last = ours.rpartition(".qkv")
    if stem and not stem.endswith(".delta"):
        yield from _split_qkv(stem, last, place, config)
    else:
        yield ours, place


def _is_linear(layer: int, config: Mapping[str, Any]) -> bool:
    kinds = config.get("layer_types")
    return kinds is not None and kinds[layer] == "linear_attention"


def _split_qkv(
    stem: str, suffix: str, place: TensorPlace, config: Mapping[str, Any]
) -> Iterator[tuple[str, TensorPlace]]:
    head_dim, query_gates = config["head_dim"], 2 if config["model_type"] in _GATED else 1
    q, kv = config["num_attention_heads"] * head_dim * query_gates, config["num_key_value_heads"] * head_dim
    if place.shape[0] != q + 2 * kv:
        raise ModelError(f"{place.path}: attn_qkv of {stem} has {place.shape[0]:,} rows; its heads make {q + 2 * kv:,}")
    for name, begin, end in (("q", 0, q), ("k", q, q + kv), ("v", q + kv, q + 2 * kv)):
        yield f"{stem}.{name}{suffix}", place.rows(begin, end)


def _unsqueezed(place: TensorPlace, ours: str) -> TensorPlace:
    """The same bytes with the dimension of length 1 that the converter left out."""
    is_row = ours.endswith(".shared.router") and len(place.shape) == 1
    return place._replace(shape=(1, *place.shape)) if is_row else place


def _changes(architecture: str, part: str, config: Mapping[str, Any]) -> tuple[tuple[Change, ...], Swap | None]:
    if architecture in _PERMUTED and part.partition(".")[0] in ("q", "k"):
        num_heads = config["num_attention_heads" if part[0] == "q" else "num_key_value_heads"]
        return (Change.ROWS_SWAPPED,), halves(num_heads, config["head_dim"])
    if part in ("k_b", "v_b"):
        return (Change.SPLIT, Change.TRANSPOSED) if part == "k_b" else (Change.SPLIT,), None
    if architecture not in _DELTA_NETS:
        return (), None
    swap = _value_heads(part, config) if architecture == "qwen35moe" else None
    moved = () if swap is None else (Change.COLUMNS_SWAPPED if part == "delta.out" else Change.ROWS_SWAPPED,)
    values = (Change.MINUS_EXP,) if part == "delta.A_log" else (Change.PLUS_ONE,) if part in _NORMS else ()
    return (*moved, *values), swap


def _value_heads(part: str, config: Mapping[str, Any]) -> Swap | None:
    num_keys, num_values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    width = {"delta.b": 1, "delta.a": 1, "delta.A_log": 1, "delta.dt_bias": 1}.get(
        part, config["linear_value_head_dim"]
    )
    if num_keys == num_values or not part.startswith("delta.") or part == "delta.norm":
        return None
    start = 2 * num_keys * config["linear_key_head_dim"] if part in ("delta.qkv", "delta.conv") else 0
    return value_heads(num_keys, num_values, width, start)
