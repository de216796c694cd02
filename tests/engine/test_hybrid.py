"""Models with Gated DeltaNet in most layers are those of `transformers`: the same logits, the same greedy tokens."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen3_5ForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from rotary_batch.commands.models import info
from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.checkpoint import open_checkpoint
from rotary_batch.engine.packs.pack import pack
from rotary_batch.errors import ModelError
from rotary_batch.model.tokens import write_byte_tokenizer
from rotary_batch.testing import drain
from tests.engine.quantised import Random

INSTRUCTIONS = tuple((3 * place + 1) % 250 for place in range(70))
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "vocab_size": 264,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}
# what differs from COMMON and EXPERTS, for each configuration
NEXT: list[dict[str, Any]] = [
    {},
    {"linear_num_value_heads": 2, "num_hidden_layers": 5, "norm_topk_prob": False},
    {"linear_num_key_heads": 1, "linear_key_head_dim": 12, "linear_conv_kernel_dim": 3, "full_attention_interval": 2},
    {"mlp_only_layers": [1], "intermediate_size": 40, "num_experts": 4, "tie_word_embeddings": True},
    {"decoder_sparse_step": 2, "intermediate_size": 24, "linear_value_head_dim": 20, "num_key_value_heads": 1},
    {"layer_types": ["full_attention", "linear_attention", "linear_attention"], "num_hidden_layers": 3},
]
MOE: list[dict[str, Any]] = [
    {},
    {"linear_num_value_heads": 6, "num_experts_per_tok": 1},
    {"linear_key_head_dim": 20, "linear_value_head_dim": 4, "num_hidden_layers": 5},
    {"full_attention_interval": 2, "linear_conv_kernel_dim": 2, "tie_word_embeddings": True},
    {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 12, "num_experts_per_tok": 5},
    {"layer_types": ["linear_attention", "full_attention", "full_attention"], "num_hidden_layers": 3},
]
DENSE: list[dict[str, Any]] = [{"intermediate_size": 64}, {"intermediate_size": 96, "linear_num_value_heads": 2}]


class Class(NamedTuple):
    """A class of transformers, and its configuration."""

    model: type
    config: type
    defaults: dict[str, Any]


CLASSES = {
    "next": Class(Qwen3NextForCausalLM, Qwen3NextConfig, COMMON | EXPERTS),
    "moe": Class(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, COMMON | EXPERTS),
    "dense": Class(Qwen3_5ForCausalLM, Qwen3_5TextConfig, COMMON),
}
CASES = [
    (kind, number)
    for kind, differences in (("next", NEXT), ("moe", MOE), ("dense", DENSE))
    for number in range(len(differences))
]


def write_checkpoint(folder, kind: str, number: int):
    """A tiny random model on disk; its reference, in which nothing is at its initial zeros and ones."""
    torch.manual_seed(number)
    differences = {"next": NEXT, "moe": MOE, "dense": DENSE}[kind][number]
    one = CLASSES[kind]
    reference = one.model._from_config(
        one.config(**one.defaults | differences), attn_implementation="eager", dtype=torch.float32
    ).eval()
    for name, parameter in reference.named_parameters():
        if name.endswith("A_log"):
            torch.nn.init.uniform_(parameter, -3.0, 1.5)
        elif name.endswith("dt_bias"):
            torch.nn.init.normal_(parameter, std=1.0)
        elif "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    reference.save_pretrained(folder)
    write_byte_tokenizer(folder)
    return reference


def prompt_of(length: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy(reference, prompt: list[int], count: int) -> list[int]:
    with torch.no_grad():
        tokens = reference.generate(
            torch.tensor([prompt]),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        )
    return tokens[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_logits_and_48_greedy_tokens_equal_transformers(kind, number, tmp_path):
    reference = write_checkpoint(tmp_path / "hf", kind, number)
    pack(tmp_path / "hf", tmp_path / "pack")
    prompt = prompt_of(70, number)
    with torch.no_grad():
        expected = reference(torch.tensor([prompt])).logits[0]
    found = {}
    for span in (1, 63, 64, 65, None):
        ring: dict[str, Any] = {"ring_slots": 2, "resident_share": 0.0} if span in {1, 64} else {}
        engine = open_engine(tmp_path / "pack", numerics="exact", prefill_span=span, **ring)
        found[span] = engine.logits(prompt)
        if span == 64:
            engine.stop_ids = frozenset()
            assert engine.generate([prompt], 48)[0] == greedy(reference, prompt, 48)
        engine.close()
    assert (found[None] - expected).abs().max() <= 1e-4 * expected.abs().max()
    for logits in found.values():
        assert torch.equal(logits, found[None])


@pytest.mark.parametrize(("kind", "number"), [("next", 0), ("moe", 1)])
def test_fast_numerics_are_close(kind, number, tmp_path):
    reference = write_checkpoint(tmp_path / "hf", kind, number)
    pack(tmp_path / "hf", tmp_path / "pack")
    prompt = prompt_of(100, 1)
    with torch.no_grad():
        expected = reference(torch.tensor([prompt])).logits[0]
    for span in (1, 64, None):
        engine = open_engine(tmp_path / "pack", numerics="fast", prefill_span=span)
        apart = (engine.logits(prompt) - expected).norm(dim=1) / expected.norm(dim=1)
        engine.close()
        assert apart.median() <= 0.15


def requests() -> list[Request]:
    """Prompts that begin alike, one that does not, and one that resumes."""
    bodies = [tuple(prompt_of(size, size)) for size in (1, 5, 40, 64)]
    prompts = [INSTRUCTIONS + body for body in bodies] + [(9,) * 30]
    found = [Request(request_id=n, prompt_ids=p, max_new_tokens=9 + n) for n, p in enumerate(prompts)]
    resumed = Request(request_id=9, prompt_ids=INSTRUCTIONS + bodies[2], max_new_tokens=9, generated_ids=(7, 8, 9))
    return [*found, resumed]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A pack, and what every request gives by itself in the plainest engine."""
    folder = tmp_path_factory.mktemp("hybrid")
    write_checkpoint(folder / "hf", "next", 0)
    pack(folder / "hf", folder / "pack")
    alone = {}
    engine = open_engine(folder / "pack", numerics="exact", share_prefixes=False, max_batch=1)
    for request in requests():
        alone |= drain(engine, [request])
    engine.close()
    return folder / "pack", alone


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefill_span": 7},
        {"draft_tokens": 4, "max_batch": 3},
        {"ring_slots": 2, "resident_share": 0.0, "prefill_span": 65},
    ],
)
def test_bits_are_those_of_each_request_alone(packed, options):
    folder, alone = packed
    engine = open_engine(folder, numerics="exact", **options)
    states, before = engine.model.states, engine.model.states.num_free
    found = drain(engine, requests())
    assert found == alone
    assert engine.trace.totals()["drafted_tokens"] == 0, "a state cannot be rolled back"
    assert before - states.num_free == 1, "that of the shared prefix stays for prompts to come"
    engine.close()


