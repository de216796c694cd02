"""The contract of engine pools, held by each implementation: what an engine does, dies of and hangs at."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rotary_batch.backoff import Backoff
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.commands.engines import open_engine
from rotary_batch.core import Completion, ErrorClass, Failure, Request, StepReport
from rotary_batch.errors import DeviceMemoryError, ModelError, PromptError, UnavailableError
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.pool.member import PROBE
from rotary_batch.pool.pool import MAX_STARTS, Pool
from rotary_batch.pool.ray_actor import Bursts
from rotary_batch.pool.ray_cluster import connect
from rotary_batch.pool.ray_pool import Placement, ray_pool
from rotary_batch.pool.subprocess_pool import ChildEngine, subprocess_pool
from rotary_batch.pool.watchdog import Watchdog
from rotary_batch.runner import Runner
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Window
from rotary_batch.work.counts import open_items, states
from tests.ray_nodes import RESOURCE, add_node, cluster, engines_of, needs_ray
from tests.test_nights import Answers, queue

POISON = 9999  # a token; an engine that reads it in a prompt dies at the second step
REQUESTS = [Request(request_id=number, prompt_ids=(1, 2, number), max_new_tokens=9) for number in range(1, 8)]
QUICK = {"least_s": 5.0, "first_step_s": 5.0, "open_s": 60.0}
BUSY_S = 0.2
SIGNALS = {
    "kill": signal.SIGKILL,
    "never, by a signal": signal.SIGKILL,
    "hang": signal.SIGSTOP,
    "segfault": signal.SIGSEGV,
}


class Engine(FakeEngine):
    """Writes its process into a file, so that a test can kill it; dies of poison as `manner` says."""

    def __init__(self, folder: Path, manner: str = "raise") -> None:
        super().__init__(max_batch=8, answer_tokens=5)
        self.manner, self.rates = manner, None
        (folder / f"{time.monotonic_ns()}.opened").write_text(str(os.getpid()))

    def admit(self, request: Request) -> None:
        if len(request.prompt_ids) > 100:
            raise PromptError("too long")
        super().admit(request)

    def step(self) -> StepReport:
        if self.manner == "slow":
            time.sleep(BUSY_S)
        if self.manner == "memory" and PROBE.request_id not in self._live:
            raise DeviceMemoryError("the card is full")
        if self.manner.startswith("never") or any(
            POISON in request.prompt_ids and len(generated) == 1 for request, generated in self._live.values()
        ):
            self._die()
        return super().step()

    def _die(self) -> None:
        if self.manner in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.manner])
        raise KeyError("poison")


def open_fake(folder: Path, manner: str, _phase: Callable[[str], None]) -> Engine:
    return Engine(folder, manner)


def open_missing(_phase: Callable[[str], None]) -> Engine:
    raise ModelError("/p: a shard is missing")


def open_never(_phase: Callable[[str], None]) -> Engine:
    time.sleep(600)
    raise AssertionError


def open_embedded(_phase: Callable[[str], None]) -> object:
    return open_engine(EMBEDDED, EngineOptions(numerics="exact", max_batch=4))


KINDS = {
    "in process": in_process_pool,
    "subprocess": partial(subprocess_pool, watchdog=Watchdog(**QUICK)),
    "ray": partial(
        ray_pool, placement=Placement(resources={RESOURCE: 1}), bursts=Bursts(revolutions=1), patience_s=120.0
    ),
}
HERE = ["in process", "subprocess"]
DEATHS = [("in process", "raise"), ("subprocess", "raise"), ("subprocess", "kill"), ("subprocess", "segfault")]
RAY_DEATHS = [pytest.param("ray", manner, marks=needs_ray) for manner in ("raise", "kill")]


@pytest.fixture(params=[*HERE, pytest.param("ray", marks=needs_ray)])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def ray_cluster():
    """Two nodes, for the pools of this file."""
    with cluster(num_nodes=2) as nodes:
        connect(nodes.address)
        yield nodes


@pytest.fixture
def make_pool(tmp_path, request):
    """Pools that are closed at the end, and left no process."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind") == "ray":
        request.getfixturevalue("ray_cluster")
    pools, before = [], children()

    def make(kind: str, manner: str = "raise", opener=None, **options) -> Pool:
        opener = opener or partial(open_fake, tmp_path, manner)
        pools.append(KINDS[kind](lambda: opener, **options))
        pools[-1].backoff = Backoff(first_s=0.01, most_s=0.02)
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
        pool.close()
        assert pool.num_live == 0
    assert children() <= before, "a process or a zombie is left"


