"""What the queue costs with a million items: enqueue, claim, commit, look.  Writes scale_queue.md.

    python -m benchmarks.scale_queue [ITEMS] [FOLDER]

Ten repositories of equal size; a file has 50 chunks, a folder 50 files.  A prompt has 100 tokens.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rotary_batch.core import Completion, NewTokens, Verdict
from rotary_batch.work import counts
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import save_repository
from rotary_batch.work.items import plan_items
from rotary_batch.work.rows import Claim, Failed, Finished, Judged, PlannedItem, RepositoryRow
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

Answer = TypeVar("Answer")
REPOSITORIES, CHUNKS, FILES = 10, 50, 50
STEPS = 500
PROMPT = tuple(range(100))
ROW = RepositoryRow(
    root="/0", name="r", commit_id=None, worktree=False, docs_dir="rotary-docs", model_name="m", pack_dir="/p",
    plan_key="k", link_template=None, job="summarize",
)  # fmt: skip
LIMITS = {  # upper bounds, in the unit of the figure
    "enqueue a million, s": 60.0,
    "claim of 16, p99 ms": 5.0,
    "commit of a step of 16, p99 ms": 20.0,
    "unblocked roll-ups, p99 ms": 1.0,
    "next retry, p99 ms": 1.0,
    "open items, p99 ms": 1.0,
    "`status`, process included, s": 0.2,
}


def planned(repository: int, num_items: int) -> list[PlannedItem]:
    """Chunks of files of folders, the roll-ups first."""
    top = PlannedItem(unit="repository", subject="", path="", parent=None, max_new_tokens=80, priority=3 * 10**9)
    found = [top]
    num_files = num_items // CHUNKS
    for number in range(0, num_files, FILES):
        folder = f"d{number // FILES}"
        found.append(
            replace(top, unit="directory", subject=folder, path=folder, parent=("repository", ""), priority=2 * 10**9)
        )
    for number in range(num_files):
        folder = f"d{number // FILES}"
        path = f"{folder}/f{number}.py"
        found.append(replace(top, unit="file", subject=path, path=path, parent=("directory", folder), priority=10**9))
        found += [
            PlannedItem(
                unit="chunk", subject=f"{path}@{place}", path=path, parent=("file", path), position=place,
                priority=number % 97, max_new_tokens=160, key=f"{repository}.{number}.{place}", prompt_ids=PROMPT,
            )
            for place in range(CHUNKS)
        ]  # fmt: skip
    return found[:num_items]


def enqueue(store: WorkStore, num_items: int) -> float:
    """Plan everything; the seconds of planning alone."""
    seconds = 0.0
    for number in range(REPOSITORIES):
        repository_id = save_repository(store, replace(ROW, root=f"/{number}"))
        items = planned(number, num_items // REPOSITORIES)
        began = time.perf_counter()
        plan_items(store, repository_id, "summarize", items, set())
        seconds += time.perf_counter() - began
    return seconds


def finished(claim: Claim) -> Finished:
    completion = Completion(request_id=claim.item.id, token_ids=(7, 8), logprob_sum=-0.5, num_scored=2, reason="stop")
    judged = Judged(text="It works.", verdict=Verdict.SHOWN, shown_text="It works.")
    return Finished(claim=claim, completion=completion, judged=judged)


def drain(store: WorkStore, run_id: int, steps: int) -> dict[str, list[float]]:
    """What a runner asks in each step, over all repositories; the seconds of each question."""
    ids = list(range(1, REPOSITORIES + 1))
    found: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Answer]) -> Answer:
        began = time.perf_counter()
        answer = call()
        found.setdefault(name, []).append(time.perf_counter() - began)
        return answer

    for step in range(steps):
        claims = timed("claim of 16", lambda: store.claim(run_id, limit=16, now=0.0, repository_ids=ids))
        *most, last = claims
        new = NewTokens(request_id=last.item.id, token_ids=(3,), logprob_sum=-0.1)
        failed = [Failed(claim=last, error="busy", retry_at=10.0 + step)]
        store.commit_step([(last.lease, new)], [], [])
        timed("commit of a step of 16", partial(store.commit_step, [], [finished(claim) for claim in most], failed))
        timed("unblocked roll-ups", lambda: store.unblocked(ids, limit=64))
        timed("next retry", lambda: store.next_retry_at(ids))
        timed("open items", lambda: counts.open_items(store, ids))
    return found


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def status_s(database: Path, tries: int = 9) -> float:
    """The fastest of some: whatever else the machine does only adds."""
    command = [sys.executable, "-m", "rotary_batch.cli", "status", "--db", str(database), "--json"]
    found = []
    for _ in range(tries):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - began)
    return min(found)


def measure(database: Path, num_items: int) -> dict[str, float]:
    """Every figure of LIMITS, and the medians."""
    db = open_database(database)
    migrate(db)
    store = WorkStore(db)
    seconds = enqueue(store, num_items)
    figures = {"enqueue a million, s": seconds * 1e6 / num_items}
    for name, times in drain(store, store.start_run("drain", "m", 1), STEPS).items():
        figures[f"{name}, median ms"] = percentile(times, 0.5) * 1000
        figures[f"{name}, p99 ms"] = percentile(times, 0.99) * 1000
    db.close()
    return figures | {"`status`, process included, s": status_s(database)}


def main() -> None:
    num_items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        figures = measure(Path(folder) / "work.db", num_items)
    rows = [f"| {name} | {value:.3f} | {LIMITS.get(name, '-')} |" for name, value in figures.items()]
    print("\n".join([f"| {num_items:,} items | measured | bound |", "| --- | ---: | ---: |", *rows]))


if __name__ == "__main__":
    main()
