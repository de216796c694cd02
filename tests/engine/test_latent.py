"""Latent attention: absorbed it is the attention of its paper, a token is stored once, and bits are those alone."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.select import attention_for
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.mixers.base import StepRows
from rotary_batch.engine.mixers.latent_attention import LatentAttention
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.rope import Rope
from rotary_batch.engine.weights import Weights
from rotary_batch.errors import ModelError
from rotary_batch.model.families import family_of, geometry_of
from rotary_batch.model.footprint import Workload
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.tables import Table
from rotary_batch.model.tokens import write_byte_tokenizer
from rotary_batch.testing import drain

CPU = torch.device("cpu")
LITE: dict[str, Any] = {  # as deepseek-ai/DeepSeek-V2-Lite has it
    "architectures": ["DeepseekV2ForCausalLM"],
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "topk_group": 1,
    "topk_method": "greedy",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
V3 = LITE | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "n_group": 8,
    "n_routed_experts": 256,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_group": 4,
    "topk_method": "noaux_tc",
}
FLASH: dict[str, Any] = {  # as zai-org/GLM-4.7-Flash has it: its hidden size is not a multiple of its heads
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe_lite",
    "moe_intermediate_size": 1536,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 20,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 47,
    "num_key_value_heads": 20,
    "partial_rotary_factor": 1.0,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000,
    "routed_scaling_factor": 1.8,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "v_head_dim": 256,
    "vocab_size": 154880,
}


def described(config: dict[str, Any]) -> Geometry:
    table = Table(config, Path("config.json"), "take another")
    return geometry_of(table, family_of(table))


@pytest.mark.parametrize(
    ("config", "token_nbytes", "scale", "dense_layers", "q_lora_rank"),
    [
        (LITE, 31_104, 192**-0.5 * 1.2608037863**2, (0,), 0),
        (V3 | {"first_k_dense_replace": 3}, 70_272, 192**-0.5 * 1.2608037863**2, (0, 1, 2), 1536),
        (FLASH, 54_144, 256**-0.5, (0,), 768),
    ],
)
def test_published_configs(config, token_nbytes, scale, dense_layers, q_lora_rank):
    geometry = described(config)
    assert (geometry.num_kv_heads, geometry.head_dim, geometry.value_dim, geometry.num_rotary) == (1, 576, 512, 64)
    assert 2 * geometry.kv_token_params == token_nbytes
    assert geometry.score_scale == pytest.approx(scale)
    assert (geometry.dense_layers, geometry.q_lora_rank) == (dense_layers, q_lora_rank)


@pytest.mark.parametrize(
    ("config", "change", "fact"),
    [
        (LITE, {"attention_bias": True}, "attention_bias is set"),
        (LITE, {"topk_method": "noaux_tc"}, 'topk_method is "noaux_tc"'),
        (LITE, {"scoring_func": "sigmoid"}, 'scoring_func is "sigmoid"'),
        (LITE, {"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        (LITE, {"qk_rope_head_dim": 63}, "is odd"),
        (LITE, {"kv_lora_rank": 2**40}, "kv_lora_rank"),
        (LITE, {"v_head_dim": None}, "v_head_dim"),
        (V3, {"topk_group": 9}, "each token asks 9 of 8 groups"),
        (V3, {"topk_group": 1, "num_experts_per_tok": 40}, "1 groups have less than 40 experts"),
        (FLASH, {"rope_interleave": False}, "rope_interleave is false"),
    ],
)
def test_what_a_config_cannot_say_is_named(config, change, fact):
    with pytest.raises(ModelError, match=fact):
        described(config | change)


@pytest.mark.parametrize("sizes", [{"num_kv_heads": 4}, {"head_dim": 64}, {"value_head_dim": 0}, {"nope_head_dim": 0}])
def test_a_latent_is_the_key_of_all_heads(sizes):
    with pytest.raises(ModelError, match="is no latent"):
        replace(described(LITE), **sizes)


SMALL = replace(
    described(LITE),
    hidden_size=48,
    num_layers=1,
    num_heads=4,
    head_dim=40,
    rotary_dim=8,
    kv_lora_rank=32,
    q_lora_rank=24,
    nope_head_dim=12,
    value_head_dim=10,
    dense_layers=(),
)


def weights_of(numerics: Numerics, stored_as: str) -> tuple[Weights, dict[str, torch.Tensor]]:
    """Random weights of one layer, kv_b stored as named, and the numbers that they stand for in float64."""
    generator, dense, plain = torch.Generator().manual_seed(2), {}, {}
    for name, shape in SMALL.dense_shapes().items():
        if not name.startswith("layers.0.") or "ffn" in name:
            continue
        numbers = torch.randn(shape, generator=generator) * (0.2 if len(shape) == 2 else 1)
        matrix = matrix_from(quantise(numbers, stored_as), shape[0], stored_as) if name.endswith("kv_b") else numbers
        kept = matrix.to(numerics.storage_dtype) if isinstance(matrix, torch.Tensor) else matrix
        dense[name] = kept
        plain[name.removeprefix("layers.0.")] = (
            dequantise(kept, torch.empty(shape)).double() if len(shape) == 2 else kept.double()
        )
    return Weights(SMALL, dense, numerics), plain


def expanded(x: torch.Tensor, weights: dict[str, torch.Tensor], rope: Rope) -> torch.Tensor:
    """The formulas of the paper in float64, with keys and values of every head; one sequence from its beginning."""
    tokens, heads, plain_dim = len(x), SMALL.num_heads, SMALL.nope_head_dim
    cos, sin = (part.double() for part in rope.cos_sin(torch.arange(tokens)))

    def norm(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + 1e-6) * weight

    def turned(rows: torch.Tensor) -> torch.Tensor:
        first, second = rows.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    q = (norm(x @ weights["q_a"].T, weights["q_a_norm"]) @ weights["q_b"].T).view(tokens, heads, -1)
    latent, k_rope = (x @ weights["kv_a"].T).split([SMALL.kv_lora_rank, SMALL.num_rotary], -1)
    kv = (norm(latent, weights["kv_a_norm"]) @ weights["kv_b"].T).view(tokens, heads, -1)
    k = torch.cat([kv[..., :plain_dim], turned(k_rope[:, None]).expand(-1, heads, -1)], -1)
    q = torch.cat([q[..., :plain_dim], turned(q[..., plain_dim:])], -1)
    scores = torch.einsum("ihd,jhd->hij", q, k) * SMALL.score_scale
    shares = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf")).softmax(-1)
    return torch.einsum("hij,jhd->ihd", shares, kv[..., plain_dim:]).flatten(1) @ weights["o"].T


@pytest.mark.parametrize("stored_as", ["bf16", "int8"])
@pytest.mark.parametrize(("mode", "isa", "tolerance"), [("exact", None, 2e-6), ("fast", None, 0.02)])
def test_absorbed_is_expanded(mode, isa, tolerance, stored_as):
    """A prompt in two spans, its last tokens one by one; kv_b may be quantised."""
    numerics = Numerics(mode, CPU)
    weights, plain = weights_of(numerics, stored_as)
    kv = KvArena(SMALL, 100, "bf16", numerics.storage_dtype, CPU)
    attention = attention_for(SMALL, numerics, kv)
    mixer, rope = LatentAttention(weights, {None: attention}), Rope(SMALL, 100, numerics.dtype, CPU)
    x = torch.randn(50, SMALL.hidden_size, generator=torch.Generator().manual_seed(3)).to(numerics.dtype)
    parts, begin = [], 0
    for rows in (30, 17, 1, 1, 1):
        segments = [QuerySegment(0, rows, begin, 20)]
        attention.plan(segments)
        positions = torch.arange(begin, begin + rows)
        parts.append(
            mixer.mix(0, x[begin : begin + rows], StepRows(segments, rope.cos_sin(positions), positions + 20, kv))
        )
        begin += rows
    expected = expanded(x.double(), plain, rope)
    assert (torch.cat(parts).double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("stored_as", ["bf16", "int8"])
def test_a_token_is_stored_once_and_values_are_views_of_keys(stored_as):
    kv = KvArena(replace(SMALL, num_layers=3), 50, stored_as, torch.float32, CPU)
    assert kv.nbytes == 3 * 50 * (40 * 4 if stored_as == "bf16" else 40 + 2 * 4)
    latents = torch.randn(50, 1, 40) * torch.cat([torch.ones(32), torch.full((8,), 300.0)])
    kv.write(1, torch.arange(50), latents)
    keys, values = kv.gather(1, torch.arange(50), torch.float32)
    assert values.data_ptr() == keys.data_ptr()
    assert torch.equal(values, keys[..., :32])
    largest = torch.cat([part.abs().amax(-1, keepdim=True).expand_as(part) for part in latents.split([32, 8], -1)], -1)
    step = largest / 254 * 1.0001 if stored_as == "int8" else 0 * largest
    assert ((keys - latents).abs() <= step).all(), "what rotates is larger, and has a scale of its own"


@pytest.fixture(scope="module")
def latent_pack(tmp_path_factory) -> Path:
    torch.manual_seed(4)
    config = transformers.DeepseekV3Config(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=64,
        moe_intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        kv_lora_rank=32,
        q_lora_rank=24,
        qk_rope_head_dim=8,
        qk_nope_head_dim=12,
        v_head_dim=10,
        max_position_embeddings=512,
        initializer_range=0.2,
        num_mtp_layers=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("latent")
    transformers.DeepseekV3ForCausalLM(config).save_pretrained(folder / "hf")
    write_byte_tokenizer(folder / "hf")
    pack(folder / "hf", folder / "pack")
    return folder / "pack"


def requests() -> list[Request]:
    """Five prompts that begin alike, and one that does not."""
    draw = random.Random(4)
    beginning = tuple(draw.randrange(250) for _ in range(40))
    prompts = [beginning + tuple(draw.randrange(250) for _ in range(size)) for size in (1, 5, 40, 9, 33)]
    return [Request(request_id=n, prompt_ids=p, max_new_tokens=4 + n) for n, p in enumerate([*prompts, (9,) * 30])]


def opened(folder: Path, **options: Any):
    return open_engine(folder, **{"numerics": "exact", "share_prefixes": False, "draft_tokens": 0} | options)


@pytest.fixture(scope="module")
def alone(latent_pack, device):
    """What every request gives by itself."""
    found: dict[str, dict] = {}
    for kv in ("bf16", "int8"):
        with closing(opened(latent_pack, kv=kv, device=device, max_batch=1)) as engine:
            found[kv] = {}
            for request in requests():
                found[kv] |= drain(engine, [request])
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"share_prefixes": True},
        {"share_prefixes": True, "prefill_span": 7, "max_batch": 3, "kv": "int8"},
        {"draft_tokens": 4},
        {
            "share_prefixes": True,
            "workload": Workload(1, 60, 9, 90),
            "host_kv_tokens": 300,
            "max_batch": 4,
            "kv": "int8",
        },
    ],
)
def test_bits_are_those_of_each_request_alone(latent_pack, alone, device, options):
    with closing(opened(latent_pack, device=device, **options)) as engine:
        assert drain(engine, requests()) == alone[options.get("kv", "bf16")]


@pytest.mark.parametrize("options", [{}, {"share_prefixes": True}, {"kv": "int8"}])
def test_fast_numerics_and_int8_are_close(latent_pack, device, options):
    """Log-probabilities of a whole batch, with prefixes that five decode rows or more attend to together."""
    prompt = list(requests()[2].prompt_ids)
    with closing(opened(latent_pack, device=device)) as exact:
        expected = exact.logits(prompt)
    for numerics in ("exact", "fast") if "kv" in options else ("fast",):
        with closing(opened(latent_pack, device=device, numerics=numerics, **options)) as engine:
            error = (engine.logits(prompt) - expected).abs().max(-1).values / expected.abs().max()
            assert error.median() < 0.05, "a row whose experts were nearly tied may be further off"
            found = drain(engine, requests())
            assert [len(found[n][0]) for n in range(6)] == [4 + n for n in range(6)]


def test_the_plan_counts_what_the_arena_and_the_absorbed_matrices_take(latent_pack):
    with closing(opened(latent_pack, kv="int8")) as engine:
        kv, model = engine.model.kv, engine.footprint
        assert kv.nbytes == kv.device_tokens * model.kv_token_nbytes
