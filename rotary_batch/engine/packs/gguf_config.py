"""The keys of a GGUF file, in the spelling of the config.json of a Hugging Face checkpoint.

One reader of configurations then serves both.  The names of the keys are in `gguf-py/gguf/constants.py` of llama.cpp,
and what they hold is in its `conversion/` and `src/models/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotary_batch.engine.packs.gguf_families import FAMILIES
from rotary_batch.engine.packs.gguf_head import REMEDY, Value
from rotary_batch.engine.packs.gguf_keys import Keys
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import shown

_ENDS = ("eos", "eot", "eom")  # end of sequence, of turn, of message
_MAX_LAYERS = 2**12


def config_from_gguf(keys: Mapping[str, Value], tensors: Mapping[str, TensorPlace]) -> dict[str, Any]:
    """A config.json for a GGUF file.  Raises ModelError for an unknown architecture, by its name."""
    source = Keys(keys, tensors)
    family = FAMILIES.get(source.architecture)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ModelError(f"{source.where}: architecture {shown(source.architecture)}; those that are read: {known}")
    config = _sizes(source) | _attention(source) | _ends(source)
    config["rope_parameters"] = _rope(source, config)
    return config | family(source, config)


def _sizes(source: Keys) -> dict[str, Any]:
    embed = source.tensors.get("token_embd.weight")
    if embed is None or len(embed.shape) != 2:
        raise ModelError(f'{source.where}: tensor "token_embd.weight" is missing or no matrix; {REMEDY}')
    blocks, predicting = source.whole("block_count"), source.whole("nextn_predict_layers", 0)
    if not 0 <= predicting < blocks <= _MAX_LAYERS:
        raise source.error("block_count", f"is {blocks:,}, {predicting:,} of them to predict further tokens")
    return {
        "hidden_size": source.whole("embedding_length"),
        "num_hidden_layers": blocks - predicting,
        **({"num_nextn_predict_layers": predicting} if predicting else {}),
        "intermediate_size": source.whole("feed_forward_length", 0),
        "vocab_size": embed.shape[0],
        "max_position_embeddings": source.whole("context_length"),
        "rms_norm_eps": source.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "hidden_act": "silu",
    }


def _attention(source: Keys) -> dict[str, Any]:
    heads, hidden = source.whole("attention.head_count"), source.whole("embedding_length")
    head_dim = source.whole("attention.key_length", hidden // max(heads, 1))
    if heads == 0 or head_dim == 0:
        raise source.error("attention.head_count", f"is {heads:,}, with {head_dim:,} numbers for each head")
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": source.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "attention_bias": source.has_tensor(".attn_q.bias") or source.has_tensor(".attn_qkv.bias"),
    }


def _ends(source: Keys) -> dict[str, Any]:
    ends = [token for name in _ENDS if (token := source.token(name)) is not None]
    found: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(ends))} if ends else {}
    if (begin := source.token("bos")) is not None:
        found["bos_token_id"] = begin
    return found


def _rope(source: Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": source.number("rope.freq_base", 10_000.0)}
    turned, head_dim = source.whole("rope.dimension_count", config["head_dim"]), config["head_dim"]
    if turned < head_dim:
        rope["partial_rotary_factor"] = turned / head_dim
    if divisors := source.factors("rope_freqs.weight"):  # the result of Llama 3's scaling; its parameters are lost
        return rope | {"rope_type": "llama3", "divisors": divisors}
    kind = source.text("rope.scaling.type", "none")
    if kind == "longrope" or "rope_factors_long.weight" in source.tensors:
        return rope | _longrope(source, config)
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": source.number("rope.scaling.factor")}
    if kind == "yarn":
        return rope | _yarn(source, config)
    if kind != "none":
        raise source.error("rope.scaling.type", f"is {shown(kind)}, which is not known")
    return rope


def _longrope(source: Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    short, long = source.factors("rope_factors_short.weight"), source.factors("rope_factors_long.weight")
    if not short or not long:
        raise source.error("rope.scaling.type", "is longrope, but its factors are not among the tensors")
    original = source.whole("rope.scaling.original_context_length", config["max_position_embeddings"])
    rope = {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
    }
    if source.has("rope.scaling.attn_factor"):
        rope["attention_factor"] = source.number("rope.scaling.attn_factor")
    return rope


def _yarn(source: Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    original = source.whole("rope.scaling.original_context_length", config["max_position_embeddings"])
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": source.number("rope.scaling.factor"),
        "original_max_position_embeddings": original,
        "beta_fast": source.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": source.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    if source.has("rope.scaling.yarn_attn_factor"):
        rope["attention_factor"] = source.number("rope.scaling.yarn_attn_factor")
    return rope
