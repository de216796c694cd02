"""Whole quantised checkpoints: packed and run, they give the logits of plain ones with their dequantised weights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.checkpoint import open_checkpoint
from rotary_batch.engine.packs.pack import pack, verify
from rotary_batch.errors import ModelError
from rotary_batch.model.tokens import write_byte_tokenizer
from tests.engine import test_families as families
from tests.engine.quantised import Random, matrix_shapes, write_checkpoint, written

NOT_LINEAR = re.compile(r"embed|lm_head|norm|gate(\.wg)?\.weight|router|conv1d|moe_statics")
PROMPT = [256, *range(40, 90)]
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
INT4 = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}
FLOAT8 = {"type": "float", "num_bits": 8, "strategy": "channel"}


def gptq(**values):
    def one(name, shape, seed):
        module = Random(
            shape, 32, is_symmetric=values.get("sym", True), is_ordered=values.get("desc_act", False), seed=seed
        )
        return module.gptq(name), module.weights

    return GPTQ | values, one


def awq(name, shape, seed):
    module = Random(shape, 32, seed=seed)
    return module.awq(name), module.weights


def packed(bits, dtype):
    def one(name, shape, seed):
        module = Random(shape, 32, bits=bits, dtype=dtype, is_symmetric=True, seed=seed)
        return module.packed(name), module.weights

    weights = INT4 | {"num_bits": bits}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"0": {"weights": weights}},
    }, one


def fp8(block: tuple[int, int] | None, suffix: str):
    def one(name, shape, seed):
        generator = torch.Generator().manual_seed(seed)
        grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1])) if block else (shape[0], 1)
        weight = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
        scale = torch.rand(grid, generator=generator) * 0.2
        high, wide = block or (1, shape[1])
        whole = scale.repeat_interleave(high, 0)[: shape[0]].repeat_interleave(wide, 1)[:, : shape[1]]
        return {f"{name}.weight": weight, f"{name}{suffix}": scale}, weight.float() * whole

    return one


METHODS = {
    "gptq": gptq(sym=False),
    "gptq symmetric": gptq(),
    "gptq of 8 bits": (
        GPTQ | {"bits": 8},
        lambda name, shape, seed: (
            (module := Random(shape, 32, bits=8, is_symmetric=True, seed=seed)).gptq(name),
            module.weights,
        ),
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, awq),
    "compressed-tensors": packed(4, torch.bfloat16),
    "compressed-tensors of 8 bits": packed(8, torch.float16),
    "compressed-tensors fp8": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {"0": {"weights": FLOAT8}},
        },
        fp8(None, ".weight_scale"),
    ),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [32, 32]}, fp8((32, 32), ".weight_scale_inv")),
    "fp8 cut short": ({"quant_method": "fp8", "weight_block_size": [40, 128]}, fp8((40, 128), ".weight_scale_inv")),
}


def checkpoints(folder: Path, family: str, quantisation, make) -> tuple[Path, Path]:
    """A quantised checkpoint, and the plain one with its weights."""
    quantised, plain = {}, {}
    for seed, (name, shape) in enumerate(matrix_shapes(family).items()):
        if name.endswith(".gate") and quantisation["quant_method"] != "gptq":  # some GPTQ exports quantise routers too
            plain[f"{name}.weight"] = quantised[f"{name}.weight"] = torch.randn(shape)
            continue
        tensors, weights = make(name, shape, seed)
        quantised |= tensors
        plain[f"{name}.weight"] = weights.float()
    return (
        write_checkpoint(folder / "quantised", family, quantised, **quantisation),
        write_checkpoint(folder / "plain", family, plain),
    )


def logits(checkpoint: Path, pack_dir: Path) -> torch.Tensor:
    pack(checkpoint, pack_dir)
    assert verify(pack_dir) == []
    engine = open_engine(pack_dir, numerics="exact")
    try:
        return engine.logits(PROMPT)
    finally:
        engine.close()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "llama"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_quantised_checkpoint_runs_as_its_dequantised_self(tmp_path, family, kind):
    quantised, plain = checkpoints(tmp_path, family, *METHODS[kind])
    assert not open_checkpoint(quantised).is_plain
    found, expected = logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain")
    assert expected.isfinite().all()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "llama"])
def test_gptq_in_the_order_of_activations(tmp_path, family):
    """Sums over columns are in another order, so the last bits differ."""
    quantised, plain = checkpoints(tmp_path, family, *gptq(sym=False, desc_act=True))
    expert = open_checkpoint(quantised).layer_formats[0]
    assert expert == {"gate": "int4:32:f32:ordered", "up": "int4:32:f32:ordered", "down": "int4:32:f32"}
    found, expected = logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain")
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_mxfp4_of_fused_experts(tmp_path):
    """As gpt-oss has them: all experts of a layer in one tensor, rows of gate and up in turns."""
    quantised, plain = {}, {}
    for name, shape in matrix_shapes("qwen3_moe").items():
        if ".experts." not in name:
            plain[f"{name}.weight"] = quantised[f"{name}.weight"] = torch.randn(shape) * 0.2
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        for name, rows, columns in (("gate_up_proj", 192, 64), ("down_proj", 64, 96)):
            stem = f"model.layers.{layer}.mlp.experts"
            blocks = torch.randint(0, 256, (4, rows, columns // 32, 16), dtype=torch.uint8, generator=generator)
            scales = torch.randint(121, 125, (4, rows, columns // 32), dtype=torch.uint8, generator=generator)
            quantised |= {f"{stem}.{name}_blocks": blocks, f"{stem}.{name}_scales": scales}
            whole = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
            for expert in range(4):
                matrices = {"gate_proj": whole[expert, 0::2], "up_proj": whole[expert, 1::2]}
                for own, weights in (matrices if rows == 192 else {"down_proj": whole[expert]}).items():
                    plain[f"{stem}.{expert}.{own}.weight"] = weights
    first = write_checkpoint(tmp_path / "quantised", "qwen3_moe", quantised, quant_method="mxfp4")
    second = write_checkpoint(tmp_path / "plain", "qwen3_moe", plain)
    assert open_checkpoint(first).layer_formats[1] == {"gate_up": "ggml:MXFP4", "down": "ggml:MXFP4"}
    assert torch.equal(logits(first, tmp_path / "pack"), logits(second, tmp_path / "pack of plain"))


def changed(tmp_path, family, keeps_plain, quantisation, make) -> tuple[Path, Path]:
    """As `checkpoints`, with some modules plain in both."""
    quantised, plain = {}, {}
    for seed, (name, shape) in enumerate(matrix_shapes(family).items()):
        tensors, weights = make(name, shape, seed)
        plain[f"{name}.weight"] = weights.float()
        quantised |= {f"{name}.weight": weights.float()} if keeps_plain(name) else tensors
    return (
        write_checkpoint(tmp_path / "quantised", family, quantised, **quantisation),
        write_checkpoint(tmp_path / "plain", family, plain),
    )


@pytest.mark.parametrize("family", ["qwen3_moe", "llama"])
@pytest.mark.parametrize("part", ["self_attn", "down_proj", "up_proj", "experts"])
def test_modules_that_are_not_quantised_are_kept_as_they_are(tmp_path, family, part):
    quantised, plain = changed(tmp_path, family, lambda name: part in name, *gptq(sym=False))
    found, expected = logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain")
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()  # gate alone: other bits than gate over up


def test_experts_of_one_layer_that_are_stored_differently_are_refused(tmp_path):
    quantised, _ = changed(tmp_path, "mixtral", lambda name: "layers.1" in name and "experts.2" in name, *gptq())
    fact = "layer 1: expert 2 is stored as gate_up bf16, down bf16, an earlier one as gate_up int4:32:f16, down int4:32:f16"
    with pytest.raises(ModelError, match=fact):
        open_checkpoint(quantised)


def test_columns_in_the_order_of_activations_beside_plain_ones_are_refused(tmp_path):
    quantised, _ = changed(tmp_path, "mixtral", lambda name: name.endswith(".w1"), *gptq(desc_act=True))
    with pytest.raises(ModelError, match=r"experts.0.w2: columns are in the order of activations .*without desc_act"):
        open_checkpoint(quantised)


def test_biases_of_zeros_are_left_out(tmp_path):
    """AutoGPTQ wrote a bias for every module, also where the model has none."""
    settings, make = gptq()

    def with_bias(value: float):
        def one(name, shape, seed):
            tensors, weights = make(name, shape, seed)
            return tensors | {f"{name}.bias": torch.full((shape[0],), value)}, weights

        return one

    quantised, plain = checkpoints(tmp_path, "mixtral", settings, with_bias(0.0))
    assert open_checkpoint(quantised).notes == ()
    (tmp_path / "2").mkdir()
    quantised, plain = checkpoints(tmp_path / "2", "mixtral", settings, with_bias(0.5))
    with pytest.raises(
        ModelError, match=r"tensor model.* is a bias that models of this family do not have, and is not 0"
    ):
        open_checkpoint(quantised)


def test_scales_of_activations_are_left_out(tmp_path):
    settings, make = METHODS["fp8"]

    def one(name, shape, seed):
        tensors, weights = make(name, shape, seed)
        return tensors | {f"{name}.input_scale": torch.ones(())}, weights

    quantised, _ = checkpoints(tmp_path, "mixtral", settings, one)
    assert open_checkpoint(quantised).notes == ()


@pytest.mark.parametrize("kind", ["gptq", "awq", "compressed-tensors of 8 bits", "fp8"])
def test_fast_numerics(tmp_path, kind):
    """Of a model without routers: random ones choose other experts in bf16."""
    quantised, plain = checkpoints(tmp_path, "llama", *METHODS[kind])
    expected = logits(plain, tmp_path / "pack of plain")
    pack(quantised, tmp_path / "pack")
    engine = open_engine(tmp_path / "pack", numerics="fast")
    try:
        found = engine.logits(PROMPT)
    finally:
        engine.close()
    assert (found - expected).abs().max() <= 0.1 * expected.abs().max()


@pytest.mark.parametrize("wanted", ["int4", "int8"])
def test_nothing_is_quantised_again(tmp_path, wanted):
    quantised, _ = checkpoints(tmp_path, "mixtral", *METHODS["gptq"])
    with pytest.raises(ModelError, match=f"its weights are quantised, .* leave out --experts {wanted}"):
        pack(quantised, tmp_path / "pack", experts=wanted)
    assert not (tmp_path / "pack").exists()


def quantised_copy(folder: Path, kind: str) -> tuple[Path, Path]:
    """A plain checkpoint, and beside it one whose linear modules are quantised; both get the same new weights."""
    quantisation, make = {
        "gptq": gptq(sym=False),
        "fp8": ({"quant_method": "fp8", "weight_block_size": [40, 24]}, fp8((40, 24), ".weight_scale_inv")),
    }[kind]
    plain, quantised = load_file(folder / "model.safetensors"), {}
    for seed, (name, tensor) in enumerate(plain.items()):
        if NOT_LINEAR.search(name) or tensor.dim() != 2:
            quantised[name] = tensor
            continue
        tensors, weights = make(name.removesuffix(".weight"), tuple(tensor.shape), seed)
        plain[name] = weights.float()
        quantised |= tensors
    other = folder.with_name("quantised")
    shutil.copytree(folder, other)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantisation}
    (other / "config.json").write_text(json.dumps(config))
    written(other / "model.safetensors", quantised)
    written(folder / "model.safetensors", plain)
    return other, folder


@pytest.mark.parametrize("kind", ["gptq", "fp8"])
@pytest.mark.parametrize(
    "name", ["ernie4_5_moe", "glm4_moe", "granitemoe", "hunyuan_v1_moe", "minimax_m2", "olmoe", "qwen2_moe"]
)
def test_other_families(tmp_path, name, kind):
    """Rows of q and k re-ordered, shared experts, dense layers, biases, routers of other names."""
    families.write_checkpoint(tmp_path / "plain", name, 1)
    quantised, plain = quantised_copy(tmp_path / "plain", kind)
    assert not open_checkpoint(quantised).is_plain
    assert torch.equal(logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain"))


@pytest.mark.parametrize("kind", ["gptq", "fp8"])
def test_qwen3_next(tmp_path, kind):
    """One tensor has the projections of each key head together: queries, keys, values and gates of their output."""
    config = transformers.Qwen3NextConfig(
        **families.SMALL, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
        shared_expert_intermediate_size=32, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=16, norm_topk_prob=True,
    )  # fmt: skip
    transformers.Qwen3NextForCausalLM(config).save_pretrained(tmp_path / "plain")
    write_byte_tokenizer(tmp_path / "plain")
    quantised, plain = quantised_copy(tmp_path / "plain", kind)
    found, expected = logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain")
    assert torch.equal(found, expected)


def test_gpt_oss(tmp_path):
    """MXFP4 as its makers publish it, beside the experts that `transformers` saves: [experts, columns, rows]."""
    config = transformers.GptOssConfig(
        **families.SMALL, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=16,
    )  # fmt: skip
    model = transformers.GptOssForCausalLM(config)
    for key, tensor in model.named_parameters():
        if key.endswith(("bias", "sinks")):
            tensor.data += 0.2 * torch.randn_like(tensor)
    model.save_pretrained(tmp_path / "plain")
    write_byte_tokenizer(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "quantised")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    quantised = dict(plain)
    for name in [name for name in plain if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        count, columns, rows = plain[name].shape
        blocks = torch.randint(0, 256, (count, rows, columns // 32, 16), dtype=torch.uint8)
        scales = torch.randint(121, 125, (count, rows, columns // 32), dtype=torch.uint8)
        plain[name] = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        del quantised[name]
        quantised |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    written(tmp_path / "plain" / "model.safetensors", plain)
    written(tmp_path / "quantised" / "model.safetensors", quantised)
    path = tmp_path / "quantised" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    found = logits(tmp_path / "quantised", tmp_path / "pack")
    assert torch.equal(found, logits(tmp_path / "plain", tmp_path / "pack of plain"))


def test_opening_a_quantised_checkpoint_needs_no_torch(tmp_path):
    quantised, _ = checkpoints(tmp_path, "qwen3_moe", *METHODS["gptq"])
    code = (
        "import sys; from pathlib import Path; from rotary_batch.engine.packs.checkpoint import open_checkpoint, "
        "unpacked_manifest; unpacked_manifest(open_checkpoint(Path(sys.argv[1])), None); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(quantised)], timeout=120).returncode == 0