def children() -> set[str]:
    """The processes of this one, zombies too, but for the tracker that the interpreter keeps."""
    ours = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in ours if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()}


def opened(folder: Path) -> list[int]:
    texts = [path.read_text() for path in sorted(folder.glob("*.opened"))]
    return [int(text) for text in texts if text]  # an empty one is being written


def answers(pool: Pool, requests: list[Request]) -> dict[int, Completion]:
    waiting, done = list(requests), {}
    while waiting or pool.num_live:
        while waiting and pool.has_room(waiting[0]):
            pool.admit(waiting.pop(0))
        report = pool.step()
        assert (report.failures, report.losses) == ((), ())
        done |= {one.request_id: one for one in report.completions}
    return done


def alone(requests: list[Request]) -> dict[int, Completion]:
    """The same without a pool."""
    engine = FakeEngine(max_batch=8, answer_tokens=5)
    for request in requests:
        engine.admit(request)
    return {one.request_id: one for _ in range(9) for one in engine.step().completions}


def test_a_pool_gives_the_tokens_of_its_engine(make_pool, kind):
    pool = make_pool(kind)
    assert (pool.num_live, pool.starts_in_s) == (0, 0.0)
    assert answers(pool, REQUESTS) == alone(REQUESTS)


def test_every_step_gives_its_tokens_as_it_ends(make_pool, kind):
    pool = make_pool(kind)
    for request in REQUESTS[:2]:
        pool.admit(request)
    reports = [pool.step() for _ in range(5)]
    assert [[len(new.token_ids) for new in report.new_tokens] for report in reports] == [[1, 1]] * 5
    assert (pool.num_live, pool.step().new_tokens) == (0, ())


def test_what_is_dropped_can_be_asked_again_with_its_tokens(make_pool, kind):
    pool = make_pool(kind)
    for request in REQUESTS[:2]:
        pool.admit(request)
    tokens = next(new.token_ids for new in pool.step().new_tokens if new.request_id == 1)
    pool.drop({1})
    assert pool.num_live == 1
    again = Request(request_id=1, prompt_ids=REQUESTS[0].prompt_ids, max_new_tokens=9, generated_ids=tokens)
    assert answers(pool, [again])[1].token_ids == alone(REQUESTS)[1].token_ids


def test_a_prompt_that_never_fits_is_refused_and_the_others_go_on(make_pool, kind):
    pool = make_pool(kind)
    long = Request(request_id=99, prompt_ids=(1,) * 101, max_new_tokens=1)
    if kind == "ray":  # it is not asked before the step
        pool.admit(long)
        (failure,) = pool.step().failures
        assert (failure.request_id, failure.error, failure.error_class) == (99, "too long", ErrorClass.BAD_ITEM)
    else:
        with pytest.raises(PromptError, match="too long"):
            pool.admit(long)
    assert answers(pool, REQUESTS) == alone(REQUESTS)


def test_nothing_joins_what_is_apart(make_pool, kind):
    pool = make_pool(kind)
    pool.admit(REQUESTS[0], apart=True)
    rooms = [pool.has_room(REQUESTS[1], apart=apart) for apart in (True, False)]
    pool.release()
    pool.admit(REQUESTS[0])
    assert (rooms, [pool.has_room(REQUESTS[1], apart=apart) for apart in (True, False)]) == (
        [True, False],
        [False, True],
    )


def test_a_released_pool_opens_again(make_pool, kind, tmp_path):
    pool = make_pool(kind)
    pool.admit(REQUESTS[0])
    pool.release()
    assert pool.num_live == 0
    assert answers(pool, REQUESTS) == alone(REQUESTS)
    assert len(opened(tmp_path)) == 2


@pytest.mark.parametrize(("opener", "error"), [(open_missing, ModelError)])
def test_a_model_that_cannot_be_opened_says_why(make_pool, kind, opener, error):
    with pytest.raises(error, match="/p: a shard is missing"):
        make_pool(kind, opener=opener).has_room(REQUESTS[0])


def test_a_device_without_memory_is_no_death(make_pool, kind):
    pool = make_pool(kind, "memory")
    pool.admit(REQUESTS[0])
    with pytest.raises(DeviceMemoryError, match="the card is full"):
        pool.step()


