"""The forecast of a run: against an oracle that takes every step, in the order of the queue, and against what happens."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.commands.expecting import expected
from rotary_batch.commands.forecasting import Forecast, Work, files_by, forecast, of_pace, paces
from rotary_batch.commands.groups import Group
from rotary_batch.commands.happened import happened
from rotary_batch.commands.simulation import simulate
from rotary_batch.commands.step_costs import Pace
from rotary_batch.config import Settings
from rotary_batch.core import Unit
from rotary_batch.model.manifest import Manifest
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.index import repositories
from rotary_batch.work.queued import Queued, answer_lengths, queued
from tests.in_process import drain_all, index_all

PACE = Pace(
    step_s=0.2,
    prompt_token_s=0.001,
    generated_token_s=0.01,
    step_tokens=1.0,
    most_prompt_tokens=300,
    read_share=1.0,
    full_batch=8,
    seconds=100.0,
)
FILES = {f"m{n}.py": f"def f{n}(a):\n    return {'a + ' * n}{n}\n" for n in range(12)}


def tree(seed: int, num_files: int) -> list[Queued]:
    """Files with chunks, and the repository, as planned: roll-ups first, which go before chunks once they are ready."""
    chance = random.Random(seed)
    chunks = []
    for file in range(num_files):
        for _ in range(chance.randint(1, 6)):
            tokens = chance.randint(20, 900)
            chunks.append(Queued(100 + len(chunks), Unit.CHUNK, f"f{file}", 1 + file, tokens, 160))
    files = [Queued(1 + file, Unit.FILE, f"f{file}", 0, 200, 200) for file in range(num_files)]
    return [Queued(0, Unit.REPOSITORY, "", None, 300, 300), *files, *chunks]


def stepwise(queue: list[Queued], lengths: dict[int, int], pace: Pace, batch: int) -> dict[int, float]:
    """When each item ends, by an engine that takes one step after the other."""
    order = {item.id: place for place, item in enumerate(queue)}
    open_children = {item.id: sum(child.parent_id == item.id for child in queue) for item in queue}
    waiting = [item for item in queue if not open_children[item.id]]
    reading: list[list[float]] = []  # [item, tokens left]
    writing: dict[int, int] = {}
    ended: dict[int, float] = {}
    at_s = 0.0
    while waiting or reading or writing:
        waiting.sort(key=lambda item: order[item.id])
        while waiting and len(reading) + len(writing) < batch:
            item = waiting.pop(0)
            reading.append([item.id, item.prompt_tokens])
        at_s += pace.step_s + len(writing) * pace.generated_token_s
        for item_id in list(writing):
            writing[item_id] -= 1
            if writing[item_id] <= 0:
                del writing[item_id]
                ended[item_id] = at_s
                parent = next((one for one in queue if one.id == queue[order[item_id]].parent_id), None)
                if parent is not None:
                    open_children[parent.id] -= 1
                    waiting += [parent] if not open_children[parent.id] else []
        room = pace.most_prompt_tokens
        while reading and room > 0:
            read = min(room, reading[0][1])
            room, reading[0][1], at_s = room - read, reading[0][1] - read, at_s + read * pace.prompt_token_s
            if reading[0][1] <= 0:
                item_id = int(reading.pop(0)[0])
                writing[item_id] = lengths[item_id]
    return ended


@pytest.mark.parametrize(("seed", "num_files", "batch"), [(1, 3, 1), (2, 40, 8), (3, 60, 32), (4, 5, 128)])
def test_virtual_time_is_near_that_of_an_engine_that_takes_every_step(seed, num_files, batch):
    queue = tree(seed, num_files)
    lengths = {unit: list(range(5, 45, 2)) for unit in Unit}
    ended = simulate(queue, lengths, PACE, batch)
    own = simulate_lengths(queue, lengths)
    oracle = stepwise(queue, own, PACE, batch)
    assert {queue[one.place].id for one in ended} == oracle.keys()
    assert ended[-1].at_s == pytest.approx(max(oracle.values()), rel=0.04)
    times = sorted(oracle.values())
    for share in (0.25, 0.5, 0.75):
        place = int(len(times) * share)
        assert ended[place].at_s == pytest.approx(times[place], rel=0.12)


def simulate_lengths(queue, lengths):
    from rotary_batch.commands.simulation import _answer_tokens

    return {item.id: round(tokens) for item, tokens in zip(queue, _answer_tokens(queue, lengths), strict=True)}


def test_without_costs_of_steps_the_whole_time_is_that_of_all_tokens():
    """So nothing is counted twice or forgotten, whatever the batch."""
    queue = tree(7, 30)
    lengths = {unit: list(range(3, 60)) for unit in Unit}
    pace = PACE._replace(step_s=0.0)
    tokens = sum(simulate_lengths(queue, lengths).values())
    wanted = sum(item.prompt_tokens for item in queue) * pace.prompt_token_s + tokens * pace.generated_token_s
    for batch in (1, 5, 1000):
        assert simulate(queue, lengths, pace, batch)[-1].at_s == pytest.approx(wanted)


def test_a_roll_up_ends_after_all_that_it_reads_and_equal_prompts_cost_nothing():
    queue = tree(9, 20)
    ended = {queue[one.place].id: one.at_s for one in simulate(queue, {}, PACE, 8)}
    assert all(ended[item.id] < ended[item.parent_id] for item in queue if item.parent_id is not None)
    answered = [item._replace(is_answered=True) for item in queue]
    assert {one.at_s for one in simulate(answered, {}, PACE, 8)} == {0.0}
    assert len(simulate(answered, {}, PACE, 8)) == len(queue)


def test_a_faster_machine_does_as_much_in_less_time():
    work = Work(queue=tree(11, 30), lengths={})
    slow, fast = (
        of_pace(work, PACE._replace(step_s=k * 0.2, prompt_token_s=k * 0.001, generated_token_s=k * 0.01), 8, "")
        for k in (1.0, 0.5)
    )
    assert fast.seconds == pytest.approx(slow.seconds / 2)
    assert [fast.items_by(s / 2) for s in range(0, 60, 7)] == [slow.items_by(s) for s in range(0, 60, 7)]
    assert slow.curve()[-1] == (round(slow.seconds, 1), len(work.queue))


def test_files_are_named_in_the_order_of_worth():
    found = Forecast(
        basis="", num_items=3, seconds=9.0, times=[3.0, 6.0, 9.0], items=[1, 2, 3], files={"b": 3.0, "a": 9.0, "c": 6.0}
    )
    assert files_by(found, 7.0) == {"files": 3, "done": 2, "first": ["b", "c"], "left": ["a"]}
    assert [found.items_by(s) for s in (2.9, 3.0, 8.0, 100.0)] == [0, 1, 2, 3]


def test_what_happened_is_held_against_the_forecast():
    told = {"seconds": 200.0, "curve": [[0.0, 0], [100.0, 50], [200.0, 60]]}
    stats = {"forecast": told, "drain_s": 150.0, "done": 48, "reused": 1, "parked_by_run": 1}
    assert happened(stats, is_done=False) == ("items", 55.0, 50)
    assert happened(stats, is_done=False).error == pytest.approx(0.1)
    assert happened(stats, is_done=True) == ("seconds", 200.0, 150.0)
    assert happened(stats | {"forecast": {}}, is_done=True) is None


def group_of(store, settings, tiny_pack) -> Group:
    return Group(tiny_pack, Manifest.load(tiny_pack), settings, list(repositories(store)))


def test_a_run_tells_the_next_one_how_fast_it_will_be(make_repository, tiny_pack, tmp_path):
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    first, second = (make_repository(FILES, name=name) for name in ("one", "two"))
    with writing(settings) as store:
        index_all(store, settings, first)
        group = group_of(store, settings, tiny_pack)
        assert forecast(store, group) is None
        assert expected(store, group, 60.0, None) == {}
        # What is forecast of the queue is in the order in which it is claimed.
        order = [one.id for one in queued(store, [1]) if not one.unit.is_rollup]
        claims = store.claim(0, limit=100, now=1e9, repository_ids=[1])
        assert [claim.item.id for claim in claims] == order
        store.release([claim.lease for claim in claims])
        (report,) = drain_all(store, settings, [first], lambda: FakeEngine(answer_tokens=6, max_batch=4))
        assert report.stats["forecast"] == {}
        assert report.stats["pace"]["full_batch"] == 4
        lengths = answer_lengths(store, report.model, ["summarize"])
        assert [*lengths[Unit.SYMBOL], *lengths.get(Unit.CHUNK, [])] == [6] * len(order)

        index_all(store, settings, second)
        group = replace(group, rows=[row for row in repositories(store) if row.root == str(second)])
        (known,) = paces(store, group)
        assert known.engine == ("exact", "bf16", 0)
        told = expected(store, group, 3600.0, None)
        # All prompts of the second were answered in the first, but for those that name it.
        num_open = counts.open_items(store, [2]) + counts.expected_parts(store, [2])
        assert told["items_by_deadline"] == told["expected"]["items"] == num_open
        assert told["expected"]["files_by_deadline"]["done"] == 12
        (report,) = drain_all(store, settings, [second], lambda: FakeEngine(answer_tokens=6, max_batch=4))
        assert report.stats["forecast"]["items"] == told["expected"]["items"]
        assert report.stats["forecast"]["basis"] == known_basis(known)
        assert happened(report.stats, is_done=True).what == "seconds"


def known_basis(known) -> str:
    return f"the run that ended {known.at}"


def test_another_setting_that_was_faster_is_what_would_help(make_repository, tiny_pack, tmp_path):
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    root = make_repository(FILES)
    with writing(settings) as store:
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: FakeEngine(answer_tokens=6), Window(max_items=4))
        rows = store.db.execute("select id, tally from run").fetchall()
        for numerics, step_s in (("exact", 1.0), ("fast", 0.25)):
            costs = {"step_s": step_s, "prompt_token_s": step_s / 100, "generated_token_s": step_s / 10}
            tally = json.loads(rows[0]["tally"])
            tally |= {"numerics": numerics, "pace": tally["pace"] | costs | {"seconds": 100.0, "opening_s": 0.0}}
            store.db.execute(
                """insert into run (started_at, ended_at, pid, command, model_name, outcome, tally)
                   select started_at, ended_at, pid, command, model_name, outcome, ? from run where id = ?""",
                [json.dumps(tally), rows[0]["id"]],
            )
        told = expected(store, group_of(store, settings, tiny_pack), 20.0, None)
        (help_,) = told["expected"]["helps"]
        assert (help_["change"], help_["gain"], help_["source"]) == ("--numerics fast", 4.0, "an earlier run")
        assert help_["items_by_deadline"] > told["items_by_deadline"]
        assert told["expected"]["items"] == counts.open_items(store, [1]) + counts.expected_parts(store, [1])
