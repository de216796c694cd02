"""Experts from disk under a cap on the whole process, beside the same in RAM: `python -m benchmarks.stream`.

Every figure comes from `rotary-batch bench --json`, run by itself; cases take turns, medians and spread are given, and
of how many runs; `small`, `fine` or `medium` as arguments run those alone.  The bound of each run is computed by the planner
from the machine's rates (`bench --machine`, just before) and the disk's rate in the same minute.  Writes stream.md and
stream.svg.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cgroup import can_cap, run
from benchmarks.shapes import machine
from rotary_batch.config import cache_dir

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "5"))
HERE = Path(__file__).parent
KEPT = cache_dir(os.environ) / "stream.json"
PROGRAM = [str(Path(sys.executable).parent / "rotary-batch"), "bench"]
MIB = 2**20
FORMAT_FLAGS = ("--shape", "--experts", "--dense")


class Case(NamedTuple):
    """One row of the table."""

    name: str
    cap_mib: int | None
    arguments: str


Found = dict[Case, list[dict[str, Any]]]
CASES = [
    Case("small bf16, all in RAM", None, "--shape small --sequences 32"),
    Case("small bf16, all in RAM", None, "--shape small --sequences 128"),
    Case("small bf16, from disk", 1300, "--shape small --sequences 32 --device-memory 1000MB"),
    Case("small bf16, from disk", 1300, "--shape small --sequences 128 --device-memory 1000MB"),
    Case("small bf16, from disk", 1300, "--shape small --lengths job --device-memory 900MB"),
    Case("small bf16, 450 MB", 1300, "--shape small --sequences 32 --device-memory 450MB"),
    Case("small int4, 450 MB", 1300, "--shape small --experts int4 --sequences 32 --device-memory 450MB"),
    Case("fine bf16, from disk", 1300, "--shape fine --sequences 128 --device-memory 1000MB"),
    Case(
        "medium int4, 60 % of its bytes",
        1884,
        "--shape medium --experts int4 --dense int8 --sequences 32 --device-memory 1500MB",
    ),
]
PICTURE = Case("timeline", None, f"--shape small --sequences 128 --device-memory 1000MB --timeline {HERE}/stream.svg")


def measure(case: Case) -> dict[str, Any]:
    """One run of one case."""
    command = [*PROGRAM, *case.arguments.split(), "--json"]
    limit = None if case.cap_mib is None or not can_cap() else case.cap_mib * MIB
    done = run(command, limit, 900)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    run([*PROGRAM, "--machine", "--json"], None, 300)
    found, wanted = kept(), sys.argv[1:]
    cases = [case for case in CASES if not wanted or case.name.split()[0] in wanted]
    for case in cases:
        # writes the pack of random weights when it is not there yet
        words = case.arguments.split()
        shape = [word for n, word in enumerate(words) if words[max(0, n - 1)] in FORMAT_FLAGS or word in FORMAT_FLAGS]
        measure(Case("", None, " ".join([*shape, "--sequences 1 --lengths 8+4"])))
    for number in range(ROUNDS):
        for case in cases:
            found[case].append(measure(case))
            print(f"{number + 1}/{ROUNDS} {case.name} {case.arguments}", file=sys.stderr, flush=True)
            keep(found)
    measure(PICTURE)
    print((HERE / "stream.md").read_text())


def kept() -> Found:
    """What earlier calls measured, on this machine; further runs are added, so an interruption costs one run."""
    found: Found = defaultdict(list)
    by_words = {(case.name, case.arguments): case for case in CASES}
    if KEPT.is_file():
        for name, arguments, runs in json.loads(KEPT.read_text()):
            found[by_words[name, arguments]] = runs
    return found


def keep(found: Found) -> None:
    KEPT.write_text(json.dumps([[case.name, case.arguments, runs] for case, runs in found.items()]))
    (HERE / "stream.md").write_text(report(found))


def report(found: Found) -> str:
    lines = [
        "# Experts from disk",
        "",
        f"Machine: {machine()}; virtual disk.",
        "Command: `python -m benchmarks.stream`.",
        "Fast numerics, bf16 keys; prompt + new tokens as given; medians of so many runs, which took turns (slowest to",
        "fastest).  `bound` = tokens/s when the longer of moving and computing is all that takes time, with the disk's",
        "rate in the same minute; `share` = least time of a decode revolution / its median time.  Peak = resident set of the",
        "whole process; the cap is a memory cgroup, page cache included.",
        "",
        "| Case | Runs | Cap | Lengths | Sequences | Prefill tok/s (bound) | Decode tok/s (bound) | Share | Move / compute s | Disk GB/s | Peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(
        [*lines, *(row(case, found[case]) for case in CASES if case in found), "", "![timeline](stream.svg)", ""]
    )


def row(case: Case, runs: list[dict[str, Any]]) -> str:
    def mid(name: str) -> float:
        return statistics.median(one[name] for one in runs)

    def spread(name: str) -> str:
        values = [one[name] for one in runs]
        return f"{mid(name):,.0f} ({min(values):,.0f} to {max(values):,.0f})"

    cap = f"{case.cap_mib} MiB" if case.cap_mib and can_cap() else "none"
    return (
        f"| {case.name} | {len(runs)} | {cap} | {runs[0]['prompt_tokens']}+{runs[0]['new_tokens']} | {runs[0]['sequences']} | "
        f"{spread('prefill_tokens_per_s')} ({mid('bound_prefill_tokens_per_s'):,.0f}) | "
        f"{spread('decode_tokens_per_s')} ({mid('bound_decode_tokens_per_s'):,.0f}) | {mid('share_of_bound'):.0%} | "
        f"{mid('move_s'):.2f} / {mid('compute_s'):.2f} | {mid('link_bytes_per_s') / 1e9:.1f} | "
        f"{mid('peak_host_bytes') / 1e6:,.0f} |"
    )


if __name__ == "__main__":
    main()