def test_sequences_whose_step_ran_out_of_memory_are_computed_again(packed):
    folder, alone = packed
    engine = open_engine(folder, numerics="exact")
    real = engine.model.decoder._feed_forward

    def feed_forward(layer, x):
        if layer == 2 and len(x) > 70:
            raise torch.OutOfMemoryError("CUDA out of memory (test)")
        return real(layer, x)

    engine.model.decoder._feed_forward = feed_forward
    assert drain(engine, requests()) == alone
    assert engine.memory_plan.prefill_tokens == 64, "halved until it fitted"
    engine.close()


def test_the_layout_of_the_hub_and_what_is_left_out_of_it(tmp_path):
    """Text below `language_model`, experts fused, vision and further-token layers left out and said."""
    write_checkpoint(tmp_path / "hf", "moe", 0)
    pack(tmp_path / "hf", tmp_path / "plain")
    rename_as_on_the_hub(tmp_path / "hf")
    checkpoint = open_checkpoint(tmp_path / "hf")
    assert checkpoint.notes == ("visual: 1 tensor not read", "mtp: 1 tensor not read")
    pack(tmp_path / "hf", tmp_path / "hub")
    assert info(tmp_path / "hub")["notes"] == list(checkpoint.notes)
    assert info(tmp_path / "plain")["notes"] == []
    found = []
    for folder in ("plain", "hub"):
        engine = open_engine(tmp_path / folder, numerics="exact")
        found.append(engine.logits(prompt_of(20, 0)))
        engine.close()
    assert torch.equal(*found)


