"""A real checkpoint, SmolLM2-135M-Instruct as a Q4_1 GGUF file: what `transformers` makes of the same file is the judge."""

from __future__ import annotations

import ast
import bisect
import heapq
import inspect
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rotary_batch.engine import open_engine
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.tokens import Tokenizer
from tests.model.gguf_keys import smollm2_path

NEW_TOKENS = 32
MODULES: tuple[ModuleType, ...] = (textwrap, bisect, heapq, shlex, ast, inspect)


@pytest.fixture(scope="module")
def smollm2_pack(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    pack(smollm2_path(), folder)
    return folder


@pytest.fixture(scope="module")
def engine(smollm2_pack) -> Iterator[RotaryEngine]:
    """Its slices revolve: of 30 layers two are in memory.  Exact numerics need no compiled kernels."""
    opened = open_engine(smollm2_pack, numerics="exact", ring_slots=2, max_isa="portable")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    path = smollm2_path()
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def text_and_code() -> list[str]:
    """Functions of the standard library, and the first sentences of their docstrings."""
    members = [getattr(module, name) for module in MODULES for name in sorted(vars(module)) if name[0] != "_"]
    functions = [one for one in members if inspect.isfunction(one) and one.__doc__ and one.__module__ != "functools"]
    texts = []
    for function in functions:
        sentence = " ".join((function.__doc__ or "").split(".")[0].split())
        texts.append(f"Say this in other words: {sentence}.")
        texts.append(f"What does this function do?\n\n{inspect.getsource(function)[:240]}")
    return texts


@pytest.mark.parametrize("num_tokens", [1, 63, 65, 300])
def test_logits_are_those_of_transformers(engine, reference, smollm2_pack, num_tokens):
    source = inspect.getsource(textwrap)
    prompt = Tokenizer.load(smollm2_pack).encode(source)[:num_tokens]
    with torch.no_grad():
        expected = reference(torch.tensor([prompt])).logits[0]
    assert expected.shape == (num_tokens, 49152)
    assert (engine.logits(prompt) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_chat_prompts_are_those_of_transformers(smollm2_pack):
    path, ours = smollm2_path(), Tokenizer.load(smollm2_pack)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in text_and_code()[::7]:
        chat = [{"role": "user", "content": text}]
        assert ours.encode_chat(text) == theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.faults)])
def test_greedy_answers_are_those_of_transformers(engine, reference, smollm2_pack, count):
    """Greedy tokens are those with the largest logits after the prompt and the tokens before them."""
    tokenizer, texts = Tokenizer.load(smollm2_pack), text_and_code()
    prompts = [tokenizer.encode_chat(texts[place * len(texts) // count]) for place in range(count)]
    answers = engine.generate(prompts, NEW_TOKENS)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            best = reference(ids, logits_to_keep=len(answer) + 1).logits[0].argmax(-1).tolist()
        assert best[: len(answer)] == answer, tokenizer.decode(prompt)
        assert len(answer) == NEW_TOKENS or best[len(answer)] in engine.stop_ids, tokenizer.decode(prompt)