@pytest.mark.parametrize(("kind", "manner"), [*DEATHS, *RAY_DEATHS])
def test_what_was_live_when_an_engine_died_is_lost_and_another_takes_its_place(make_pool, kind, manner, tmp_path):
    pool = make_pool(kind, manner)
    for number in (1, 2):
        pool.admit(REQUESTS[number])
    pool.admit(Request(request_id=50, prompt_ids=(POISON,), max_new_tokens=9))
    first = pool.step()
    assert (len(first.new_tokens), first.losses, pool.num_live) == (3, (), 3)
    (loss,) = pool.step().losses
    assert loss.request_ids == (2, 3, 50)
    signs = {"raise": "KeyError", "kill": "SIGKILL", "segfault": "SIGSEGV"}
    assert (signs | {"kill": "ActorDiedError"} if kind == "ray" else signs)[manner] in loss.error
    assert answers(pool, REQUESTS) == alone(REQUESTS)
    assert len(opened(tmp_path)) == 2


@pytest.mark.parametrize(
    ("kind", "manner", "error", "why"),
    [
        ("in process", "never", KeyError, "poison"),
        ("subprocess", "never", KeyError, "poison"),
        ("subprocess", "never, by a signal", UnavailableError, "ended before it could work: its process .* SIGKILL"),
    ],
)
def test_an_engine_that_can_do_no_step_ends_the_run(make_pool, tmp_path, kind, manner, error, why):
    pool = make_pool(kind, manner)
    pool.admit(REQUESTS[0])
    assert pool.step().losses[0].request_ids == (1,)

    def wait_for_room() -> None:
        while not pool.has_room(REQUESTS[0]):
            time.sleep(pool.starts_in_s)

    with pytest.raises(error, match=why):
        wait_for_room()
    assert len(opened(tmp_path)) == 1 + MAX_STARTS


def test_a_process_that_is_killed_in_mid_step_is_replaced(make_pool, tmp_path):
    pool = make_pool("subprocess", "slow")
    for request in REQUESTS:
        pool.admit(request)
    pool.step()
    with KillingLater(opened(tmp_path)[0], signal.SIGKILL):
        (loss,) = pool.step().losses
    assert loss.request_ids == tuple(request.request_id for request in REQUESTS)
    assert loss.error == "its process was ended by SIGKILL"
    assert answers(pool, REQUESTS) == alone(REQUESTS)


def test_a_process_that_hangs_is_killed_and_replaced(make_pool, tmp_path):
    watchdog = Watchdog(least_s=1.0, first_step_s=1.0, factor=2.0)
    pool = make_pool("subprocess", "slow", watchdog=watchdog)
    for request in REQUESTS[:2]:
        pool.admit(request)
    pool.step()
    with KillingLater(opened(tmp_path)[0], signal.SIGSTOP):
        began = time.monotonic()
        (loss,) = pool.step().losses
    assert (loss.error, time.monotonic() - began > 0.9) == ("it gave no answer for 1 s", True)
    assert answers(pool, REQUESTS) == alone(REQUESTS)


def test_a_process_that_hangs_while_it_is_idle_does_not_block_its_parent(make_pool, tmp_path):
    pool = make_pool("subprocess", watchdog=Watchdog(least_s=0.5))
    assert pool.has_room(REQUESTS[0])
    os.kill(opened(tmp_path)[0], signal.SIGSTOP)
    long = Request(request_id=1, prompt_ids=tuple(range(500_000)), max_new_tokens=1)
    began = time.monotonic()
    assert not pool.has_room(long)
    assert time.monotonic() - began < 60
    assert answers(pool, REQUESTS) == alone(REQUESTS)


