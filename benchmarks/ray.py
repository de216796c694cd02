"""What an item costs the one driver of a cluster, and so how many engines it can feed.  The tables of ray.md.

    python -m benchmarks.ray [ITEMS]

The queue, the runner and the pool are the real ones, over a database on disk.  The engines are simulated in this process:
64 that complete 200 answers a second each if they are asked as fast, which no driver does.  Sending over the network
is not in it: a report and its orders are pickled, as Ray pickles them.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from benchmarks.scale_queue import ROW
from rotary_batch.core import (
    Completion,
    NewTokens,
    Request,
    StepReport,
    Subject,
    Unit,
)
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.pool import Pool, wait_for_any
from rotary_batch.run_stats import Progress
from rotary_batch.runner import Runner
from rotary_batch.testing import plan_items
from rotary_batch.window import Window
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items
from rotary_batch.work.index import save_repository
from rotary_batch.work.rows import PlannedItem
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore
from tests.test_nights import Answers

ENGINES, COMPLETIONS_PER_S, PROMPT_TOKENS, ANSWER_TOKENS = 64, 200, 600, 100
LIVE = 128  # of each engine
BURST = 64  # completions of one report: an engine that completes 200 a second reports about three times


class Engine:
    """Answers `BURST` of what it has with each report; the rest gets some tokens."""

    is_ready, node, rates = True, "", None

    def __init__(self) -> None:
        self._live: dict[int, Request] = {}

    def has_room(self, request: Request) -> bool:
        return len(self._live) < LIVE

    def admit(self, request: Request) -> None:
        self._live[request.request_id] = pickle.loads(pickle.dumps(request))

    def begin_step(self) -> None:
        pass

    def end_step(self) -> StepReport:
        done = [self._completion(self._live.pop(number)) for number in list(self._live)[:BURST]]
        new = [NewTokens(request_id=one, token_ids=(5,) * 8, logprob_sum=-1.0) for one in self._live]
        report = StepReport(
            completions=tuple(done), new_tokens=tuple(new), decode_tokens=8, step_s=BURST / COMPLETIONS_PER_S
        )
        return pickle.loads(pickle.dumps(report))

    @staticmethod
    def _completion(request: Request) -> Completion:
        ids = (5,) * ANSWER_TOKENS
        return Completion(
            request_id=request.request_id, token_ids=ids, logprob_sum=-20.0, num_scored=ANSWER_TOKENS, reason="stop"
        )

    def use_rates(self, rates: object) -> None:
        pass

    def drop(self, request_ids: Collection[int]) -> None:
        pass

    def close(self) -> None:
        self._live.clear()


def filled(path: Path, num_items: int) -> tuple[WorkStore, int]:
    db = open_database(path)
    migrate(db)
    store = WorkStore(db)
    repository_id = save_repository(store, ROW)
    for start in range(0, num_items, 1000):
        items = [
            PlannedItem(
                subject=Subject(Unit.CHUNK, f"{start}.py", span=(n, n + 1)),
                parent=None,
                max_new_tokens=ANSWER_TOKENS,
                key=f"key{n}",
                prompt_ids=tuple(range(PROMPT_TOKENS)),
            )
            for n in range(start, min(start + 1000, num_items))
        ]
        plan_items(store, repository_id, "summarize", items, changed_paths={f"{start}.py"})
    return store, repository_id


def measure(num_items: int, num_engines: int, folder: Path) -> None:
    store, repository_id = filled(folder / f"{num_engines}.db", num_items)
    seen: list[Progress] = []
    runner = Runner(
        store=store,
        pool=Pool(open_engine=Engine, wait=wait_for_any, num_engines=num_engines),
        processor=Answers(),  # type: ignore[arg-type]
        window=Window(),
        run_id=1,
        repository_ids=[repository_id],
        sync_pages=lambda _: SyncResult(),
        on_step=seen.append,
        num_open=lambda: open_items(store, [repository_id]),
        max_attempts=3,
    )
    cpu_s, began = time.process_time(), time.perf_counter()
    assert runner.drain() == "done"
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - began
    print(
        f"| {num_engines} | {num_items:,} | {len(seen)} | {1000 * cpu_s / num_items:.2f} | {1000 * wall_s / num_items:.2f} "
        f"| {num_items / cpu_s:,.0f} |"
    )


def main() -> None:
    num_items = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print("| engines | items | commits | CPU ms an item | wall ms an item | items/s of one core |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for num_engines in (1, 8, ENGINES):
            measure(num_items, num_engines, Path(folder))


if __name__ == "__main__":
    main()
