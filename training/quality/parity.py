"""Whether `transformers` writes what the engine writes: `python -m training.quality.parity [--hf training/out/hf]`.

Knows the exported checkpoint and the engine in exact numerics; greedy, token by token, the stop token included.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import MixtralForCausalLM

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example, held_out_examples
from training.quality.packs import EXPORTED, load
from training.quality.picking import pick

NUM_PROMPTS, NEW_TOKENS = 50, 48


class Parity(NamedTuple):
    """How many prompts had identical tokens."""

    same: int
    prompts: int
    tokens: int


def parity(model: MixtralForCausalLM, pack_dir: Path, examples: Sequence[Example]) -> Parity:
    """Compare a model under `transformers` with a pack of the same weights under the engine."""
    tokenizer, engine = Tokenizer.load(pack_dir), open_engine(pack_dir, numerics="exact")
    prompts = [tokenizer.encode_chat(example.prompt) for example in examples]
    found, stop = engine.generate(prompts, NEW_TOKENS), engine.stop_ids
    engine.close()
    expected = [greedy(model, prompt, stop) for prompt in prompts]
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    return Parity(same, len(prompts), sum(map(len, expected)))


@torch.inference_mode()
def greedy(model: MixtralForCausalLM, prompt: Sequence[int], stop: frozenset[int]) -> list[int]:
    """What `generate` of `transformers` adds to a prompt, up to its stop token."""
    ids = torch.tensor([prompt])
    tokens = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=list(stop),
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    return tokens[:-1] if tokens and tokens[-1] in stop else tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hf", type=Path, default=EXPORTED)
    parser.add_argument("--prompts", type=int, default=NUM_PROMPTS)
    arguments = parser.parse_args()
    examples = pick(held_out_examples(), arguments.prompts, "parity", Tokenizer.load(arguments.hf))
    with tempfile.TemporaryDirectory() as name:
        pack(arguments.hf, Path(name) / "pack")
        found = parity(load(arguments.hf), Path(name) / "pack", examples)
    print(f"{found.same} of {found.prompts} held-out prompts: identical greedy tokens ({found.tokens:,} tokens)")
    raise SystemExit(found.same != found.prompts)


if __name__ == "__main__":
    main()
