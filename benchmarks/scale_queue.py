"""What the queue costs with a million items: enqueue, claim, commit, look.  The table of scale_queue.md.

    python -m benchmarks.scale_queue [ITEMS] [FOLDER]

Ten repositories of equal size; a file has 50 chunks, a folder 50 files.  A prompt has 100 tokens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from rotary_batch.core import Completion, NewTokens, Subject, Unit, ValidationResult, Verdict
from rotary_batch.testing import plan_items
from rotary_batch.work import counts
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import save_repository
from rotary_batch.work.rows import Claim, Failed, Finished, PlannedItem, RepositoryRow
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

Answer = TypeVar("Answer")
REPOSITORIES, CHUNKS, FILES = 10, 50, 50
STEPS = 500
PROMPT = tuple(range(100))
ROW = RepositoryRow(
    root="/0",
    name="r",
    commit_id=None,
    worktree=False,
    docs_dir="rotary-docs",
    model_name="m",
    pack_dir="/p",
    plan_key="k",
    link_template=None,
    job="summarize",
)
LIMITS = {  # upper bounds, in the unit of the figure
    "enqueue the last tenth, s": 6.0,  # of a million
    "claim of 16, p99 ms": 5.0,
    "commit of a step of 16, p99 ms": 20.0,
    "unblocked roll-ups, p99 ms": 1.0,
    "next retry, p99 ms": 1.0,
    "open items, p99 ms": 1.0,
    "`status`, process included, s": 0.2,
}


class Seconds(NamedTuple):
    """What something took: waiting for the disk and for other programs included, and of this process alone."""

    elapsed: float
    processor: float


def now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def since(began: Seconds) -> Seconds:
    return Seconds(*(after - before for after, before in zip(now(), began, strict=True)))


def planned(repository: int, num_items: int) -> list[PlannedItem]:
    """Chunks of files of folders, the roll-ups first."""
    top = PlannedItem(subject=Subject(Unit.REPOSITORY, ""), parent=None, max_new_tokens=80, priority=3 * 10**9)
    found = [top]
    num_files = num_items // CHUNKS
    for number in range(0, num_files, FILES):
        folder = f"d{number // FILES}"
        found.append(replace(top, subject=Subject(Unit.DIRECTORY, folder), parent=top.subject, priority=2 * 10**9))
    for number in range(num_files):
        folder = Subject(Unit.DIRECTORY, f"d{number // FILES}")
        file = Subject(Unit.FILE, f"{folder.path}/f{number}.py")
        found.append(replace(top, subject=file, parent=folder, priority=10**9))
        found += [
            PlannedItem(
                subject=Subject(Unit.CHUNK, file.path, span=(place, place + 1)),
                parent=file,
                position=place,
                priority=number % 97,
                max_new_tokens=160,
                key=f"{repository}.{number}.{place}",
                prompt_ids=PROMPT,
            )
            for place in range(CHUNKS)
        ]
    return found[:num_items]


def enqueue(store: WorkStore, number: int, num_items: int) -> Seconds:
    """Plan one more repository; the seconds of planning alone."""
    repository_id = save_repository(store, replace(ROW, root=f"/{number}"))
    items = planned(number, num_items)
    paths = {item.subject.path for item in items if item.subject.unit is Unit.CHUNK}
    began = now()
    plan_items(store, repository_id, "summarize", items, paths)
    return since(began)


def copy_first(store: WorkStore, number: int, num_items: int) -> None:
    """One more repository like the first, in three statements, which is faster than planning it."""
    repository_id = save_repository(store, replace(ROW, root=f"/{number}"))
    columns = "job, unit, subject, path, position, state, key, priority, max_new_tokens, prompt_tokens"
    given = {"shift": number * num_items, "repository_id": repository_id, "num_items": num_items}
    with store.transaction():
        for statement in (
            f"""insert into item (id, repository_id, {columns})
                select id + :shift, :repository_id, {columns} from item where repository_id = 1""",
            """update item set parent_id = (select parent_id + :shift from item as first where id = item.id - :shift)
               where repository_id = :repository_id""",
            "insert into prompt select item_id + :shift, token_ids, shared_id from prompt where item_id <= :num_items",
        ):
            store.db.execute(statement, given)


def fill(store: WorkStore, num_items: int) -> Seconds:
    """Ten repositories, the first and the last of them planned; the seconds of planning the last."""
    each = num_items // REPOSITORIES
    enqueue(store, 0, each)
    for number in range(1, REPOSITORIES - 1):
        copy_first(store, number, each)
    return enqueue(store, REPOSITORIES - 1, each)


def finished(claim: Claim) -> Finished:
    completion = Completion(request_id=claim.item.id, token_ids=(7, 8), logprob_sum=-0.5, num_scored=2, reason="stop")
    validation = ValidationResult(verdict=Verdict.SHOWN, shown_text="It works.")
    return Finished(claim=claim, completion=completion, text="It works.", validation=validation)


def drain(store: WorkStore, run_id: int, steps: int) -> dict[str, list[Seconds]]:
    """What a runner asks in each step, over all repositories; the seconds of each question."""
    ids = list(range(1, REPOSITORIES + 1))
    found: dict[str, list[Seconds]] = {}

    def timed(name: str, call: Callable[[], Answer]) -> Answer:
        began = now()
        answer = call()
        found.setdefault(name, []).append(since(began))
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


def percentile(found: list[Seconds], share: float, factor: float = 1.0) -> Seconds:
    """Of both kinds of seconds, each for itself."""
    place = min(len(found) - 1, int(share * len(found)))
    return Seconds(*(factor * sorted(kind)[place] for kind in zip(*found, strict=True)))


def status(database: Path, tries: int = 9) -> Seconds:
    """The fastest of some: whatever else the machine does only adds."""
    command = [sys.executable, "-m", "rotary_batch.cli", "status", "--db", str(database), "--json"]
    found = []
    for _ in range(tries):
        began, used = time.perf_counter(), sum(os.times()[2:4])
        subprocess.run(command, check=True, capture_output=True)
        found.append(Seconds(time.perf_counter() - began, sum(os.times()[2:4]) - used))
    return percentile(found, 0.0)


def measure(database: Path, num_items: int) -> dict[str, Seconds]:
    """Every figure of LIMITS, and the medians."""
    db = open_database(database)
    migrate(db)
    store = WorkStore(db)
    figures = {"enqueue the last tenth, s": fill(store, num_items)}
    for name, times in drain(store, start_run(store, command="drain", model_name="m", pid=1), STEPS).items():
        figures[f"{name}, median ms"] = percentile(times, 0.5, 1000)
        figures[f"{name}, p99 ms"] = percentile(times, 0.99, 1000)
    db.close()
    return figures | {"`status`, process included, s": status(database)}


def main() -> None:
    num_items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        figures = measure(Path(folder) / "work.db", num_items)
    rows = [
        f"| {name} | {found.elapsed:.3f} | {found.processor:.3f} | {LIMITS.get(name, '-')} |"
        for name, found in figures.items()
    ]
    head = [f"| {num_items:,} items | elapsed | processor | bound |", "| --- | ---: | ---: | ---: |"]
    print("\n".join([*head, *rows]))


if __name__ == "__main__":
    main()
