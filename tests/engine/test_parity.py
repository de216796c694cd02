"""Our decoder is `transformers`' Mixtral: the same logits, the same greedy tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import MixtralForCausalLM

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.testing import write_tiny_checkpoint

# (layers, experts, top_k, heads, key heads, tied, dtype, shards, new spelling of config.json)
CONFIGURATIONS = [
    (2, 4, 1, 4, 4, False, "float32", 1, False),
    (2, 4, 2, 4, 2, False, "bfloat16", 1, True),
    (2, 8, 2, 4, 1, True, "float16", 3, False),
    (3, 8, 2, 8, 2, False, "bfloat16", 2, True),
    (3, 8, 4, 8, 4, True, "float32", 1, True),
    (3, 16, 1, 4, 4, False, "bfloat16", 4, False),
    (4, 16, 2, 8, 2, False, "float32", 2, False),
    (4, 16, 4, 4, 1, True, "bfloat16", 1, True),
    (4, 4, 4, 8, 8, False, "float16", 1, True),
    (2, 16, 2, 8, 4, True, "float32", 3, True),
    (3, 4, 2, 4, 2, True, "float16", 2, False),
    (4, 8, 1, 8, 2, False, "float32", 1, False),
    (2, 8, 4, 4, 1, False, "bfloat16", 2, False),
]


@pytest.mark.parametrize(("number", "configuration"), list(enumerate(CONFIGURATIONS)))
def test_logits_and_64_greedy_tokens_equal_transformers(number, configuration, tmp_path):
    layers, experts, top_k, heads, kv_heads, tied, dtype, shards, new_spelling = configuration
    source = write_tiny_checkpoint(
        tmp_path / "hf",
        seed=number,
        dtype=dtype,
        num_shards=shards,
        new_spelling=new_spelling,
        num_hidden_layers=layers,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        eos_token_id=None,
    )
    pack(source, tmp_path / "pack")
    reference = MixtralForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = torch.randint(0, 256, (1, 70), generator=torch.Generator().manual_seed(number))
    engine = open_engine(tmp_path / "pack", numerics="exact", ring_slots=2, resident_share=0.0)
    with torch.no_grad():
        expected = reference(prompt).logits[0]
        tokens = reference.generate(
            prompt,
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            attention_mask=torch.ones_like(prompt),
        )
    logits = engine.logits(prompt[0].tolist())

    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert _without_stop(engine, prompt[0].tolist()) == tokens[0, 70:].tolist()
    engine.close()


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize("experts", ["bf16", "int8"])
@pytest.mark.parametrize(("hidden", "middle"), [(36, 50), (100, 44), (200, 300)])
def test_widths_that_nothing_divides(hidden, middle, experts, numerics, tmp_path):
    """No cache line, no vector: parts of a slab do not follow each other, and operators want other numbers of columns."""
    source = write_tiny_checkpoint(
        tmp_path / "hf",
        dtype="bfloat16",
        hidden_size=hidden,
        intermediate_size=middle,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=None,
    )
    pack(source, tmp_path / "pack", experts=experts)
    reference = MixtralForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    engine = open_engine(tmp_path / "pack", numerics=numerics, ring_slots=2, resident_share=0.0)
    most = 1e-4 if (experts, numerics) == ("bf16", "exact") else 0.15
    for count in (1, 3, 70):
        prompt = torch.randint(0, 256, (1, count), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = reference(prompt).logits[0]
        apart = (engine.logits(prompt[0].tolist()) - expected).norm(dim=1) / expected.norm(dim=1)
        assert apart.median() <= most
    engine.close()


def test_a_sliding_window_is_honoured(tmp_path):
    source = write_tiny_checkpoint(tmp_path / "hf", dtype="float32", sliding_window=24, eos_token_id=None)
    pack(source, tmp_path / "pack")
    reference = MixtralForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = torch.randint(0, 256, (1, 150), generator=torch.Generator().manual_seed(1))
    engine = open_engine(tmp_path / "pack", numerics="exact")
    with torch.no_grad():
        expected = reference(prompt).logits[0]
    assert (engine.logits(prompt[0].tolist()) - expected).abs().max() <= 1e-4 * expected.abs().max()
    engine.close()


def _without_stop(engine, prompt: list[int]) -> list[int]:
    """The tokenizer's own stop token would end what the reference goes on with."""
    engine.stop_ids = frozenset()
    return engine.generate([prompt], 64)[0]
