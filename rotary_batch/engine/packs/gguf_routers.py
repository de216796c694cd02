"""What several architectures of GGUF share: keys of routers, windows, Gated DeltaNet and latent attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotary_batch.engine.packs.gguf_keys import Keys

Config = dict[str, Any]
SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = 1, 2, 3  # values of expert_gating_func
_SCORES = {SOFTMAX: "softmax", SIGMOID: "sigmoid", SOFTMAX_OF_CHOSEN: "softmax of the chosen"}


def latent_attention(source: Keys) -> Config:
    """Sizes of multi-head latent attention."""
    rope = source.whole("rope.dimension_count")
    # Before April 2025 the sizes of a head stood under the names without "mla".
    suffix = "_mla" if source.has("attention.key_length_mla") else ""
    key = source.whole(f"attention.key_length{suffix}")
    if not 0 < rope < key:
        raise source.error("rope.dimension_count", f"is {rope} of {key}")
    return {
        "q_lora_rank": None if source.has_tensor(".attn_q.weight") else source.whole("attention.q_lora_rank"),
        "kv_lora_rank": source.whole("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": source.whole(f"attention.value_length{suffix}"),
        "head_dim": rope,
    }


def latent_rope(source: Keys, rope: Mapping[str, Any]) -> Config:
    """Its rope: the whole of the part that turns, and the factor of the scores."""
    found = {name: value for name, value in rope.items() if name != "partial_rotary_factor"}
    if found["rope_type"] == "yarn" and source.has("rope.scaling.yarn_log_multiplier"):
        mscale = round(10 * source.number("rope.scaling.yarn_log_multiplier"), 6)  # the converter multiplies by 0.1
        found |= {"mscale": mscale, "mscale_all_dim": mscale}
    return found


def experts_of(source: Keys, name: str) -> Config:
    """How many experts there are, under the name that the family has for it, and how many a token uses."""
    return {name: source.whole("expert_count"), "num_experts_per_tok": source.whole("expert_used_count")}


def qwen_experts(source: Keys, config: Mapping[str, Any], *, normalised: bool) -> Config:
    """Experts in the spelling of Qwen."""
    experts = experts_of(source, "num_experts")
    width = config["intermediate_size"] // max(experts["num_experts_per_tok"], 1)
    return {
        **experts,
        "moe_intermediate_size": source.whole("expert_feed_forward_length", width),
        "norm_topk_prob": source.boolean("expert_weights_norm", default=normalised),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def shared_width(source: Keys, config: Mapping[str, Any]) -> Config:
    """The width of the shared expert."""
    width = source.whole("expert_shared_feed_forward_length", config["intermediate_size"])
    return {"shared_expert_intermediate_size": width}


def deepseek_experts(source: Keys, *, normalised: bool, groups: tuple[int, int] = (1, 1)) -> Config:
    """Experts and router in the spelling of DeepSeek; `groups` are those of a file that lacks them."""
    return {
        **experts_of(source, "n_routed_experts"),
        "moe_intermediate_size": source.whole("expert_feed_forward_length"),
        "n_shared_experts": source.whole("expert_shared_count", 0),
        "first_k_dense_replace": source.whole("leading_dense_block_count", 0),
        "n_group": source.whole("expert_group_count", groups[0]),
        "topk_group": source.whole("expert_group_used_count", groups[1]),
        "norm_topk_prob": source.boolean("expert_weights_norm", default=normalised),
        "routed_scaling_factor": source.number("expert_weights_scale", 1.0) or 1.0,  # llama.cpp takes 0 for none
    }


def delta_net(source: Keys, config: Mapping[str, Any]) -> Config:
    """Sizes of Gated DeltaNet, and which layers have it."""
    layers, heads, inner = (
        config["num_hidden_layers"],
        source.whole("ssm.time_step_rank"),
        source.whole("ssm.inner_size"),
    )
    keys = source.whole("ssm.group_count")
    if min(heads, inner, keys) == 0 or inner % heads or heads % keys:
        raise source.error("ssm.time_step_rank", f"is {heads} heads for {keys} key heads and a width of {inner}")
    linear = source.booleans("attention.recurrent_layers", layers)
    if linear is None:
        interval = source.whole("full_attention_interval", 4)
        linear = [interval == 0 or (layer + 1) % interval != 0 for layer in range(layers)]
    return {
        "linear_conv_kernel_dim": source.whole("ssm.conv_kernel"),
        "linear_key_head_dim": source.whole("ssm.state_size"),
        "linear_value_head_dim": inner // heads,
        "linear_num_key_heads": keys,
        "linear_num_value_heads": heads,
        "layer_types": ["linear_attention" if is_linear else "full_attention" for is_linear in linear],
    }


def window_of(source: Keys, config: Mapping[str, Any]) -> Config:
    """The window of attention, when the file has one."""
    window = source.whole("attention.sliding_window", 0)
    return {"sliding_window": window} if 0 < window < config["max_position_embeddings"] else {}


def require_scores(source: Keys, *, scores: tuple[int, ...], scaled: bool = False, default: int | None = None) -> int:
    """The score function of the router.  Raises ModelError when it, or a factor, is none that the family has."""
    found = source.whole("expert_gating_func", 0) or default or scores[0]
    if found not in scores:
        names = " or ".join(_SCORES[score] for score in scores)
        raise source.error("expert_gating_func", f"is {found}; a model of this architecture has {scores[0]} ({names})")
    if not scaled and source.number("expert_weights_scale", 1.0) not in (0.0, 1.0):
        raise source.error("expert_weights_scale", "is not 1; no model of this architecture that can be read has one")
    return found
