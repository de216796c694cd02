"""GGUF files larger than the memory allowed, versus llama.cpp by mmap: `python -m benchmarks.peers.formats_disk`.

Both under the same cap on the memory of the whole process, page cache included (cgroup.py; needs root), in turns, with
the files and packs of formats.py.  llama.cpp maps its file and does not repack, so that pages can be dropped.  The
disk's rate, and so the bound, is measured in the same run as ours.  Writes formats_disk.md.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.cgroup import run
from benchmarks.peers.formats import WORK
from benchmarks.shapes import machine

HERE = Path(__file__).parent
STEPS, PROMPT_TOKENS = 6, 16
MIB = 2**20
OVERHEAD_MIB = 400  # of a process with Python and torch, besides what --device-memory counts
# MB of device memory: files have 761 and 918 MB, so the first cap of each holds the whole file, the second does not.
CASES = {"Qwen3-30B-A3B": (450, 230), "gpt-oss-20b": (550, 330)}
SEQUENCES = (8, 32, 128)
FEW_MB = 400  # below, 128 sequences do not decode together within STEPS
TIMEOUT_S = 300


def ours(model: str, sequences: int, device_mb: int, cap_nbytes: int) -> dict[str, Any]:
    """One run of `bench`."""
    command = [
        str(Path(sys.executable).parent / "rotary-batch"),
        "bench",
        "--json",
        "--numerics",
        "fast",
        "--no-drafts",
    ]
    command += ["--model", str(WORK / model), "--sequences", str(sequences), "--device-memory", f"{device_mb}MB"]
    command += ["--lengths", f"{PROMPT_TOKENS}+{STEPS + 1}"]
    done = run(command, cap_nbytes, TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def llama_cpp(model: str, sequences: int, cap_nbytes: int) -> dict[str, float]:
    """One run of llama_bench.py."""
    numbers = [str(number) for number in (sequences, PROMPT_TOKENS, STEPS)]
    command = [sys.executable, "-m", "benchmarks.peers.llama_bench", str(WORK / f"{model}.gguf"), *numbers]
    done = run(command, cap_nbytes, TIMEOUT_S, {"LLAMA_CPP_REPACK": "0"})
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(model: str, sequences: int, device_mb: int) -> str:
    """A line of the table."""
    cap_nbytes = device_mb * 10**6 + OVERHEAD_MIB * MIB
    theirs, mine = llama_cpp(model, sequences, cap_nbytes), ours(model, sequences, device_mb, cap_nbytes)
    cells = [f"{model} | {sequences} | {cap_nbytes // 10**6}"]
    for kind in ("prefill", "decode"):
        speed = mine[f"{kind}_tokens_per_s"]
        cells += [f"{speed:,.1f}", f"{theirs[kind]:,.1f}", f"{speed / theirs[kind]:.2f}x"]
    cells += [f"{mine['share_of_bound']:.0%} ({mine['binding']})", f"{mine['link_bytes_per_s'] / 1e9:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure all."""
    rows = []
    for model, sizes in CASES.items():
        for device_mb in sizes:
            for sequences in SEQUENCES if device_mb >= FEW_MB else SEQUENCES[:-1]:
                rows.append(row(model, sequences, device_mb))
                sys.stderr.write(rows[-1] + "\n")
    (HERE / "formats_disk.md").write_text(report(rows))


def report(rows: list[str]) -> str:
    """The page."""
    return "\n".join(
        [
            "# GGUF files from disk: this project versus llama.cpp",
            "",
            f"Machine: {machine()}; virtual disk.  Beside it ran: {os.environ.get('BENCHMARK_BESIDE', 'nothing')}.",
            "Command: `OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.peers.formats_disk`; libraries and files are those of",
            "[formats.md](formats.md).",
            "",
            f"{PROMPT_TOKENS} prompt tokens a sequence, {STEPS} steps, one run of each in turns.  The cap is a memory cgroup, page cache included;",
            f"of it --device-memory is {OVERHEAD_MIB} MiB less.  llama.cpp maps its file, without repacking.  Share = of the bound, by the",
            "disk's rate in the same run.",
            "",
            "| Model | Sequences | Cap MB | Prefill tok/s: ours | llama.cpp | ratio | Decode tok/s: ours | llama.cpp | ratio | Share (binding) | Disk GB/s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
