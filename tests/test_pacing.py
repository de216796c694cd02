"""The pace of a run: pauses, slowing down for others, going on again; and device memory that runs out."""

from __future__ import annotations

import pytest

from rotary_batch.core import ErrorClass, Failure, StepReport
from rotary_batch.errors import DeviceMemoryError
from rotary_batch.machine.need import Need
from rotary_batch.pacing import CALM_S, FULL, Pace, Pacekeeper, Pacer, Yielding
from rotary_batch.testing import FakeEngine, FrozenClock
from rotary_batch.window import Deadline, Window
from rotary_batch.work.counts import states
from tests.test_nights import Answers, queue


class Others:
    """A machine whose other programs need what a test says."""

    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.pressure = {"processors": 0.0, "memory": 0.0}
        self.yielding = Yielding([lambda: self._need("processors"), lambda: self._need("memory")], self.clock)

    def _need(self, resource):
        return Need(resource, self.pressure[resource], f"others need {resource}", frees=resource == "memory")

    def shares(self, seconds: float, **pressure: float) -> list[float]:
        """The shares as they change while so many seconds go by."""
        self.pressure |= pressure
        seen = [self.yielding.pace().share]
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += 1.0
            if (share := self.yielding.pace().share) != seen[-1]:
                seen.append(share)
        return seen


def test_the_pace_falls_step_by_step_and_rises_after_calm():
    others = Others()
    assert others.shares(5) == [1.0]
    assert others.shares(15, processors=1.2) == [1.0, 0.5, 0.25]
    assert others.yielding.pace() == Pace(0.25, "yielding", "others need processors")
    assert others.shares(600) == [0.25]  # never below
    assert others.shares(600, processors=0.8) == [0.25]  # between: neither slower nor faster
    assert others.shares(CALM_S - 2, processors=0.5) == [0.25]
    assert others.shares(2 * CALM_S) == [0.25, 0.5, 1.0]
    assert others.yielding.pace() == FULL


def test_memory_is_given_back_at_once_and_taken_again_after_calm():
    others = Others()
    assert others.shares(4, memory=1.0) == [0.0]
    assert others.yielding.has_freed
    assert others.shares(CALM_S + 4, memory=0.0) == [0.0, 1.0]


def test_who_went_on_too_early_waits_longer_the_next_time():
    others = Others()
    waited = []
    for _ in range(8):
        others.shares(4, memory=2.0)
        since = others.clock.now
        while others.yielding.pace().share == 0.0:
            others.shares(1, memory=0.0)
        waited.append(others.clock.now - since)
    assert waited == sorted(waited)
    assert waited[0] < CALM_S + 4 < 2 * CALM_S <= waited[1]
    assert waited[-1] == pytest.approx(900, abs=4)  # at most a quarter of an hour
    others.shares(2000)  # of peace
    assert others.shares(4, memory=2.0)[-1] == 0.0
    assert others.shares(CALM_S + 4, memory=0.0) == [0.0, 1.0]


def test_a_slower_run_rests_between_steps_and_lets_fewer_sequences_in():
    clock, told, share = FrozenClock(), [], [1.0]

    def sleep(seconds):
        clock.now += seconds

    class Given(Pacer):
        def pace(self):
            return FULL if share[0] == 1.0 else Pace(share[0], "yielding", "others")

    keeper = Pacekeeper(
        pacer=Given(), is_closed=lambda: clock.now >= 1000, on_change=told.append, clock=clock, sleep=sleep
    )
    keeper.look()
    keeper.rest(10.0)
    assert (clock.now, keeper.admits(8), told) == (0.0, True, [])
    share[0] = 0.25
    keeper.look()
    keeper.rest(4.0)
    assert clock.now == 12.0  # a quarter of the time is work
    keeper.rest(1e6)
    assert clock.now == 42.0
    assert [keeper.admits(num_live) for num_live in (0, 1, 2, 8)] == [True, True, False, False]
    assert (told, keeper.waited_s) == ([Pace(0.25, "yielding", "others")], {"paused": 0.0, "yielding": 42.0})
    share[0] = 0.0
    keeper.look()
    assert len(told) == 1  # before its memory is free, it is not told
    keeper.wait()
    assert told[1:] == [Pace(0.0, "yielding", "others")]


