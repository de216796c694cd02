"""Every family's logits and greedy tokens are those of `transformers`, from a checkpoint that `transformers` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.families import FAMILIES
from rotary_batch.model.families.config import rope_scaling
from rotary_batch.model.rope_scaling import frequencies
from rotary_batch.model.tables import Table
from rotary_batch.model.tokens import write_byte_tokenizer

PROMPT_TOKENS, NEW_TOKENS = 70, 48
SPANS = (1, 63, 64, 65, None)  # prompt tokens at once
SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,  # at 0.02 the wrong expert changes no logit much
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_SIZES: list[dict[str, Any]] = [
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4},
    {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2},
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2},
    {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1},
]
_EXPERTS: list[dict[str, Any]] = [
    {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2},
    {"moe_intermediate_size": 40, "num_experts": 8, "num_experts_per_tok": 4},
    {"moe_intermediate_size": 16, "num_experts": 16, "num_experts_per_tok": 8},
    {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 1},
    {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 4},
    {"moe_intermediate_size": 64, "num_experts": 6, "num_experts_per_tok": 3},
]
_ROPE_KINDS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 1e4},
    {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
    {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32},
]
_Change = Callable[[int], dict[str, Any]]


def _mlp(number: int) -> int:
    return (64, 96, 160, 256, 512, 40)[number]


def _like_mixtral(number: int) -> dict[str, Any]:
    experts = _EXPERTS[number]
    return {
        "num_local_experts": experts["num_experts"],
        "num_experts_per_tok": experts["num_experts_per_tok"],
        "intermediate_size": experts["moe_intermediate_size"],
    }


def _qwen_moe(number: int) -> dict[str, Any]:
    return _EXPERTS[number] | {
        "intermediate_size": _mlp(number),
        "norm_topk_prob": bool(number % 2),
        "tie_word_embeddings": number == 3,
        "mlp_only_layers": [0] if number == 2 else [],
        "decoder_sparse_step": 2 if number == 4 else 1,
        "head_dim": (8, 16, 32, 24, 16, 8)[number],
        "rope_parameters": _ROPE_KINDS[number % 2 * 3],
        "attention_bias": number == 5,
    }


def _latent(number: int, router: dict[str, Any]) -> dict[str, Any]:
    """Sizes that are all different; yarn with the factors that sharpen scores, which need not be equal."""
    yarn = {**_ROPE_KINDS[3], "beta_fast": 32.0, "mscale": 0.707, "mscale_all_dim": (0.707, 1.0)[number // 2 % 2]}
    sizes = {
        "kv_lora_rank": (16, 24, 8)[number % 3],
        "q_lora_rank": (None, 20)[number % 2],
        "qk_rope_head_dim": (8, 4, 16)[number % 3],
        "qk_nope_head_dim": (12, 16, 6)[number % 3],
        "v_head_dim": (10, 16, 20)[number % 3],
        "num_key_value_heads": _SIZES[number]["num_attention_heads"],
        "rms_norm_eps": 0.01,  # not of the norms of latents
        "rope_parameters": _ROPE_KINDS[0] if number % 3 == 0 else yarn,
    }
    experts = {
        "moe_intermediate_size": _EXPERTS[number]["moe_intermediate_size"],
        "n_routed_experts": 8,
        "num_experts_per_tok": 1 + number % 4,
        "n_shared_experts": 1 + number % 2,
        "intermediate_size": _mlp(number),
        "routed_scaling_factor": 1.0 + number / 2,
    }
    return sizes | experts | router


def _groups(number: int) -> dict[str, Any]:
    return {"n_group": (1, 2, 4)[number % 3], "topk_group": (1, 1, 2)[number % 3]}


CASES: dict[str, _Change] = {
    "mixtral": _like_mixtral,
    "qwen2_moe": lambda n: _qwen_moe(n) | {"shared_expert_intermediate_size": 24 + 8 * n, "qkv_bias": n != 4},
    "qwen3_moe": _qwen_moe,
    "olmoe": lambda n: _like_mixtral(n) | {"num_experts": _EXPERTS[n]["num_experts"], "norm_topk_prob": n == 3},
    "granitemoe": lambda n: (
        _like_mixtral(n)
        | {
            "shared_intermediate_size": (0, 24, 40)[n % 3],
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2 + 0.1 * n,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.0,
            "tie_word_embeddings": n % 2 == 0,
        }
    ),
    "phimoe": lambda n: (
        _like_mixtral(n)
        | {"num_experts_per_tok": 2, "attention_bias": n % 2 == 0, "lm_head_bias": n != 1, "sliding_window": None}
        | ({"rope_parameters": _longrope(n)} if n > 2 else {})
    ),
    "ernie4_5_moe": lambda n: {
        "moe_intermediate_size": _EXPERTS[n]["moe_intermediate_size"],
        "moe_num_experts": _EXPERTS[n]["num_experts"],
        "moe_k": _EXPERTS[n]["num_experts_per_tok"],
        "moe_num_shared_experts": n % 3,
        "intermediate_size": _mlp(n),
        "moe_layer_start_index": n % 2,
    },
    "hunyuan_v1_moe": lambda n: {
        "num_experts": _EXPERTS[n]["num_experts"],
        "moe_topk": _EXPERTS[n]["num_experts_per_tok"],
        "intermediate_size": _EXPERTS[n]["moe_intermediate_size"],
        "head_dim": 16,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 8.0, "factor": 1.0}
        if n % 2
        else {"rope_type": "default", "rope_theta": 1e4},
        "tie_word_embeddings": n % 2 == 0,
    },
    "glm4_moe": lambda n: {
        "moe_intermediate_size": _EXPERTS[n]["moe_intermediate_size"],
        "n_routed_experts": 8,
        "num_experts_per_tok": 1 + n % 4,
        "n_shared_experts": 1 + n % 2,
        "first_k_dense_replace": n % 2,
        "intermediate_size": _mlp(n),
        "use_qk_norm": n % 2 == 0,
        "attention_bias": n != 3,
        "routed_scaling_factor": 1.0 + n / 2,
        "norm_topk_prob": n != 5,
        "n_group": (1, 2, 4)[n % 3],
        "topk_group": (1, 1, 2)[n % 3],
        "head_dim": 16,
    },
    "deepseek_v2": lambda n: _latent(
        n,
        {
            "first_k_dense_replace": n % 2,
            "topk_method": "group_limited_greedy" if n % 3 else "greedy",
            "norm_topk_prob": n == 4,
            **_groups(n),
        },
    ),
    "deepseek_v3": lambda n: _latent(n, {"first_k_dense_replace": n % 2, "norm_topk_prob": n != 4, **_groups(n)}),
    "glm4_moe_lite": lambda n: _latent(n, {"norm_topk_prob": n != 4, **_groups(n)}),
    "minimax_m2": lambda n: _like_mixtral(n) | {"head_dim": 16, "rotary_dim": 8 if n % 2 else 16},
    "gpt_oss": lambda n: (
        _like_mixtral(n)
        | {
            "sliding_window": (8, 16, 24)[n % 3],
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 32,
            },
        }
    ),
    "granite": lambda n: {
        "intermediate_size": _mlp(n),
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2 + 0.1 * n,
        "residual_multiplier": 0.6,
        "logits_scaling": 2.0,
        "tie_word_embeddings": n % 2 == 0,
    },
    "llama": lambda n: {
        "intermediate_size": _mlp(n),
        "rope_parameters": _ROPE_KINDS[n % 4],
        "attention_bias": n == 4,
        "tie_word_embeddings": n % 2 == 0,
    },
    "mistral": lambda n: {"intermediate_size": _mlp(n), "sliding_window": 24 if n % 2 else None, "head_dim": 16},
    "qwen2": lambda n: {"intermediate_size": _mlp(n)} | _some_windows(n),
    "qwen3": lambda n: {"intermediate_size": _mlp(n), "head_dim": 16, "attention_bias": n == 1} | _some_windows(n),
    "smollm3": lambda n: {"intermediate_size": _mlp(n), "no_rope_layer_interval": 2 + n % 2},
}


def _some_windows(number: int) -> dict[str, Any]:
    return {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1} if number % 2 else {}


def _longrope(number: int) -> dict[str, Any]:
    """Within the context of the first training: the reference takes the short factors at every length."""
    half = _SIZES[number]["hidden_size"] // _SIZES[number]["num_attention_heads"] // 2
    return {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + place / 8 for place in range(half)],
        "long_factor": [1.0 + place / 4 for place in range(half)],
        "short_mscale": 1.1,
        "long_mscale": 1.25,
        "original_max_position_embeddings": SMALL["max_position_embeddings"],
    }


def write_checkpoint(folder, name: str, number: int):
    """A checkpoint of random weights that `transformers` saves, and the model."""
    family = next(one for one in FAMILIES if one.name == name)
    model_class = getattr(transformers, family.oracle)
    torch.manual_seed(number)
    config = model_class.config_class(**(SMALL | _SIZES[number] | CASES[name](number)))
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    model = model_class(config).eval()
    for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if key.endswith(("bias", "sinks", "norm.weight", "layernorm.weight")):  # they begin as constants
            tensor.data += 0.2 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    write_byte_tokenizer(folder)
    return model


@pytest.mark.parametrize("number", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.faults) for n in (3, 4, 5))])
@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, number, tmp_path):
    reference = write_checkpoint(tmp_path / "hf", name, number)
    pack(tmp_path / "hf", tmp_path / "pack")
    prompt = torch.randint(0, 256, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        expected = reference(prompt).logits[0]
        tokens = reference.generate(
            prompt, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompt)
        )
    resident_share, span = (1.0 if number % 2 else 0.0), SPANS[number % len(SPANS)]
    engine = open_engine(
        tmp_path / "pack", numerics="exact", ring_slots=2, resident_share=resident_share, prefill_span=span
    )
    logits = engine.logits(prompt[0].tolist())
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    engine.stop_ids = frozenset()
    assert engine.generate([prompt[0].tolist()], NEW_TOKENS)[0] == tokens[0, PROMPT_TOKENS:].tolist()
    engine.close()


_LING_NAMES = {
    "model.embed_tokens.": "model.word_embeddings.",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
    "e_score_correction_bias": "expert_bias",
}


@pytest.mark.parametrize("number", [0, 2, 4])  # with norms of queries and keys, as Ling has them
def test_ling_is_glm_with_other_names(number, tmp_path):
    """Its own class is code in its repository, which nobody runs here."""
    folder = tmp_path / "hf"
    reference = write_checkpoint(folder, "glm4_moe", number)
    tensors = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        stem, part, kind = name.partition(".self_attn.q_proj")
        if part:
            joined = [tensors[f"{stem}.self_attn.{one}_proj{kind}"] for one in "qkv"]
            renamed[f"{stem}.attention.query_key_value{kind}"] = torch.cat(joined)
        elif ".self_attn.k_proj" not in name and ".self_attn.v_proj" not in name:
            renamed[_renamed(name)] = tensor
    save_file(renamed, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe"}
    config |= {"num_experts": config.pop("n_routed_experts"), "num_shared_experts": config.pop("n_shared_experts")}
    config["use_qkv_bias"] = config.pop("attention_bias")
    (folder / "config.json").write_text(json.dumps(config))
    pack(folder, tmp_path / "pack")
    engine = open_engine(tmp_path / "pack", numerics="exact", ring_slots=2)
    prompt = torch.randint(0, 256, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(number))
    with torch.no_grad():
        expected = reference(prompt).logits[0]
    assert (engine.logits(prompt[0].tolist()) - expected).abs().max() <= 1e-4 * expected.abs().max()
    engine.close()


def _renamed(name: str) -> str:
    for theirs, ours in _LING_NAMES.items():
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize("parameters", _ROPE_KINDS[1:])
def test_frequencies_are_those_of_transformers(parameters):
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=4096, rope_parameters=parameters
    )
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    table = Table({"rope_parameters": parameters, "max_position_embeddings": 4096}, "config.json", "")
    found = frequencies(parameters["rope_theta"], 32, rope_scaling(table, 4096))
    assert found.factor == pytest.approx(factor)
    assert torch.allclose(torch.tensor(found.angles), expected, rtol=1e-6)


def test_long_factors_serve_contexts_beyond_the_first_training():
    parameters = {"rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0], "long_mscale": 1.25}
    parameters |= {"original_max_position_embeddings": 64, "short_mscale": 1.1}
    table = Table({"rope_parameters": parameters}, "config.json", "")
    for context, factors, factor in ((64, (1.0, 2.0), 1.1), (65, (3.0, 4.0), 1.25)):
        found = frequencies(100.0, 4, rope_scaling(table, context))
        assert found == ([1.0 / factors[0], 0.1 / factors[1]], factor)


@pytest.mark.parametrize("name", CASES)
def test_fast_numerics_come_close(name, tmp_path):
    """Attention with and without a prefix that others share, in prompts and in new tokens."""
    write_checkpoint(tmp_path / "hf", name, 1)
    pack(tmp_path / "hf", tmp_path / "pack")
    prompt = torch.randint(0, 256, (PROMPT_TOKENS,), generator=torch.Generator().manual_seed(1)).tolist()
    engines = {
        numerics: open_engine(tmp_path / "pack", numerics=numerics, ring_slots=2) for numerics in ("exact", "fast")
    }
    exact, fast = (engine.logits(prompt) for engine in engines.values())
    apart = (fast - exact).norm(dim=1) / exact.norm(dim=1)
    assert apart.median() <= 0.15
    for engine in engines.values():
        engine.stop_ids = frozenset()
        together = engine.generate([[*prompt, n] for n in range(5)], 4)
        assert [len(tokens) for tokens in together] == [4] * 5
        alone = [engine.generate([[*prompt, n]], 4)[0] for n in range(5)]
        assert engine.numerics_mode == "fast" or together == alone
        engine.close()