class KillingLater:
    """Sends a signal while the block waits for a step."""

    def __init__(self, pid: int, number: int) -> None:
        self._pid, self._number = pid, number

    def _kill(self, *_: object) -> None:
        os.kill(self._pid, self._number)

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._kill)
        signal.setitimer(signal.ITIMER_REAL, BUSY_S / 2)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def test_a_child_ends_with_its_parent(tmp_path):
    """Also one that is stopped, which no closed pipe would tell."""
    reader, writer = os.pipe()
    if not (parent := os.fork()):
        engine = ChildEngine(partial(open_fake, tmp_path, "raise"), Watchdog(**QUICK), lambda _: None)
        os.kill(engine._process.pid, signal.SIGSTOP)
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    (child,) = opened(tmp_path)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_several_engines_share_a_queue_and_one_that_dies_takes_only_its_own(make_pool, tmp_path):
    pool = make_pool("subprocess", "kill", num_engines=2)
    requests = [*REQUESTS, Request(request_id=50, prompt_ids=(POISON,), max_new_tokens=9)]
    for request in requests:
        pool.admit(request)
    lost, done = set(), {}
    while pool.num_live:
        report = pool.step()
        lost |= {one for loss in report.losses for one in loss.request_ids}
        done |= {one.request_id: one for one in report.completions}
    assert (len(opened(tmp_path)), len(lost), 50 in lost) == (2, 4, True)
    assert done == {number: one for number, one in alone(REQUESTS).items() if number not in lost}


def test_several_engines_keep_what_is_apart_in_one_of_them(make_runner):
    """The others go on; the laws of one engine hold."""
    runner, repository_id = make_runner("subprocess", "kill", num_items=40, poison={5, 30}, num_engines=2)
    assert runner.drain() == "done"
    assert states(runner.store, repository_id) == {"chunk": {"done": 38, "parked": 2}}
    attempts = runner.store.db.execute("select sum(attempts) as n from item where state = 'done'").fetchone()["n"]
    assert attempts == 0


def test_waits_grow_and_differ_and_a_seed_tells_them():
    def waits(seed: int) -> list[float]:
        backoff = Backoff(first_s=2.0, most_s=100.0, random=random.Random(seed))
        return [backoff.wait_s(number) for number in range(100)]

    assert waits(1) == waits(1) != waits(2)
    assert all(
        whole / 2 <= wait <= whole for wait, whole in zip(waits(1), [2, 4, 8, 16, 32, 64, *[100] * 94], strict=True)
    )


@pytest.mark.parametrize("kind", HERE)
def test_the_embedded_model_writes_the_same_in_any_pool(make_pool, kind):
    requests = [Request(request_id=n, prompt_ids=tuple(range(5, 40 + n)), max_new_tokens=6) for n in range(3)]
    engine = open_engine(EMBEDDED, EngineOptions(numerics="exact", max_batch=4))
    expected = engine.generate([list(request.prompt_ids) for request in requests], 6)
    engine.close()
    done = answers(make_pool(kind, opener=open_embedded), requests)
    assert [list(done[number].token_ids) for number in range(3)] == expected


@pytest.fixture
def make_runner(make_pool, tmp_path):
    """A runner over a real queue, where some items are poison."""

    def make(kind: str, manner: str, *, num_items: int, poison: set[int], **options) -> tuple[Runner, int]:
        store, repository_id = queue(tmp_path / "work.db", num_items)
        store.db.execute("update item set max_new_tokens = 9")
        rows = store.db.execute("select id from item order by id").fetchall()
        for number in poison:
            ids = POISON.to_bytes(4, "little") + number.to_bytes(4, "little")
            store.db.execute("update prompt set token_ids = ? where item_id = ?", [ids, rows[number]["id"]])
        runner = Runner(
            store=store,
            pool=make_pool(kind, manner, **options),
            processor=Answers(),
            window=Window(),
            run_id=1,
            repository_ids=[repository_id],
            sync_pages=lambda _: SyncResult(),
            on_step=lambda _: None,
            num_open=lambda: open_items(store, [repository_id]),
            max_attempts=3,
            backoff=Backoff(first_s=0.01, most_s=0.05),
        )
        return runner, repository_id

    return make


@pytest.mark.parametrize(("kind", "manner"), DEATHS)
@pytest.mark.parametrize("poison", [{0}, {17}, {3, 4, 20}])
def test_poison_is_parked_and_costs_nobody_else_an_attempt(make_runner, kind, manner, poison):
    runner, repository_id = make_runner(kind, manner, num_items=24, poison=poison)
    assert runner.drain() == "done"
    assert states(runner.store, repository_id) == {"chunk": {"done": 24 - len(poison), "parked": len(poison)}}
    rows = runner.store.db.execute("select state, attempts, error, error_class from item order by id").fetchall()
    assert {number for number, row in enumerate(rows) if row["state"] == "parked"} == poison
    assert {row["attempts"] for row in rows if row["state"] == "done"} == {0}
    parked = {(row["attempts"], row["error"].partition(":")[0], row["error_class"]) for row in rows if row["attempts"]}
    assert parked == {(3, "the engine died", "bad-item")}
    assert runner.stats.engines_died <= len(poison) * (3 + 4), "three attempts, and halves of eight to find each"


