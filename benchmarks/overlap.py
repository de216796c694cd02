"""Does reading hide behind compute?  `python -m benchmarks.overlap` on a machine that is otherwise idle.

A checkpoint of 1.4 GB of experts streams from disk through a ring of 4 slots.  The number of prompt tokens is chosen
so that a revolution computes about as long as it reads; then the same revolutions run with the rotor and with
loading inline, in turns.  Bound: max(read, compute).  Writes overlap.md and overlap.png.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.shapes import SMALL, machine, write_checkpoint
from rotary_batch.engine import open_engine
from rotary_batch.engine.pack import pack
from rotary_batch.engine.trace import Span

ROUNDS = 5
HERE = Path(__file__).parent


def revolution_s(folder: Path, tokens: int, **options: Any) -> tuple[float, list[Span]]:
    """Seconds of one prefill of `tokens` tokens, after one to warm up."""
    engine = open_engine(folder, numerics="fast", timeline=True, **options)
    prompt = [n % 250 for n in range(tokens)]
    engine.logits(prompt)
    start = time.perf_counter()
    engine.logits(prompt)
    seconds = time.perf_counter() - start
    spans = [span for span in engine.trace.timeline if span.start_s >= start]
    engine.close()
    return seconds, spans


def busy_s(spans: list[Span], kind: str) -> float:
    return sum(span.end_s - span.start_s for span in spans if span.kind == kind)


def balanced_tokens(folder: Path) -> int:
    """How many tokens make compute as long as reading."""
    tokens = 256
    for _ in range(4):
        _, spans = revolution_s(folder, tokens, ring_slots=4, resident_share=0.0, rotor=False)
        read, total = busy_s(spans, "read"), busy_s(spans, "compute") + busy_s(spans, "attention")
        tokens = max(32, min(2048, int(tokens * read / total)))
    return tokens


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as name:
        folder = Path(name) / "pack"
        pack(write_checkpoint(Path(name) / "hf", **SMALL), folder)
        tokens = balanced_tokens(folder)
        rotor, inline = [], []
        for _ in range(ROUNDS):
            rotor.append(revolution_s(folder, tokens, ring_slots=4, resident_share=0.0, rotor=True))
            inline.append(revolution_s(folder, tokens, ring_slots=4, resident_share=0.0, rotor=False))
    draw(rotor[-1][1], inline[-1][1])
    report(tokens, rotor, inline)


def report(tokens: int, rotor: list[tuple[float, list[Span]]], inline: list[tuple[float, list[Span]]]) -> None:
    read = statistics.median(busy_s(spans, "read") for _, spans in inline)
    compute = statistics.median(seconds - busy_s(spans, "read") for seconds, spans in inline)
    fast, slow = (statistics.median(seconds for seconds, _ in runs) for runs in (rotor, inline))
    text = "\n".join([
        "# Reading behind compute", "", f"Machine: {machine()}.", "Command: `python -m benchmarks.overlap`.",
        f"1.41 GB of bf16 experts from disk, ring of 4 slots, {tokens} prompt tokens a revolution, medians of {ROUNDS}.", "",
        "| Revolution | s | spread |", "| --- | --- | --- |",
        *(f"| {label} | {statistics.median(found):.2f} | {min(found):.2f} to {max(found):.2f} |"
          for label, found in (("rotor", [s for s, _ in rotor]), ("inline", [s for s, _ in inline]))),
        f"| reading alone | {read:.2f} | |", f"| everything else | {compute:.2f} | |", "",
        f"Speed-up {slow / fast:.2f}x. Bound max(read, compute) = {max(read, compute):.2f} s, so the rotor run is at "
        f"{max(read, compute) / fast:.0%} of it.", "", "![timeline](overlap.png)", "",
    ])  # fmt: skip
    (HERE / "overlap.md").write_text(text)
    print(text)


def draw(rotor: list[Span], inline: list[Span]) -> None:
    """Reads above, compute below; one panel for each way."""
    figure, axes = plt.subplots(2, 1, figsize=(11, 4), sharex=True)
    for axis, (title, spans) in zip(axes, (("rotor", rotor), ("inline", inline)), strict=True):
        zero = min(span.start_s for span in spans)
        for row, (kind, colour) in enumerate(
            (("compute", "tab:orange"), ("attention", "tab:red"), ("read", "tab:blue"))
        ):
            bars = [(span.start_s - zero, span.end_s - span.start_s) for span in spans if span.kind == kind]
            axis.broken_barh(bars, (row, 0.8), color=colour, edgecolor="white", linewidth=0.3)
        axis.set_yticks([0.4, 1.4, 2.4], ["experts", "attention", "reads"])
        axis.set_title(title, loc="left")
    axes[1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(HERE / "overlap.png", dpi=110)


if __name__ == "__main__":
    main()
