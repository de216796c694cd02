"""When a run stops is said in words at its start, and a deadline that is a slip is questioned."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rotary_batch.cli.deadline import announce_deadline, deadline_text
from rotary_batch.testing import FrozenClock
from rotary_batch.window import Deadline, Window, open_window


@pytest.fixture(autouse=True)
def _berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_deadline_in_words():
    now = datetime(2026, 11, 27, 9, 40, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert deadline_text(76_800.0, now) == "until Sat 28 Nov 07:00, in 21 h 20 min"
    assert deadline_text(1800 - 1e-6, now) == "until Fri 27 Nov 10:10, in 30 min"
    # the night on which clocks are set back has an hour more
    saturday = datetime(2026, 10, 24, 22, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert deadline_text(10 * 3600.0, saturday) == "until Sun 25 Oct 07:00, in 10 h"


@pytest.mark.parametrize(
    ("until", "duration", "hours", "warning"),
    [
        ("07:00", None, 23.9, "did you mean --until 19:00, or --for 8h?"),
        ("19:30", None, 17, "did you mean --until 07:30, or --for 8h?"),
        (None, "90h", 90, "did you mean --for 90m?"),
        (None, "1440m", 24, "did you mean --for 8h?"),
        ("07:00", None, 15.9, None),
        (None, "8h", 8, None),
    ],
)
def test_more_than_sixteen_hours_may_be_a_slip(until, duration, hours, warning, capsys):
    clock = FrozenClock()
    window = Window(deadlines=[Deadline(clock() + hours * 3600, clock)])
    announce_deadline(window, until=until, duration=duration)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("until ")
    assert rest == ([f"warning: that is more than 16 hours away; {warning}"] if warning else [])


def test_no_deadline_no_words(capsys):
    announce_deadline(open_window(until=None, duration=None), until=None, duration=None)
    assert capsys.readouterr() == ("", "")