def test_poison_that_hangs_is_parked(make_runner):
    watchdog = Watchdog(least_s=0.3, first_step_s=0.3, factor=2.0)
    runner, repository_id = make_runner("subprocess", "hang", num_items=6, poison={2}, watchdog=watchdog)
    assert runner.drain() == "done"
    assert states(runner.store, repository_id) == {"chunk": {"done": 5, "parked": 1}}


@pytest.mark.parametrize("error_class", [ErrorClass.BAD_MODEL, ErrorClass.BAD_MACHINE])
def test_a_bad_model_or_machine_ends_the_run_and_parks_nothing(make_runner, monkeypatch, error_class):
    def step(engine) -> StepReport:
        failures = [Failure(request_id=one, error="no number", error_class=error_class) for one in engine._live]
        engine._live.clear()
        return StepReport(failures=tuple(failures))

    monkeypatch.setattr(Engine, "step", step)
    runner, repository_id = make_runner("in process", "raise", num_items=9, poison=set())
    with pytest.raises(UnavailableError, match="no number; nothing was parked") as raised:
        runner.drain()
    assert (raised.value.exit_code, runner.stats.parked) == (69, 0)
    assert states(runner.store, repository_id) == {"chunk": {"ready": 9}}
    assert runner.store.db.execute("select sum(attempts) as n from item").fetchone()["n"] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_somebody_kills_costs_no_attempt_and_no_token(make_runner, tmp_path, number):
    watchdog = Watchdog(least_s=1.0, first_step_s=1.0, factor=2.0)
    runner, repository_id = make_runner("subprocess", "slow", num_items=16, poison=set(), watchdog=watchdog)
    seen = []

    def kill_once(progress) -> None:
        seen.append(sum(len(new.token_ids) for new in progress.report.new_tokens))
        if len(seen) == 3:
            os.kill(opened(tmp_path)[0], number)

    runner.on_step = kill_once
    assert runner.drain() == "done"
    assert states(runner.store, repository_id) == {"chunk": {"done": 16}}
    assert runner.store.db.execute("select sum(attempts) as n from item").fetchone()["n"] == 0
    assert (runner.stats.engines_died, sum(seen)) == (1, 16 * 5), "every token was generated once"
    assert len(opened(tmp_path)) == 2


@pytest.mark.parametrize("kind", [pytest.param("ray", marks=needs_ray)])
def test_an_engine_that_never_opens_on_its_node_ends_the_run(make_pool, kind):
    pool = make_pool(kind, opener=open_never, patience_s=0.0, watchdog=Watchdog(open_s=0.5))
    deadline = time.monotonic() + 60

    def wait_for_room() -> None:
        while not pool.has_room(REQUESTS[0]) and time.monotonic() < deadline:
            time.sleep(0.05)

    with pytest.raises(UnavailableError, match="ended before it could work: it did not open for 0 s"):
        wait_for_room()


@pytest.mark.parametrize("kind", [pytest.param("ray", marks=needs_ray)])
def test_a_node_that_joins_gets_the_engine_for_which_there_was_no_room(make_pool, ray_cluster, tmp_path, kind):
    num_nodes = len(ray_cluster.worker_nodes)
    whole_node = Placement(resources={RESOURCE: 2})
    pool = make_pool(kind, "slow", num_engines=num_nodes + 1, placement=whole_node, patience_s=0.0)
    ids, done, joined, deadline = itertools.count(), 0, None, time.monotonic() + 90
    while len(opened(tmp_path)) <= num_nodes and time.monotonic() < deadline:
        while pool.has_room(request := replace(REQUESTS[0], request_id=next(ids))):
            pool.admit(request)
        done += len(pool.step().completions)
        if done and joined is None:
            assert len(opened(tmp_path)) <= num_nodes
            joined = add_node(ray_cluster)
    pool.close()
    ray_cluster.remove_node(joined)
    assert len(opened(tmp_path)) == num_nodes + 1


