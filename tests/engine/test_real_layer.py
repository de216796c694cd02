"""One real layer at Mixtral 8x7B size goes through pack, ring and forward, and matches the reference."""

from __future__ import annotations

import gc
import shutil

import pytest
import torch
from safetensors import safe_open

from benchmarks.shapes import write_checkpoint
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack


def reference_logits(source, prompt: list[int]) -> torch.Tensor:
    """transformers' own layer, its experts taken from the checkpoint one at a time so that 5.6 GB never stand in float32."""
    from transformers import MixtralConfig
    from transformers.models.mixtral import modeling_mixtral as reference

    config = MixtralConfig.from_pretrained(source, attn_implementation="eager", dtype=torch.float32)
    stem = "model.layers.0."
    with (
        safe_open(str(source / "model-0.safetensors"), "pt") as layer,
        safe_open(str(source / "model-rest.safetensors"), "pt") as rest,
    ):
        x = rest.get_tensor("model.embed_tokens.weight").float()[torch.tensor(prompt)][None]
        attention = reference.MixtralAttention(config, 0)
        attention.load_state_dict(
            {f"{n}_proj.weight": layer.get_tensor(f"{stem}self_attn.{n}_proj.weight").float() for n in "qkvo"}
        )
        norm = lambda tensor, values: reference.MixtralRMSNorm.forward(norm_of(tensor, config), values)  # noqa: E731

        def norm_of(tensor, config):
            module = reference.MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)
            module.weight.data = tensor.float()
            return module

        positions = torch.arange(len(prompt))[None]
        rotary = reference.MixtralRotaryEmbedding(config)(x, positions)
        mask = torch.full((len(prompt), len(prompt)), float("-inf")).triu(1)[None, None]
        normed = norm(layer.get_tensor(stem + "input_layernorm.weight"), x)
        x = x + attention(normed, position_embeddings=rotary, attention_mask=mask)[0]
        normed = norm(layer.get_tensor(stem + "post_attention_layernorm.weight"), x)[0]
        scores = (normed @ layer.get_tensor(stem + "block_sparse_moe.gate.weight").float().T).softmax(-1)
        weights, chosen = scores.topk(2)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(normed)
        for expert in range(8):
            w1, w3, w2 = (
                layer.get_tensor(f"{stem}block_sparse_moe.experts.{expert}.{name}.weight").float()
                for name in ("w1", "w3", "w2")
            )
            share = (weights * (chosen == expert)).sum(-1, keepdim=True)
            out += share * ((torch.nn.functional.silu(normed @ w1.T) * (normed @ w3.T)) @ w2.T)
        x = norm(rest.get_tensor("model.norm.weight"), x[0] + out)
        return x @ rest.get_tensor("lm_head.weight").float().T


@pytest.mark.timeout(600)
def test_a_layer_of_mixtral_8x7b_matches_the_reference(tmp_path):
    source = write_checkpoint(
        tmp_path / "hf",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=1,
        num_attention_heads=32,
        num_key_value_heads=8,
        num_local_experts=8,
        eos_token_id=None,
    )
    pack(source, tmp_path / "pack")
    prompt = [n * 7 % 250 for n in range(24)]
    with torch.no_grad():
        expected = reference_logits(source, prompt)
    shutil.rmtree(source)
    gc.collect()
    engine = open_engine(tmp_path / "pack", numerics="exact", ring_slots=2, resident_share=0.0)
    logits = engine.logits(prompt)
    engine.close()
    shutil.rmtree(tmp_path / "pack")
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
