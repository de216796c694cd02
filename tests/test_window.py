"""Windows: what time of day a night ends at, wherever clocks are changed, and who closes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rotary_batch import window
from rotary_batch.errors import StoppedError, StorageError, UsageError
from rotary_batch.testing import FrozenClock
from rotary_batch.window import (
    Clocks,
    Deadline,
    Window,
    deadlines,
    explain_stop,
    hours_of_day,
    next_instant,
    open_window,
    seconds_for,
    stop_on_signals,
    time_of_day,
)

# A zone and the hour (UTC) of a change of its clocks.
CHANGES = {
    "Europe/Berlin": ["2026-03-29 01:00", "2026-10-25 01:00"],
    "America/New_York": ["2026-03-08 07:00", "2026-11-01 06:00"],
    "Australia/Lord_Howe": ["2026-04-04 15:00", "2026-10-03 15:30"],  # half an hour
    "Africa/Casablanca": ["2026-02-15 02:00", "2026-03-22 02:00"],  # back for Ramadan
    "America/Sao_Paulo": ["2017-10-15 03:00", "2018-02-18 02:00"],  # at midnight
    "Asia/Kathmandu": ["1985-12-31 18:30"],  # a quarter of an hour, for good
    "Asia/Gaza": ["2023-04-28 22:00", "2023-10-28 00:00"],
    "America/St_Johns": ["2010-03-14 03:31", "2010-11-07 02:31"],  # a minute past midnight
    "Antarctica/Troll": ["2026-03-29 01:00", "2026-10-25 01:00"],  # two hours
    "Pacific/Apia": ["2011-12-30 10:00", "2012-03-31 14:00"],  # a whole day that was not
    "Pacific/Kwajalein": ["1993-08-21 12:00"],
    "UTC": ["2026-03-29 01:00"],
}
TARGETS = [
    (0, 0),
    (0, 1),
    (0, 30),
    (1, 0),
    (1, 30),
    (1, 45),
    (2, 0),
    (2, 15),
    (2, 30),
    (2, 59),
    (3, 0),
    (7, 0),
    (12, 34),
    (23, 0),
    (23, 59),
]
STARTS_MIN = [
    -1500,
    -1440,
    -721,
    -180,
    -121,
    -90,
    -61,
    -60,
    -59,
    -31,
    -30,
    -29,
    -2,
    -1,
    0,
    1,
    15,
    29,
    30,
    59,
    60,
    61,
    90,
    121,
    400,
]


def minute_by_minute(zone: ZoneInfo, start: datetime) -> dict[tuple[int, int], datetime]:
    """Watch a wall clock for two days and more: when each time of day is first shown, or jumped over."""
    first_instants: dict[tuple[int, int], datetime] = {}
    instant = start
    shown = start.astimezone(zone).replace(tzinfo=None)
    while len(first_instants) < 1440:
        instant += timedelta(minutes=1)
        expected, shown = shown + timedelta(minutes=1), instant.astimezone(zone).replace(tzinfo=None)
        passed = min(expected, shown) if shown > expected else shown
        while passed <= shown:
            first_instants.setdefault((passed.hour, passed.minute), instant)
            passed += timedelta(minutes=1)
    return first_instants


@pytest.mark.parametrize("name", CHANGES)
def test_a_night_ends_when_the_clock_first_shows_the_hour_or_is_set_past_it(name):
    """7,875 cases against a scan of the wall clock, around every kind of change that a zone ever made."""
    zone = ZoneInfo(name)

    def show(at: float) -> datetime:
        return datetime.fromtimestamp(at, zone).replace(tzinfo=None)

    for change in CHANGES[name]:
        for minutes in STARTS_MIN:
            start = datetime.fromisoformat(change).replace(tzinfo=UTC) + timedelta(minutes=minutes)
            truth = minute_by_minute(zone, start)
            for hour, minute in TARGETS:
                instant = datetime.fromtimestamp(next_instant(hour, minute, start.timestamp(), show), UTC)
                assert instant == truth[hour, minute], (name, start, hour, minute)


@pytest.mark.parametrize(
    ("now", "until", "hours"),
    [
        ("2026-11-23 23:00", "07:00", 8),
        ("2026-11-24 06:00", "07:00", 1),
        ("2026-11-24 07:00", "07:00", 24),
        ("2026-03-28 23:00", "07:00", 7),
        ("2026-10-24 23:00", "07:00", 9),
        ("2026-11-24 06:59:59.5", "7:00", 0.5 / 3600),
        ("2026-03-29 01:00", "02:30", 1),  # skipped: at the end of the gap
    ],
)
def test_a_time_of_day_is_one_of_the_machines_own_zone(now, until, hours, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        at = datetime.fromisoformat(now).timestamp()
        assert next_instant(*time_of_day(until), at) - at == pytest.approx(hours * 3600, abs=1e-6)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_durations_and_times_are_read():
    assert [seconds_for(text) for text in ("90s", "30m", "1h30m")] == [90, 1800, 5400]
    for text in ("", "5", "m5", "-5m", "5m ", "\u0665m", "9" * 5000 + "h"):
        with pytest.raises(UsageError):
            seconds_for(text)
    for text in ("", "7", "24:00", "07:60", "07:00:00", "7:0", "\u0660\u0667:00"):
        with pytest.raises(UsageError):
            time_of_day(text)


def test_a_window_closes_when_its_first_deadline_is_over_and_says_why():
    first, second = FrozenClock(), FrozenClock(1000.0)
    window = Window(deadlines=[Deadline(10.0, first), Deadline(1020.0, second)])
    window.check()
    assert (window.seconds_left, window.why_closed(), window.is_closed()) == (10.0, None, False)
    second.now = 1015.0
    assert window.seconds_left == 5.0
    second.now = 1020.0
    assert (window.why_closed(), window.is_closed()) == ("deadline", True)
    with pytest.raises(StoppedError, match="deadline: stopped before the work was done"):
        window.check()
    assert (Window().seconds_left, Window().why_closed()) == (None, None)


def test_a_duration_counts_suspension_and_no_step_of_the_clock_a_time_of_day_follows_it(monkeypatch):
    """The machine sleeps for an hour, or a time server sets it forward by one: `--until` is nearer, `--for` by sleep only."""
    wall, boot = FrozenClock(1_800_000_000.0), FrozenClock(500.0)
    monkeypatch.setattr(window.time, "time", wall)
    monkeypatch.setattr(window.time, "clock_gettime", lambda which: boot.now if which == time.CLOCK_BOOTTIME else None)
    span, day = (
        Window(deadlines=deadlines(**asked))
        for asked in (
            {"until": None, "duration": "2h"},
            {"until": "07:00", "duration": None},
        )
    )
    whole = day.seconds_left
    wall.now += 3600
    assert (span.seconds_left, day.seconds_left) == (7200, whole - 3600)
    wall.now, boot.now = wall.now + 3600, boot.now + 3600
    assert (span.seconds_left, day.seconds_left) == (3600, whole - 7200)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_a_window_that_is_finishing_and_says_so(number, capfd):
    before, window = signal.getsignal(number), Window()
    with stop_on_signals(window), window.finishing("finishing"):
        os.kill(os.getpid(), number)
        assert window.why_closed() == "interrupted"
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError), window.at_once():
            pytest.fail("the window is closed")
    assert (signal.getsignal(number), capfd.readouterr().err) == (before, "finishing\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_elsewhere_a_signal_stops_at_once_and_only_the_first(number):
    before, reached = signal.getsignal(number), []

    def work():
        with stop_on_signals(Window()):
            try:
                os.kill(os.getpid(), number)
                reached.append("the next line")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append("the end of what must not be cut short")

    with pytest.raises(StoppedError, match="interrupted: stopped before the work was done; `rotary-batch"):
        work()
    assert (signal.getsignal(number), reached) == (before, ["the end of what must not be cut short"])


def test_a_signal_while_an_engine_is_opened_stops_there():
    window = Window()

    def open_engine():
        with window.at_once():
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

    with stop_on_signals(window), window.finishing("not said"):
        with pytest.raises(StoppedError):
            open_engine()
        assert window.answer == "not said"


def test_what_an_interrupt_broke_says_that_it_was_one():
    window = Window()

    def work():
        with explain_stop(window):
            window.interrupted = True
            raise StorageError("git ended")

    with pytest.raises(StoppedError):
        work()


def make_class_that_is_interrupted() -> None:
    """As an import may be: up to Python 3.11, what comes out of `__set_name__` becomes a RuntimeError."""

    class Descriptor:
        def __set_name__(self, owner, name):
            os.kill(os.getpid(), signal.SIGINT)

    type("Tin", (), {"lid": Descriptor()})


@pytest.mark.parametrize("wrap", [lambda window: window.at_once(), explain_stop, lambda window: nullcontext()])
def test_an_interrupt_that_became_another_error_is_one(wrap):
    window = Window()

    def work():
        with stop_on_signals(window), wrap(window):
            make_class_that_is_interrupted()

    with pytest.raises(StoppedError, match="interrupted: stopped"):
        work()


def test_another_error_after_an_interrupt_is_none():
    def work():
        with stop_on_signals(window := Window()), window.finishing(""):
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        work()


def test_an_interrupt_that_became_another_error_before_there_is_a_window():
    script = (
        "import os, signal; from rotary_batch import interrupts, process\n"
        "class Descriptor:\n  def __set_name__(self, owner, name): os.kill(os.getpid(), signal.SIGINT)\n"
        "def command():\n  interrupts.unwind()\n  type('Tin', (), {'lid': Descriptor()})\n"
        "process.guarded(command)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (75, 1), done.stderr
    assert "stopped before the work was done" in done.stderr


def test_a_second_interrupt_ends_at_once():
    script = (
        "import os, signal, sys; from rotary_batch.window import Window, stop_on_signals\n"
        "sys.argv = ['rotary-batch', 'run', 'a b']\nwindow = Window()\n"
        "with stop_on_signals(window), window.finishing('once'):\n"
        "  for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n  print('on')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said = "rotary-batch: quit at once; nothing stored is lost, and `rotary-batch run 'a b'` continues"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"once\n{said} from there\n")


def berlin(at: float) -> datetime:
    return datetime.fromtimestamp(at, ZoneInfo("Europe/Berlin")).replace(tzinfo=None)


def hours_left(now: str, hours: str) -> float | None:
    """Hours until `--window` ends for a command that is started then; None = it is refused."""
    at = datetime.fromisoformat(now).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    clock = FrozenClock(at)
    try:
        window = open_window(until=None, duration=None, hours=hours, clocks=Clocks(clock, clock, berlin))
    except StoppedError:
        return None
    return window.seconds_left and window.seconds_left / 3600


@pytest.mark.parametrize(
    ("now", "hours", "left"),
    [
        ("2026-11-24 23:00", "23:00-07:00", 8),
        ("2026-11-24 22:59:59", "23:00-07:00", None),
        ("2026-11-25 03:00", "23:00-07:00", 4),
        ("2026-11-25 07:00", "23:00-07:00", None),
        ("2026-11-25 12:00", "09:00-17:00", 5),
        ("2026-11-25 17:00", "9:00-17:00", None),
        ("2026-03-28 23:00", "23:00-07:00", 7),  # the night of summer time
        ("2026-10-24 23:00", "23:00-07:00", 9),
        ("2026-03-29 01:59", "02:10-02:50", None),  # the hours are skipped that night
        ("2026-03-29 01:59", "01:30-02:30", 1 / 60),
        ("2026-10-25 02:30", "02:00-03:00", 1.5),  # shown twice: the first time
    ],
)
def test_hours_of_the_day_are_checked_at_the_start(now, hours, left):
    assert hours_left(now, hours) == (None if left is None else pytest.approx(left))


def test_outside_the_hours_a_command_says_so_and_bad_hours_are_refused():
    clock = FrozenClock(datetime(2026, 11, 25, 10, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    with pytest.raises(StoppedError) as stopped:
        open_window(until="07:00", duration=None, hours="23:00-7:00", clocks=Clocks(clock, clock, berlin))
    assert str(stopped.value) == (
        "--window: it is 10:00, outside 23:00-7:00; nothing was done, and the same command works from 23:00 on"
    )
    for text in ("", "23:00", "23:00-", "7-8", "23:00-24:00", "07:00-07:00", "7:00-07:00", "1:00-2:00-3:00"):
        with pytest.raises(UsageError, match="is not two times of day"):
            hours_of_day(text)


def test_nothing_new_begins_when_fewer_than_two_steps_fit_before_the_deadline():
    clock = FrozenClock()
    window = Window(deadlines=[Deadline(100.0, clock)])
    assert [window.is_closing(step_s) for step_s in (0.0, 50.0, 50.1)] == [False, False, True]
    assert not Window().is_closing(1e9)


def test_outside_its_hours_a_service_has_begun_and_ends_with_75(tmp_path):
    """systemd counts a service of Type=notify as failed when it ends before READY=1, also with exit code 75."""
    address, now = str(tmp_path / "notify"), datetime.now()  # noqa: DTZ005 - the clock that the program reads
    hours = f"{(now.hour + 11) % 24:02}:00-{(now.hour + 13) % 24:02}:00"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(1)
        done = subprocess.run(
            [sys.executable, "-m", "rotary_batch", "run", ".", "--window", hours],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"NOTIFY_SOCKET": address},
        )
        assert "READY=1" in systemd.recv(1000).decode()
    assert (done.returncode, done.stdout) == (75, "")
    assert f", outside {hours}; nothing was done" in done.stderr
    assert not list(tmp_path.glob("*.db"))
