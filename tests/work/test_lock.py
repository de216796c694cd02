"""Locks: only another driver can refuse a driver, whoever looks at the same time; nothing of others is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.errors import BusyError, ConfigError, StorageError
from rotary_batch.work.lock import device_lock, driver_lock, holder, recovery_lock

HOLD = (
    "import sys, time; from pathlib import Path; from rotary_batch.work.lock import driver_lock\n"
    "with driver_lock(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(60)"
)
# Readers ask until they are stopped, and then say all that they were told.
READ = (
    "import signal, sys; from pathlib import Path; from rotary_batch.work.lock import holder\n"
    "go = [True]; signal.signal(signal.SIGTERM, lambda *_: go.clear()); told = set(); print('up', flush=True)\n"
    "while go: told |= {holder(Path(sys.argv[1])) for _ in range(50)}\n"
    "print(*told, flush=True)"
)
# A rival takes the lock over and over; the file that it makes inside must not be there yet.
RIVAL = (
    "import os, signal, sys; from pathlib import Path; from rotary_batch.errors import BusyError\n"
    "from rotary_batch.work.lock import driver_lock\n"
    "go = [True]; signal.signal(signal.SIGTERM, lambda *_: go.clear()); won = 0; print('up', flush=True)\n"
    "while go:\n"
    "  try:\n"
    "    with driver_lock(Path(sys.argv[1])):\n"
    "      os.close(os.open(sys.argv[1] + '.inside', os.O_CREAT | os.O_EXCL)); os.unlink(sys.argv[1] + '.inside')\n"
    "      won += 1\n"
    "  except BusyError as error: assert f'process {os.getppid()}' in str(error), error\n"
    "print(won, flush=True)"
)


def start(script: str, database: Path) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", script, str(database)], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    return child


def stop(child: subprocess.Popen) -> str:
    child.send_signal(signal.SIGTERM)
    told, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return told


def race(database: Path, tries: int) -> tuple[int, int]:
    """Take and give back the lock while two readers and a rival do what they do; who won how often."""
    readers, rival, won = [start(READ, database) for _ in range(2)], start(RIVAL, database), 0
    inside, refusals = Path(f"{database}.inside"), set()
    for _ in range(tries):
        try:
            with driver_lock(database):
                inside.touch(exist_ok=False)
                inside.unlink()
                won += 1
        except BusyError as error:
            refusals.add(str(error))
    lost = int(stop(rival))
    assert all(f"process {rival.pid}" in refusal for refusal in refusals), "only the other driver can refuse one"
    for _ in range(tries):
        with driver_lock(database):  # among readers alone nothing is ever refused
            assert holder(database) == os.getpid()
    told = {word for reader in readers for word in stop(reader).split()}
    assert told <= {"None", str(os.getpid()), str(rival.pid)}
    assert len(told) > 1, "the readers saw the lock held"
    return won, lost


def test_only_a_driver_refuses_a_driver_whoever_reads_at_the_same_time(tmp_path):
    assert sum(race(tmp_path / "work.db", 400)) > 0, "one of them always may"


@pytest.mark.faults
def test_only_a_driver_refuses_a_driver_in_ten_thousand_tries(tmp_path):
    assert sum(race(tmp_path / "work.db", 10_000)) > 0


def test_a_driver_waits_for_a_reader_that_recovers_and_no_reader_recovers_beside_a_driver(tmp_path):
    database = tmp_path / "work.db"
    reader = start(HOLD.replace("driver_lock", "recovery_lock").replace("time.sleep(60)", "time.sleep(2)"), database)
    assert holder(database) is None, "a reader is no driver"
    with pytest.raises(BusyError, match=f"process {reader.pid}"), recovery_lock(database):
        pass
    with driver_lock(database):
        assert reader.poll() is not None or reader.wait(timeout=60) == 0
        refused = subprocess.run(
            [sys.executable, "-c", HOLD.replace("driver_lock", "recovery_lock"), str(database)],
            capture_output=True,
            text=True,
        )
        assert f"another run holds this database (process {os.getpid()})" in refused.stderr
    reader.communicate()


def test_a_recovery_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("rotary_batch.work.lock.RECOVERY_PATIENCE_S", 0.2)
    reader = start(HOLD.replace("driver_lock", "recovery_lock"), tmp_path / "work.db")
    with (
        pytest.raises(BusyError, match=f"a reader still takes back .*process {reader.pid}"),
        driver_lock(tmp_path / "work.db"),
    ):
        pass
    reader.kill()
    reader.communicate()
    with driver_lock(tmp_path / "work.db"):
        pass


def test_a_database_has_one_lock_whatever_link_names_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "work.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "folder" / "work.db")
    (tmp_path / "other").symlink_to(tmp_path / "folder")
    child = start(HOLD, tmp_path / "link.db")
    for path in (tmp_path / "folder" / "work.db", tmp_path / "other" / "work.db"):
        assert holder(path) == child.pid
        with pytest.raises(BusyError, match=f"process {child.pid}"), driver_lock(path):
            pass
    child.kill()
    child.communicate()


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    database = tmp_path / "work.db"
    assert holder(database) is None
    assert list(tmp_path.iterdir()) == []
    child = start(HOLD, database)
    with pytest.raises(BusyError, match=f"process {child.pid}"), driver_lock(database):
        pass
    assert holder(database) == child.pid
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert holder(database) is None
    with driver_lock(database):
        assert holder(database) == os.getpid()
        with pytest.raises(BusyError, match=f"process {os.getpid()}"), driver_lock(database):
            pass
        child = start(
            "print()\n" + HOLD.replace("print('held', flush=True); time.sleep(60)", "print('wrong')"), database
        )
        child.communicate()
        assert child.returncode == 1, "looking at our own lock did not give it up"
    assert holder(database) is None
    assert (tmp_path / "work.db.lock").read_bytes() == b""


def test_what_goes_wrong_inside_is_not_called_busy(tmp_path):
    with pytest.raises(BlockingIOError), driver_lock(tmp_path / "work.db"):
        raise BlockingIOError(11, "a pipe is full")
    assert holder(tmp_path / "work.db") is None


@pytest.mark.parametrize("kind", ["text", "link", "dangling", "folder", "pipe", "long number"])
def test_what_is_not_our_lock_is_left_alone(kind, tmp_path):
    path, precious = tmp_path / "work.db.lock", tmp_path / "precious.txt"
    precious.write_text("mine\n")
    match kind:
        case "text":
            path.write_text("{}\n")
        case "link":
            path.symlink_to(precious)
        case "dangling":
            path.symlink_to(tmp_path / "none")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "long number":
            path.write_text("12345678901")
    before = sorted((p.name, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tmp_path.iterdir())
    words = r"work\.db\.lock: (not a plain file|has content).*left alone"
    with pytest.raises(ConfigError, match=words), driver_lock(tmp_path / "work.db"):
        pass
    assert holder(tmp_path / "work.db") is None
    assert sorted((p.name, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in tmp_path.iterdir()) == before
    assert precious.read_text() == "mine\n"


def test_a_lock_of_an_earlier_version_is_taken_over(tmp_path):
    (tmp_path / "work.db.lock").write_text("4711")
    with driver_lock(tmp_path / "work.db"):
        assert holder(tmp_path / "work.db") == os.getpid()


def test_a_lock_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"work\.db\.lock: cannot be opened"),
        driver_lock(tmp_path / "file" / "work.db"),
    ):
        pass


def test_a_device_has_one_run_and_a_cpu_any_number(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with device_lock("cuda:1"), device_lock("cuda:0"), device_lock("cpu"), device_lock("cpu"):
        words = f"cuda:1: another run holds this device .process {os.getpid()}"
        with pytest.raises(BusyError, match=words), device_lock("cuda:1"):
            pass


def test_the_first_device_has_two_names_and_its_lock_its_own_advice(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with device_lock("cuda:0"), pytest.raises(BusyError, match="cuda: another run"), device_lock("cuda"):
        pass
    (lock,) = tmp_path.iterdir()
    lock.write_text("mine")
    with pytest.raises(ConfigError, match=r"move it away, or name another folder with TMPDIR$"), device_lock("cuda"):
        pass
