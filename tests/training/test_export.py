"""What is trained is what is published: `transformers` and the engine read the exported checkpoint alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import MixtralForCausalLM

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer
from training.batches import Order, Row
from training.export import shape_of, write_checkpoint
from training.model import Shape
from training.train import Plan, Run, new_model

SHAPE = Shape(vocab_size=260, hidden_size=64, intermediate_size=48, num_layers=3, num_heads=2, num_kv_heads=1)
SENTENCE = b"def add(a, b): return a + b"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps over one sentence in many beginnings."""
    out = tmp_path_factory.mktemp("trained")
    write_byte_tokenizer(out)
    ids = np.array(Tokenizer.load(out).encode(SENTENCE.decode()), dtype=np.uint16)
    rows = [Row(np.roll(ids, -start), 4, "symbol") for start in range(len(ids))]
    plan = Plan(steps=12, warmup_steps=2, batch_tokens=256, batches_per_step=2, peak_rate=1e-2)
    run = Run(new_model(SHAPE, 3), Order(rows, 3, 256, 2), plan, out)
    run.fit()
    return run


def test_the_checkpoint_has_the_shape_of_its_weights(trained):
    assert shape_of(trained.model.state_dict()) == Shape(
        **{**vars(SHAPE), "num_heads": Shape.num_heads, "num_kv_heads": Shape.num_kv_heads}
    )


def test_transformers_gives_the_losses_of_training(trained):
    """The very logits, in float32: the architecture is Mixtral's to the last norm."""
    folder = write_checkpoint(trained.out, SHAPE)
    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    own = {name: value.to(torch.bfloat16).float() for name, value in trained.model.published().items()}
    assert all(torch.equal(model.state_dict()["model.embed_tokens.weight"], own[n]) for n in own if "embed" in n)
    rounded = new_model(SHAPE, 3)
    rounded.load_state_dict({n: v.to(torch.bfloat16).float() for n, v in trained.model.state_dict().items()})
    ids = torch.arange(4, 84).view(2, 40)
    with torch.no_grad():
        found = rounded(ids)[0] @ rounded.embed_tokens.weight.T
        torch.testing.assert_close(found, model(ids).logits, atol=2e-4, rtol=1e-3)


def test_transformers_and_the_engine_write_the_same_tokens(trained, tmp_path):
    folder = write_checkpoint(trained.out, SHAPE)
    pack(folder, tmp_path / "pack")
    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer, engine = Tokenizer.load(folder), open_engine(tmp_path / "pack")
    stop = json.loads((folder / "config.json").read_text())["eos_token_id"]
    for text in ("def", "add(a", "x = 1", "return a + "):
        ids = tokenizer.encode_chat(text)
        with torch.no_grad():
            found = model.generate(
                torch.tensor([ids]),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=0,
                attention_mask=torch.ones(1, len(ids)),
            )
        expected = found[0, len(ids) :].tolist()
        assert engine.generate([ids], 24) == [expected[: expected.index(stop)] if stop in expected else expected]
    engine.close()
