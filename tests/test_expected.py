"""Items that will be queued late are counted from the first step on, everywhere alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.commands.database import writing
from rotary_batch.commands.status import status
from rotary_batch.commands.watching import Watcher
from rotary_batch.config import Settings
from rotary_batch.core import Unit
from rotary_batch.planner.prompt_builder import _runs
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.expected import Expected, NoteRoom, expected, of_notes
from tests.in_process import drain_all, index_all

JOB = """
[job]
name = "summarize"
[chunk]
prompt = "chunk"
chunk_tokens = 400
new_tokens = 8
[directory]
prompt = "directory"
part = "part"
prompt_tokens = 700
new_tokens = 8
[file]
prompt = "file"
part = "part"
prompt_tokens = 700
new_tokens = 8
[repository]
prompt = "repository"
part = "part"
prompt_tokens = 700
new_tokens = 8
"""


@given(num_notes=st.integers(0, 500), note_tokens=st.integers(1, 60), notes_tokens=st.integers(120, 900))
def test_as_many_parts_are_expected_as_notes_of_one_length_are_cut_into(num_notes, note_tokens, notes_tokens):
    room, parts, read = NoteRoom(100, notes_tokens), 0, num_notes
    while num_notes * note_tokens > notes_tokens:
        num_notes = len(list(_runs([note_tokens] * num_notes, notes_tokens)))
        parts, read = parts + num_notes, read + num_notes
    before = read - parts
    assert of_notes(before, note_tokens, room) == Expected(parts, (1 + parts) * 100 + read * note_tokens)


def test_notes_that_fill_a_prompt_each_are_expected_in_twos_and_without_a_room_in_one_prompt():
    assert of_notes(5, 100.0, NoteRoom(10, 0)) == Expected(3 + 2, 6 * 10 + 10 * 100.0)
    assert of_notes(4, 100.0, None) == Expected(0, 400.0)


@pytest.fixture
def night(make_repository, tiny_pack, tmp_path, monkeypatch):
    """(store, settings, root) of an indexed repository; the queue is read again after every step."""
    monkeypatch.setattr("rotary_batch.commands.watching.READ_QUEUE_EVERY_S", 0.0)
    monkeypatch.setattr("rotary_batch.commands.watching._READ_SHARE", 1e9)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(JOB)
    code = {f"pkg/module_{n:02}.py": f'"""Module number {n}."""\nX = {n}\n' for n in range(40)}
    root = make_repository(code)
    settings = Settings(model=tiny_pack, jobs=tmp_path / "jobs", db=tmp_path / "work.db")
    with writing(settings) as store:
        index_all(store, settings, root)
        yield store, settings, root


def test_a_run_status_and_the_report_know_from_the_start_how_many_items_there_will_be(night):
    store, settings, root = night
    (before,) = status(store, settings, [])["repositories"]
    assert (before["items"]["directory"], before["all"]) == ({"expected": 4, "waiting": 1}, 40 + 40 + 5 + 1)

    readings = []
    watcher = Watcher(reading=readings.append)
    (stopped,) = drain_all(store, settings, [root], FakeEngine, Window(max_items=20), watcher)
    (half,) = status(store, settings, [])["repositories"]
    assert (stopped.items, stopped.answered) == (half["all"], half["done"]) == (86, 20)
    (done,) = drain_all(store, settings, [root], FakeEngine, watcher=watcher)
    (after,) = status(store, settings, [])["repositories"]
    assert (done.items, done.answered, after["all"], after["done"]) == (85, 85, 85, 85)  # its notes were a bit shorter
    assert "expected" not in str(after["items"])

    numbers = [one.num_items for one in readings]
    assert set(numbers) == {86, 85}
    assert numbers == sorted(numbers, reverse=True)
    shares = [one.share for one in readings[len(readings) // 2 :]]
    assert (shares, shares[-1]) == (sorted(shares), 1.0)
    assert all(share < 1 for share in shares[:-1])


def test_what_is_left_has_the_prompts_and_answers_of_items_that_will_be_queued_late(night):
    store, _, _ = night
    late = expected(store, [1])
    work = {one.unit: one for one in counts.unit_work(store, [1])}
    folder = work[Unit.DIRECTORY]
    assert (folder.num_open, folder.num_levels) == (1 + late[Unit.DIRECTORY].num_parts, 2) == (5, 2)
    assert {unit: one.unknown_tokens for unit, one in work.items()} == {
        Unit.CHUNK: 0.0,
        **{unit: one.prompt_tokens for unit, one in late.items()},
    }
    workload = counts.workload(store, [1], 1000)
    asked = sum(one.prompt_tokens + one.unknown_tokens for one in work.values())
    assert (workload.num_items, workload.prompt_tokens) == (86, pytest.approx(asked / 86))
    assert counts.tokens_left(store, [1]) == int(asked + 86 * 8)
    open_tokens = counts.open_tokens(store, 1)
    assert open_tokens["directory"] == {
        "items": 5,
        "unknown": 5,
        "prompt_tokens": 0,
        "shared_tokens": 0,
        "new_tokens": 40,
    }
