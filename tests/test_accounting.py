"""What items cost adds up to what the steps cost, whoever ended, failed, paused or was given back in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rotary_batch.core import ErrorClass, Failure
from rotary_batch.pacing import FULL, Pace, Pacer
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.runner import Runner
from rotary_batch.testing import FakeEngine, FrozenClock
from rotary_batch.window import Window
from rotary_batch.work.accounting import Cost, save_costs
from rotary_batch.work.counts import open_items
from tests.test_nights import Answers, queue


class Counting(FakeEngine):
    """Counts as an engine does: totals since it was opened.  Some sequences fail, some are given back."""

    def __init__(self, clock: FrozenClock) -> None:
        super().__init__(max_batch=3)
        self.clock, self.steps = clock, 0
        self.moved = self.stalled = 0.0
        self.all_moved = self.all_stalled = 0.0  # also before it was closed and opened again

    def step(self):
        self.steps += 1
        self.moved, self.stalled = self.moved + 100.0 * self.steps, self.stalled + 0.25
        self.all_moved, self.all_stalled = self.all_moved + 100.0 * self.steps, self.all_stalled + 0.25
        self.clock.now += 2.0
        failures = []
        if self.steps in {3, 5}:
            lost = list(self._live)[-1]
            del self._live[lost]
            failures = [
                Failure(request_id=lost, error="e", error_class=ErrorClass.TEMPORARY, is_attempt=self.steps == 3)
            ]
        counters = {"bytes_moved": self.moved, "stall_s": self.stalled}
        return replace(super().step(), step_s=2.0, counters=counters, failures=tuple(failures))

    def close(self):
        super().close()
        self.moved = self.stalled = 0.0


@pytest.mark.parametrize("counts_energy", [False, True])
def test_the_costs_of_items_are_those_of_the_steps(tmp_path, counts_energy):
    clock = FrozenClock()
    store, repository_id = queue(tmp_path / "work.db", 7)
    store.db.execute("update item set max_new_tokens = 9")
    engine = Counting(clock)

    class Paused(Pacer):
        def pace(self):
            return Pace(0.0, "paused", "a test") if 8 <= clock.now < 20 else FULL

    def sleep(seconds):
        clock.now += seconds

    runner = Runner(
        store=store,
        pool=in_process_pool(lambda: lambda _phase: engine),
        processor=Answers(),
        window=Window(),
        run_id=1,
        repository_ids=[repository_id],
        sync_pages=lambda _: SyncResult(),
        on_step=lambda _: None,
        num_open=lambda: open_items(store, [repository_id]),
        max_attempts=3,
        pacer=Paused(),
        energy_j=(lambda: 1000.0 + 50.0 * clock.now) if counts_energy else lambda: None,
        clock=clock,
        sleep=sleep,
    )
    assert runner.drain() == "done"
    row = store.db.execute("select step_s, moved_nbytes, stall_s, energy_j from cost where state = 'done'").fetchone()
    assert runner.stats.paused_s > 0
    assert tuple(row) == (
        pytest.approx(2.0 * engine.steps),
        pytest.approx(engine.all_moved),
        pytest.approx(engine.all_stalled),
        pytest.approx(runner.stats.energy_j) if counts_energy else None,
    )
    if counts_energy:
        assert runner.stats.energy_j == pytest.approx(50.0 * 2.0 * engine.steps)
    each = store.db.execute("select min(step_s) as least, max(attempts) as most from item").fetchone()
    assert (each["least"] > 0, each["most"]) == (True, 1)


def test_a_later_attempt_adds_to_an_earlier_one(tmp_path):
    store, _ = queue(tmp_path / "work.db", 1)
    (item,) = store.db.execute("select id from item").fetchall()
    found = []
    for cost in (Cost(1.0, 10.0, 0.5), Cost(2.0, 20.0, 0.5, 7.0), Cost(0.0, 0.0, 0.0)):
        save_costs(store, {item["id"]: cost})
        found.append(tuple(store.db.execute("select step_s, moved_nbytes, stall_s, energy_j from item").fetchone()))
    assert found == [(1.0, 10.0, 0.5, None), (3.0, 30.0, 1.0, 7.0), (3.0, 30.0, 1.0, 7.0)]
