"""The embedded model is a Mixtral that `transformers` reads, marked as a demonstration and small enough to ship."""

from __future__ import annotations

import ast
import inspect
import json

import torch

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import ExpertKey
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import verify
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from training.quality.packs import reference

PROMPTS = [
    "def add(a, b):\n    return a + b\n",
    "class Box:\n    def put(self, thing):\n        self.things.append(thing)\n",
    "x = 1",
]


def test_it_is_whole_small_and_says_what_it_is():
    manifest = Manifest.load(EMBEDDED)
    assert verify(EMBEDDED) == []
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 16_000_000
    assert (manifest.demonstration, manifest.geometry.num_experts, manifest.geometry.top_k) == (True, 8, 2)
    assert manifest.min_mean_logprob < 0
    assert manifest.default_numerics == "exact"


def test_transformers_gives_the_same_greedy_tokens(tmp_path):
    model = reference(EMBEDDED, tmp_path / "reference")  # what the pack stores, decoded to float32
    tokenizer, engine = Tokenizer.load(EMBEDDED), open_engine(EMBEDDED)
    stop = json.loads((EMBEDDED / "config.json").read_text())["eos_token_id"]
    for text in PROMPTS:
        ids = tokenizer.encode_chat(text)
        with torch.no_grad():
            found = model.generate(
                torch.tensor([ids]),
                max_new_tokens=40,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=0,
                attention_mask=torch.ones(1, len(ids)),
            )
        expected = found[0, len(ids) :].tolist()
        assert engine.generate([ids], 40) == [expected[: expected.index(stop)] if stop in expected else expected]
    engine.close()


def test_every_expert_of_every_layer_is_used():
    """The router was trained with a balancing loss: no expert is dead on a page of plain code."""
    tokenizer, engine = Tokenizer.load(EMBEDDED), open_engine(EMBEDDED)
    held: set[ExpertKey] = set()
    hold = engine.model.experts.hold
    engine.model.experts.hold = lambda key: (held.add(key), hold(key))[1]
    engine.logits(tokenizer.encode(inspect.getsource(ast))[:1000])
    engine.close()
    assert held == set(Manifest.load(EMBEDDED).slabs)
