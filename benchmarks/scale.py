"""A tree of 100,000 files: the first index, one again with nothing changed, and one with one file changed.

python -m benchmarks.scale [FILES ...]     writes benchmarks/scale.md
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scale_tree import commit, path_of, write_repository
from rotary_batch.commands.configuration import configure
from rotary_batch.commands.database import writing
from rotary_batch.commands.index import IndexOutcome, IndexRequest, index, index_views
from rotary_batch.window import Window

# What an index may take here, with 2 cores: seconds of the first, seconds of one again, bytes of the main process.
FIRST_S, AGAIN_S, PEAK_NBYTES = 15 * 60, 10, 400 * 10**6
CHANGED_S = 2  # of the whole program, when one file of 10,000 changed
NUM_CHANGES = 5


def index_once(root: Path, db: Path) -> dict[str, float]:
    """One `index`, pages included, in this process."""
    configured = configure(None, [root], {"db": db})
    began, busy = time.monotonic(), time.process_time()
    with writing(configured.for_command().settings) as store:
        request = IndexRequest(
            store=store,
            settings_of=configured.for_repository,
            window=Window(),
            views=index_views(store),
            progress=lambda *_: None,
        )
        (outcome,) = index(request, [root])
    assert isinstance(outcome, IndexOutcome), str(outcome)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "items": outcome.indexed.counts.queued + outcome.indexed.counts.unchanged,
        "pages": len(outcome.sync_result.written),
        "wall_s": time.monotonic() - began,
        "main_cpu_s": time.process_time() - busy,
        "parser_cpu_s": children.ru_utime + children.ru_stime,
        "peak_nbytes": _peak_nbytes(),
    }


def _peak_nbytes() -> int:
    """Of this program; `ru_maxrss` would include what the process was before it became this program."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def in_own_process(root: Path, db: Path) -> dict[str, float]:
    """As `index_once`, where nothing was allocated before."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", str(root), str(db)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return dict(json.loads(done.stdout))


def after_changes(root: Path, db: Path, file: Path) -> dict[str, float]:
    """The least that the whole program takes after one function of one file changed, of several times."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "rotary_batch", "index", str(root), "--db", str(db)]
    found = []
    for number in range(NUM_CHANGES):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r"return (\d+ \+ )?value", f"return {number} + value", text, count=1), encoding="utf-8")
        commit(root)
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=Path(__file__).parent.parent)
        wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append({"wall_s": wall_s, "cpu_s": cpu_s})
    return min(found, key=lambda one: one["wall_s"])


def measure(num_files: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """The first index of a fresh tree, one again, and one after a change."""
    with tempfile.TemporaryDirectory() as folder:
        root, db = Path(folder) / "tree", Path(folder) / "work.db"
        write_repository(root, num_files)
        first, again = in_own_process(root, db), in_own_process(root, db)
        return first, again, after_changes(root, db, root / path_of(num_files // 6 * 3))


def main() -> None:
    from benchmarks.shapes import machine  # here, because it loads torch, which the measured processes do not

    lines = [
        "# A tree of many files",
        "",
        "`python -m benchmarks.scale`: small Python, JavaScript and Go files, 100 in a folder; `index` with its pages.",
        f"The bounds for 100,000 files on 2 cores: {FIRST_S} s, {AGAIN_S} s, {PEAK_NBYTES // 10**6} MB.",
        "One file changed: another return value in one function, committed; the whole program `rotary-batch index REPO`, "
        f"the best of {NUM_CHANGES}. The bound for 10,000 files: {CHANGED_S} s.",
        f"Machine: {machine()}; virtual disk.",
        "",
        "| Files | Items | Pages | First index | CPU of main process and parsers | Its peak | Index again | Its peak "
        "| One file changed | CPU of all processes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for num_files in map(int, sys.argv[1:] or ["10000", "100000"]):
        first, again, changed = measure(num_files)
        lines.append(
            f"| {num_files:,} | {first['items']:,} | {first['pages']:,} | {first['wall_s']:.0f} s | "
            f"{first['main_cpu_s']:.0f} s and {first['parser_cpu_s']:.0f} s | {first['peak_nbytes'] / 10**6:.0f} MB | "
            f"{again['wall_s']:.1f} s | {again['peak_nbytes'] / 10**6:.0f} MB | "
            f"{changed['wall_s']:.1f} s | {changed['cpu_s']:.1f} s |"
        )
        print(lines[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(index_once(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
