"""What a command shows while it works: the parts of the line, and how many of them fit."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rotary_batch import console
from rotary_batch.cli import progress
from rotary_batch.cli.progress import MIN_BAR, Display, percent, shown_progress, stops
from rotary_batch.commands.meter import Reading

NOON = datetime(2026, 11, 27, 12, 4)  # noqa: DTZ001 - the wall clock of the person
READING = Reading(
    share=0.386, num_done=269, num_items=718, tokens_per_s=1240.4, bound_share=0.614, left_s=330, stops_in_s=68160
)
READINGS = st.builds(
    Reading,
    share=st.floats(0, 1),
    num_done=st.integers(0, 10**6),
    num_items=st.integers(10**6, 10**7),
    tokens_per_s=st.floats(0, 1e6),
    bound_share=st.none() | st.floats(0, 1),
    left_s=st.none() | st.floats(0, 1e6),
    stops_in_s=st.none() | st.floats(0, 1e5),
    max_items=st.none() | st.integers(1, 10**5),
)


def display() -> Display:
    return Display("reading files", is_live=True, quiet=False)


def test_a_wide_terminal_shows_all_and_a_narrow_one_what_matters_most():
    shown = display()
    shown.reading(READING)
    stop = stops(READING, datetime.now())  # noqa: DTZ005
    lines = {width: shown.bar_line(width) for width in (110, 80, 72, 59, 40)}
    assert {line.before for line in lines.values()} == {"answering"}
    assert lines[110].after == f"38 %  269/718 items  1,240 tok/s  61 % of the bound  6 min left  {stop}"
    assert lines[80].after == f"38 %  269/718 items  1,240 tok/s  6 min left  {stop}"
    assert lines[72].after == f"38 %  269/718  1,240 tok/s  6 min left  {stop}"
    assert lines[59].after == f"38 %  269/718  6 min left  {stop}"
    assert lines[40].after == "38 %  6 min left"


@given(READINGS, st.integers(59, 200))
def test_there_is_room_for_a_bar_from_60_columns_on(reading, width):
    shown = display()
    shown.reading(reading)
    line = shown.bar_line(width)
    assert len(line.before) + len(line.after) + 2 + MIN_BAR <= width
    assert line.after.startswith(percent(reading.share))


@given(READINGS)
def test_a_hundred_percent_is_all_of_it(reading):
    assert percent(reading.share) != "100 %" or reading.share == 1.0


def test_lines_without_a_terminal():
    shown = display()
    assert shown.text_line(NOON) == "12:04 reading files"
    shown.count(30, 400)
    assert shown.text_line(NOON) == "12:04 reading files 30/400"
    shown.reading(READING)
    assert shown.text_line(NOON) == "12:04 38 % 269/718, 6 min left, stops Sat 07:00"
    shown.reading(Reading(share=0.0, num_done=0, num_items=9, tokens_per_s=0, bound_share=None, left_s=None))
    assert shown.text_line(NOON) == "12:04 0 % 0/9, estimating"


def test_times_are_rounded_up_and_short():
    texts = {seconds: console.time_left(seconds) for seconds in (0, 30, 31, 60, 61, 3540, 3541, 3900, 86400)}
    assert texts == {
        0: "under 1 min left",
        30: "under 1 min left",
        31: "1 min left",
        60: "1 min left",
        61: "2 min left",
        3540: "59 min left",
        3541: "1 h 00 min left",
        3900: "1 h 05 min left",
        86400: "24 h 00 min left",
    }


def test_a_line_at_once_and_then_one_now_and_then_even_while_nothing_is_reported(capsys):
    with shown_progress("opening the model", every_s=0.05):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert {line[5:] for line in lines} == {" opening the model"}


def test_each_phase_begins_with_a_line_and_quiet_says_nothing(capsys):
    for quiet in (False, True):
        with shown_progress("reading files", quiet=quiet) as shown:
            shown.count_in("reading files", 1, 9)
            shown.phase("opening the model")
            shown.reading(READING)
            shown.reading(READING)
            shown.tell("told")
    lines = capsys.readouterr().err.splitlines()
    assert [line[5:] for line in lines[:2]] == [" reading files", " opening the model"]
    assert lines[2][5:].startswith(" 38 % 269/718, 6 min left")
    assert lines[3:] == ["told"]


def test_a_deadline_does_not_move_while_a_step_takes_minutes(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0)
    shown = display()
    shown.reading(READING)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0 + 240)
    assert shown.text_line(NOON + timedelta(minutes=4)) == "12:08 38 % 269/718, 6 min left, stops Sat 07:00"