def rename_as_on_the_hub(folder) -> None:
    tensors = load_file(folder / "model.safetensors")
    renamed = {"model.visual.patch_embed.proj.weight": torch.ones(3), "mtp.fc.weight": torch.ones(3)}
    for layer in range(4):
        stem = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([tensors.pop(f"{stem}.{expert}.{name}_proj.weight") for expert in range(6)])
            for name in ("gate", "up", "down")
        )
        tensors |= {f"{stem}.gate_up_proj": torch.cat([gate, up], 1), f"{stem}.down_proj": down}
    for name, tensor in tensors.items():
        is_head = name == "lm_head.weight"
        renamed[name if is_head else name.replace("model.", "model.language_model.", 1)] = tensor
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, folder / "model.safetensors")


def fp8(weight: torch.Tensor, stem: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix in FP8 with blocks of 16 by 16, and what it stands for."""
    scale = 0.5 + torch.rand(-(-len(weight) // 16), weight.shape[1] // 16)
    codes = weight.to(torch.float8_e4m3fn)
    expanded = scale.repeat_interleave(16, 0)[: len(weight)].repeat_interleave(16, 1)
    return {f"{stem}.weight": codes, f"{stem}.weight_scale_inv": scale}, codes.float() * expanded


def gptq(weight: torch.Tensor, stem: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes = Random((len(weight), weight.shape[1]), 16)
    return codes.gptq(stem), codes.weights.float()


QUANTISED = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [16, 16]}),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False, "desc_act": False}),
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_projections_are_split_by_rows(method, tmp_path):
    """Those of Qwen3-Next, which has them together for each key head; b and a become float32."""
    quantise, description = QUANTISED[method]
    write_checkpoint(tmp_path / "plain", "next", 0)
    write_checkpoint(tmp_path / "quantised", "next", 0)
    plain, quantised = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "quantised"))
    for name in [name for name in plain if "in_proj_" in name]:
        tensors, plain[name] = quantise(quantised.pop(name), name.removesuffix(".weight"))
        quantised |= tensors
    for name, tensors in (("plain", plain), ("quantised", quantised)):
        save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / name / "model.safetensors")
    config = tmp_path / "quantised" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": description}))
    found = {}
    for name in ("plain", "quantised"):
        pack(tmp_path / name, tmp_path / f"{name}.pack")
        engine = open_engine(tmp_path / f"{name}.pack", numerics="exact")
        found[name] = engine.logits(prompt_of(20, 0))
        engine.close()
    apart = (found["quantised"] - found["plain"]).abs().max()
    assert apart <= (1e-5 if method == "fp8" else 2e-3) * found["plain"].abs().max()


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"linear_num_key_heads": 3}, "4 linear value heads are not a multiple of 3 linear key heads"),
        ({"layer_types": ["linear_attention"] * 4}, "no layer has a KV cache"),
        ({"layer_types": ["full_attention"] * 3 + ["mamba"]}, "an unknown kind of attention"),
        ({"linear_conv_kernel_dim": 3}, "conv1d.weight has shape"),
        ({"linear_key_head_dim": 4}, "in_proj_qkvz.weight has shape"),
    ],
)
def test_a_config_that_contradicts_itself_or_the_tensors_is_refused(tmp_path, changes, fact):
    write_checkpoint(tmp_path / "hf", "next", 0)
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=fact):
        open_checkpoint(tmp_path / "hf")