@pytest.mark.parametrize("kind", [pytest.param("ray", marks=needs_ray)])
def test_an_engine_and_a_node_that_are_killed_cost_no_attempt_and_no_token(make_runner, ray_cluster, tmp_path, kind):
    """An engine dies, then the node of the other one: what both had goes on elsewhere, and is done once."""
    runner, repository_id = make_runner(kind, "slow", num_items=32, poison=set(), num_engines=2)
    seen = []

    def kill(progress) -> None:
        seen.append(sum(len(new.token_ids) for new in progress.report.new_tokens))
        if len(seen) == 2:
            os.kill(opened(tmp_path)[0], signal.SIGKILL)
        if len(seen) == 8:
            other = opened(tmp_path)[1]
            busy = next(node for node in ray_cluster.worker_nodes if other in engines_of(node))
            ray_cluster.remove_node(busy, allow_graceful=False)

    runner.on_step = kill
    assert runner.drain() == "done"
    assert states(runner.store, repository_id) == {"chunk": {"done": 32}}
    assert runner.store.db.execute("select sum(attempts) as n from item").fetchone()["n"] == 0
    assert sum(seen) == 32 * 5, "every token was reported once"
    assert runner.stats.engines_died >= 2
    lost = [(node.engines_lost, node.items_leased_again) for node in runner.stats.nodes.values()]
    assert sum(engines for engines, _ in lost) == runner.stats.engines_died
    assert sum(items for _, items in lost) >= 2
    assert sum(node.answers for node in runner.stats.nodes.values()) == 32


def test_what_an_engine_sends_for_a_lease_that_is_void_is_dropped(make_runner, kind):
    """Somebody leased an item anew while the engine answered it: its tokens and its answer are nobody's."""
    runner, repository_id = make_runner(kind, "slow", num_items=8, poison=set())
    held, void = [], []

    def take_away(progress) -> None:
        if not void and progress.report.new_tokens:
            item = progress.report.new_tokens[0].request_id
            held.append(partial_tokens(runner.store, item))
            void.extend(runner.store.renew([runner._claims[item]]))

    runner.on_step = take_away
    runner.drain()
    (claim,) = void
    assert states(runner.store, repository_id) == {"chunk": {"done": 7, "leased": 1}}
    assert held == [partial_tokens(runner.store, claim.item.id)] != [[]]
    keys = {row["key"] for row in runner.store.db.execute("select key from result")}
    assert (len(keys), claim.item.key in keys) == (7, False)


def partial_tokens(store, item: int) -> list[bytes]:
    rows = store.db.execute("select token_ids from partial where item_id = ? order by position", [item])
    return [row["token_ids"] for row in rows]


def test_a_run_writes_the_same_pages_wherever_its_engine_is(make_repository):
    root, pages = make_repository({"a.py": "def add(a, b):\n    return a + b\n"}), {}
    for place in ("in-process", "subprocess"):
        environment = os.environ | {"ROTARY_BATCH_ENGINE": place, "XDG_STATE_HOME": str(root.parent / place)}
        words = [sys.executable, "-m", "rotary_batch", "run", str(root)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        docs = root / "rotary-docs"
        pages[place] = {path.relative_to(docs): path.read_bytes() for path in docs.rglob("*") if path.is_file()}
        shutil.rmtree(docs)
    assert pages["in-process"] == pages["subprocess"]


def test_what_is_parked_is_listed_and_asked_again_by_class(make_repository):
    root = make_repository({"a.py": "def add(a, b):\n    return a + b\n"})

    def rotary(*words: str) -> str:
        arguments = [sys.executable, "-m", "rotary_batch", *words]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    rotary("index", str(root))
    assert rotary("status", "--parked") == "No item is parked.\n"
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(
            """update item set state = 'parked', attempts = 3, error = 'the engine died: SIGSEGV',
                      error_class = 'bad-item' where unit in ('chunk', 'symbol')"""
        )
    answer = json.loads(rotary("status", "--parked", "--json"))
    assert answer["by_class"] == {"bad-item": len(answer["parked"])}
    assert {(one["repository"], one["attempts"], one["error"]) for one in answer["parked"]} == {
        (str(root), 3, "the engine died: SIGSEGV")
    }
    assert "(bad-item, attempts: 3): the engine died: SIGSEGV" in " ".join(rotary("status", "--parked").split())
    assert json.loads(rotary("retry", "--class", "temporary", "--json")) == {"retried": 0}
    assert json.loads(rotary("retry", "--class", "bad-item", "--json")) == {"retried": len(answer["parked"])}
    assert rotary("status", "--parked") == "No item is parked.\n"
