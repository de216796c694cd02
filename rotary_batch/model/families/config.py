"""What all families' configs have in common: sizes, and the several ways to spell each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rotary_batch.model.geometry import (
    DELTA,
    FULL,
    MAX_ENDS,
    MAX_LAYERS,
    MAX_SIZES,
    MAX_TOKENS,
    MAX_VOCABULARY,
    WINDOW,
)
from rotary_batch.model.rope_scaling import RopeScaling
from rotary_batch.model.tables import Table, shown

_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_SPELLINGS = {
    "hidden_size": ("hidden_size",),
    "num_layers": ("num_hidden_layers",),
    "num_heads": ("num_attention_heads",),
    "vocab_size": ("vocab_size",),
    "max_position": ("max_position_embeddings",),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "top_k": ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"),
    "intermediate_size": ("moe_intermediate_size", "intermediate_size"),
}
_ROPE_NUMBERS = (
    *("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"),
    *("attention_factor", "mscale", "mscale_all_dim"),
)
_KINDS = {"full_attention": FULL, "sliding_attention": WINDOW, "linear_attention": DELTA}
_PER_LAYER = ("moe_topk", "moe_intermediate_size", "num_shared_expert", "num_experts")  # of Hunyuan: a list
SILU = ("silu", "swish")


def text_table(config: Table) -> Table:
    """The part of a config that describes the language model; others are vision and audio."""
    return config.table("text_config") if config.has("text_config") else config


def sizes(config: Table, default_theta: float) -> dict[str, Any]:
    """The fields of Geometry that every family has.  Raises ModelError."""
    if config.has("hidden_act") and config.text("hidden_act") not in SILU:
        raise config.error(f"hidden_act is {shown(config.text('hidden_act'))}; this version has silu")
    values: dict[str, Any] = {
        ours: one_whole(config, names, MAX_SIZES[ours])
        for ours, names in _SPELLINGS.items()
        if ours not in {"num_experts", "top_k"} or any(map(config.has, names))
    }
    heads, hidden = values["num_heads"], values["hidden_size"]
    has_head = config.has("head_dim") or config.has("kv_lora_rank")
    if not has_head and hidden % heads:
        raise config.error(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    optional = {"num_kv_heads": ("num_key_value_heads", heads), "head_dim": ("head_dim", hidden // heads)}
    for ours, (theirs, default) in optional.items():
        values[ours] = config.whole(theirs, MAX_SIZES[ours]) if config.has(theirs) else default
    return values | {
        "rms_norm_eps": config.positive(next(filter(config.has, ("rms_norm_eps", "norm_eps")), "rms_norm_eps")),
        "tie_word_embeddings": flag(config, "tie_word_embeddings"),
        "sliding_window": None,
        "dtype": _dtype(config),
        "eos_ids": _ends(config),
        "rope_theta": default_theta,
        **_rope(config, values["head_dim"], values["max_position"]),
    }


def one_whole(config: Table, names: Sequence[str], most: int) -> int:
    """A whole number by the first of its spellings that exists; some may be a list with the same for every layer."""
    name = next(filter(config.has, names), names[0])
    if name not in _PER_LAYER or not config.holds(name, list):
        return config.whole(name, most)
    numbers = set(config.wholes(name, MAX_LAYERS, most))
    if len(numbers) != 1:
        raise config.error(f"{name} differs between layers; one value for all is supported")
    return numbers.pop()


def flag(config: Table, name: str, *, default: bool = False) -> bool:
    """True or false, or the default."""
    return config.boolean(name) if config.has(name) else default


def window(config: Table, *, needs: str | None = None) -> int | None:
    """The sliding window; with `needs` only where that flag is set."""
    is_used = config.has("sliding_window") and (needs is None or flag(config, needs))
    return config.whole("sliding_window", MAX_TOKENS) if is_used else None


def attention_kinds(config: Table) -> tuple[str, ...]:
    """The kind of attention of each layer, from `layer_types`; empty where a config has none.  Raises ModelError."""
    if not config.has("layer_types"):
        return ()
    words = config.texts("layer_types", MAX_LAYERS)
    if unknown := [word for word in words if word not in _KINDS]:
        raise config.error(f"a layer of type {shown(unknown[0])}; known: {', '.join(_KINDS)}")
    return tuple(_KINDS[word] for word in words)


def attention_bias(config: Table, parts: str, *, default: bool = False, name: str = "attention_bias") -> str:
    """Which of q, k, v, o have a bias."""
    return parts if flag(config, name, default=default) else ""


def _rope(config: Table, head_dim: int, max_position: int) -> dict[str, Any]:
    """Theta, rotating dimensions and scaling, as transformers 4 spells them and as 5 does."""
    parameters = config.table("rope_parameters")
    theta_of = parameters if parameters.has("rope_theta") else config
    values: dict[str, Any] = {"rope_scaling": rope_scaling(config, max_position)}
    if theta_of.has("rope_theta"):
        values["rope_theta"] = theta_of.positive("rope_theta")
    share_of = parameters if parameters.has("partial_rotary_factor") else config
    if config.has("rotary_dim"):
        values["rotary_dim"] = config.whole("rotary_dim", MAX_SIZES["head_dim"])
    elif share_of.has("partial_rotary_factor"):
        values["rotary_dim"] = int(head_dim * share_of.positive("partial_rotary_factor"))
    return values


def rope_scaling(config: Table, max_position: int) -> RopeScaling:
    """How a config stretches the rotation; `max_position` is the context.  Raises ModelError."""
    parameters = config.table("rope_parameters")
    table = parameters if parameters.has("rope_type") else config.table("rope_scaling")
    kind = next((table.text(name) for name in ("rope_type", "type") if table.has(name)), "default")
    if kind in {"default", "mrope"}:  # positions in three dimensions are one for text
        return RopeScaling()
    values: dict[str, Any] = {name: table.finite(name) for name in _ROPE_NUMBERS if table.has(name)}
    original = "original_max_position_embeddings"
    source = table if table.has(original) else config
    values["original_max_position"] = source.whole(original, MAX_TOKENS) if source.has(original) else max_position
    values["truncate"] = flag(table, "truncate", default=True)
    if table.has("divisors"):
        values["divisors"] = table.finites("divisors", MAX_SIZES["head_dim"])
    if kind == "longrope":
        values |= _longrope(table, long=max_position > values["original_max_position"])
    if kind == "dynamic" and table.has("alpha"):
        kind, values["factor"] = "ntk", table.positive("alpha")
    return table.explained(lambda: RopeScaling(kind=kind, **values))


def _longrope(table: Table, *, long: bool) -> dict[str, Any]:
    """One set of factors for all positions: the long one where the context is longer than the one trained first."""
    length = "long" if long else "short"
    values: dict[str, Any] = {"factors": table.finites(f"{length}_factor", MAX_SIZES["head_dim"])}
    if table.has(f"{length}_mscale"):
        values["attention_factor"] = table.positive(f"{length}_mscale")
    return values


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