class FullDevice(FakeEngine):
    """A device on which others have the memory until `free_from`."""

    def __init__(self, clock, free_from: float, *, at_opening: bool) -> None:
        super().__init__(max_batch=4)
        self.clock, self.free_from, self.at_opening = clock, free_from, at_opening
        self.released = 0

    def has_room(self, request):
        if self.at_opening and self.clock.now < self.free_from:
            raise DeviceMemoryError("--device cuda: out of memory")
        return super().has_room(request)

    def step(self):
        self.clock.now += 1.0
        if self.clock.now >= self.free_from:
            return super().step()
        if self.num_live > 1:  # as the engine does: half of them go on
            lost = list(self._live)[self.num_live // 2 :]
            for request_id in lost:
                del self._live[request_id]
            failures = [
                Failure(request_id=one, error="out of memory", error_class=ErrorClass.TEMPORARY, is_attempt=False)
                for one in lost
            ]
            return StepReport(failures=tuple(failures))
        raise DeviceMemoryError("--device cuda: out of memory")

    def close(self):
        super().close()
        self.released += 1


@pytest.mark.parametrize("at_opening", [True, False])
def test_memory_that_runs_out_costs_no_item_an_attempt(at_opening, make_runner):
    clock = FrozenClock()
    engine = FullDevice(clock, 100.0, at_opening=at_opening)
    runner, store, repository_id = make_runner(engine, clock, num_items=9)
    assert runner.drain() == "done"
    assert states(store, repository_id) == {"chunk": {"done": 9}}
    assert store.db.execute("select sum(attempts) as n from item").fetchone()["n"] == 0
    assert (engine.released > 0, 0 < runner.stats.memory_ran_out < 20) == (True, True)
    assert (runner.stats.parked, runner.stats.retried) == (0, 0)


def test_memory_that_never_comes_ends_the_run_and_parks_nothing(make_runner):
    clock = FrozenClock()
    runner, store, repository_id = make_runner(FullDevice(clock, 1e9, at_opening=True), clock, num_items=3)
    with pytest.raises(DeviceMemoryError):
        runner.drain()
    assert states(store, repository_id) == {"chunk": {"ready": 3}}


def test_with_a_deadline_a_run_that_has_worked_waits_for_memory_until_then(make_runner):
    clock = FrozenClock()
    engine = FullDevice(clock, 0.0, at_opening=False)
    runner, store, repository_id = make_runner(engine, clock, num_items=50, seconds=8 * 3600.0)
    runner.on_step = lambda progress: setattr(engine, "free_from", 1e9 if progress.stats.done >= 4 else 0.0)
    assert runner.drain() == "deadline"
    assert 8 * 3600 <= clock.now <= 8 * 3600 + 2
    assert states(store, repository_id) == {"chunk": {"done": 4, "ready": 46}}
    assert runner.stats.yielded_s > 7 * 3600


def test_a_paused_run_has_neither_memory_nor_leases_and_goes_on_with_its_tokens(make_runner):
    clock, asked = FrozenClock(), [None]

    class Counted(FakeEngine):
        released = 0

        def step(self):
            clock.now += 1.0
            if clock.now == 3.0:
                asked[0] = "paused by a test"
            return super().step()

        def close(self):
            super().close()
            self.released += 1

    engine = Counted(max_batch=2)
    runner, store, repository_id = make_runner(engine, clock, num_items=4)
    seen = []

    def on_pace(pace):
        seen.append((pace, engine.num_live, states(store, repository_id)))

    def sleep(seconds):
        clock.now += seconds
        if clock.now >= 60.0:
            asked[0] = None

    runner.pacer.paused, runner.on_pace, runner._pacekeeper.sleep = (lambda: asked[0]), on_pace, sleep
    assert runner.drain() == "done"
    assert seen == [
        (Pace(0.0, "paused", "paused by a test"), 0, {"chunk": {"ready": 4}}),
        (FULL, 0, {"chunk": {"ready": 4}}),
    ]
    assert (runner.stats.paused_s, engine.released > 0) == (57.0, True)
    assert states(store, repository_id) == {"chunk": {"done": 4}}
    assert runner.stats.decode_tokens == 4 * 5  # those from before the pause were kept


def test_what_is_given_back_counts_for_no_limit_and_an_empty_queue_waits_for_nothing(make_runner):
    clock, asked = FrozenClock(), [None]
    engine = FullDevice(clock, 5.0, at_opening=False)
    runner, store, repository_id = make_runner(engine, clock, num_items=9)
    runner.window.max_items = 6
    runner.pacer.paused = lambda: "paused by a test" if 20 <= clock.now < 30 else asked[0]
    assert runner.drain() == "limit"
    assert states(store, repository_id) == {"chunk": {"done": 6, "ready": 3}}
    store.db.execute("delete from item where state = 'ready'")
    asked[0] = "paused for good"
    assert runner.drain() == "done"


def test_a_pause_holds_until_the_deadline(make_runner):
    clock = FrozenClock()
    runner, store, repository_id = make_runner(FakeEngine(), clock, num_items=3, seconds=100.0)
    runner.pacer.paused = lambda: "paused by a test"
    assert (runner.drain(), clock.now, runner.stats.paused_s) == ("deadline", 100.0, 100.0)
    assert states(store, repository_id) == {"chunk": {"ready": 3}}


@pytest.fixture
def make_runner(tmp_path):
    """A runner over a real queue."""
    from rotary_batch.pages.files import SyncResult
    from rotary_batch.pool.in_process import in_process_pool
    from rotary_batch.runner import Runner
    from rotary_batch.work.counts import open_items

    def make(engine, clock, *, num_items, seconds=None):
        store, repository_id = queue(tmp_path / "work.db", num_items)
        store.db.execute("update item set max_new_tokens = 9")

        def sleep(seconds):
            clock.now += seconds

        runner = Runner(
            store=store,
            pool=in_process_pool(lambda: lambda _phase: engine),
            processor=Answers(),
            window=Window(deadlines=[] if seconds is None else [Deadline(seconds, clock)]),
            run_id=1,
            repository_ids=[repository_id],
            sync_pages=lambda _: SyncResult(),
            on_step=lambda _: None,
            num_open=lambda: open_items(store, [repository_id]),
            max_attempts=3,
            pacer=Pacer(yielding=Yielding(clock=clock)),
            clock=clock,
            sleep=sleep,
        )
        return runner, store, repository_id

    return make
