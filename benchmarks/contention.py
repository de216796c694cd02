"""What others on the machine cost the processor: `python -m benchmarks.contention`.  Writes contention.md.

First an engine beside a busy process, before and after the kernels got their own threads (busy.py).  Then products of one matrix, alone and beside two processes that read a file past the page cache at full speed.  No part of
the engine takes part: what is lost here no engine can hide behind anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import busy
from benchmarks.busy_engine import NEW_TOKENS, PROMPT_TOKENS, SEQUENCES
from benchmarks.shapes import machine
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.engine.measuring.measure import READ_NBYTES

HERE = Path(__file__).parent
SECONDS, ROUNDS, READERS = 4.0, 5, 2
FILE_NBYTES = 2**30
READER = f"""
import mmap, os, sys, time
buffer, file = mmap.mmap(-1, {READ_NBYTES}), os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
begin, done = time.perf_counter(), 0
while time.perf_counter() - begin < {SECONDS + 0.5}:
    done += os.preadv(file, [memoryview(buffer)], done % {FILE_NBYTES})
print(done / (time.perf_counter() - begin), sum(os.times()[:2]))
"""


class Round(NamedTuple):
    """One comparison."""

    alone: float  # products a second
    beside: float
    read_nbytes_per_s: float
    readers_cpu: float  # processors that the readers themselves took


def products_per_s() -> float:
    matmul = FastMatmul(torch.device("cpu"))
    matrix, x = torch.randn(4096, 2048).to(matmul.dtype), torch.randn(32, 2048).to(matmul.dtype)
    matmul.linear(x, matrix)
    count, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        matmul.linear(x, matrix)
        count += 1
    return count / SECONDS


def compare(path: Path) -> Round:
    alone = products_per_s()
    command = [sys.executable, "-c", READER, str(path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(READERS)]
    beside = products_per_s()
    found = [tuple(map(float, reader.communicate()[0].split())) for reader in readers]
    return Round(alone, beside, sum(rate for rate, _ in found), sum(cpu for _, cpu in found) / (SECONDS + 0.5))


def main() -> None:
    beside_busy = busy.compare()
    with tempfile.NamedTemporaryFile(dir=HERE) as file:
        for _ in range(FILE_NBYTES // 2**20):
            file.write(os.urandom(2**20))
        file.flush()
        os.fsync(file.fileno())
        rounds = [compare(Path(file.name)) for _ in range(ROUNDS)]
    rows = [
        f"| {r.alone:,.0f} | {r.beside:,.0f} | {r.beside / r.alone:.0%} | {r.read_nbytes_per_s / 1e9:.2f} | {r.readers_cpu:.2f} |"
        for r in rounds
    ]
    text = "\n".join(
        [
            "# What others on the machine cost the processor",
            "",
            f"Machine: {machine()}; virtual disk.",
            "Command: `python -m benchmarks.contention`.",
            "",
            "## A busy process on one of two cores",
            "",
            f"An engine of two threads, random weights in the shape of `small` with half its layers, bf16, all in RAM, {SEQUENCES}",
            f"sequences of {PROMPT_TOKENS} + {NEW_TOKENS} tokens.  Variants and quiet and busy took turns, {busy.ROUNDS} rounds; medians (lowest to",
            f"highest).  Before = commit {busy.BEFORE}.",
            "",
            *busy.table(beside_busy),
            "",
            "## Reading the disk",
            "",
            "Products of [4096, 2048] with 32 rows, alone and beside two processes",
            "that read 1 GiB past the page cache over and over; no engine takes part.",
            "",
            "| Products/s alone | Beside reads | Left | Read GB/s | Processors that the readers used |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
    (HERE / "contention.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
