"""A full disk, a disk that fails, a reader that never leaves, an upgrade: what was stored stays, and runs end cleanly."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import BinaryIO

import pytest
from test_connection import pin
from test_schema import dump, old  # noqa: F401 - a fixture
from test_store import ROW, chunk, claim_all, open_store

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.core import NewTokens
from rotary_batch.errors import BusyError, DatabaseError
from rotary_batch.testing import plan_items
from rotary_batch.work import backup, patience
from rotary_batch.work.backup import backup_path
from rotary_batch.work.ballast import NBYTES, ballast_path, keep_ballast
from rotary_batch.work.counts import run_row, states
from rotary_batch.work.index import save_repository
from rotary_batch.work.rows import Claim
from rotary_batch.work.runs import end_run, start_run
from rotary_batch.work.store import WorkStore

SMALL_NBYTES = 24 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_NBYTES}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may mount no tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all space that is left."""
    target = folder / "filler"
    with target.open("ab", buffering=0) as file:
        for nbytes in (1 << 16, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(file, nbytes)
    return target


def write_for_ever(file: BinaryIO, nbytes: int) -> None:
    while True:
        file.write(bytes(nbytes))


def commit_for_ever(store: WorkStore, claim: Claim, token_ids: tuple[int, ...], acked: list[int]) -> None:
    """One step after the other; `acked` has the tokens of those that returned."""
    while True:
        new = NewTokens(request_id=claim.item.id, token_ids=token_ids, logprob_sum=-1.0)
        store.commit_step([(claim.lease, new)], [], [])
        acked += token_ids


def with_leases(path: Path, journal: str) -> tuple[WorkStore, int]:
    store = open_store(path, journal)
    save_repository(store, ROW)
    plan_items(store, 1, "summarize", [chunk(n, parent=None) for n in range(64)], {"a.py"})
    return store, start_run(store, command="drain", model_name="m", pid=1)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_run_on_a_full_disk_loses_nothing_and_ends_cleanly(journal, small_disk):
    path = small_disk / "work.db"
    store, run = with_leases(path, journal)
    claims = claim_all(store, run)
    keep_ballast(path)
    assert (ballast_path(path).stat().st_size, ballast_path(path).stat().st_mode & 0o777) == (NBYTES, 0o600)
    filler, acked = fill(small_disk), []
    with pytest.raises(DatabaseError, match="disk is full"):
        commit_for_ever(store, claims[0], (7,) * 100, acked)
    assert not ballast_path(path).exists()
    store.release([claim.lease for claim in claims])
    end_run(store, run, "failed", {}, reason="the disk is full")
    store.db.close()

    filler.unlink()
    store = open_store(path, journal)
    assert store.db.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert (states(store, 1), run_row(store, run).outcome) == ({"chunk": {"ready": 64}}, "failed")
    again = claim_all(store, start_run(store, command="drain", model_name="m", pid=1))
    assert again[0].request.generated_ids == tuple(acked)
    store.db.close()


def test_space_is_reserved_once_and_only_where_there_is_plenty(tmp_path, small_disk):
    keep_ballast(tmp_path / "work.db")
    before = ballast_path(tmp_path / "work.db").stat()
    keep_ballast(tmp_path / "work.db")
    assert os.path.samestat(before, ballast_path(tmp_path / "work.db").stat())
    fill(small_disk).rename(small_disk / "full")
    keep_ballast(small_disk / "work.db")
    assert [path.name for path in small_disk.iterdir()] == ["full"]


def test_an_index_on_a_full_disk_says_so_and_goes_on_when_there_is_space(small_disk, make_repository):
    root, database = make_repository({"a.py": "def f():\n    return 1\n"}), small_disk / "work.db"
    command = [sys.executable, "-m", "rotary_batch", "index", str(root), "--db", str(database), "--json"]
    filler = fill(small_disk)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
    assert "disk is full" in done.stderr
    filler.unlink()
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_reader_that_never_leaves_does_not_let_the_log_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "MAX_WAL_NBYTES", 400_000)
    path, log = tmp_path / "work.db", tmp_path / "work.db-wal"
    store, run = with_leases(path, "wal")
    claims, acked = claim_all(store, run), []
    store.db.patience_s = 0.3
    child = pin(path)
    with pytest.raises(BusyError, match=rf"process {child.pid} "):
        commit_for_ever(store, claims[0], (5,), acked)
    assert 400_000 < log.stat().st_size < 500_000
    child.communicate("")
    store.release([claim.lease for claim in claims])
    assert log.stat().st_size == 0
    again = claim_all(store, run)
    assert again[0].request.generated_ids == (*acked, 5), "the last commit was done when it waited"
    store.db.close()


def test_an_upgrade_leaves_a_copy_of_what_there_was(old):  # noqa: F811 - the fixture
    before, copy = dump(old), backup_path(old, 3)
    with writing(Settings(db=old)):
        pass
    assert (dump(copy), copy.stat().st_mode & 0o777) == (before, 0o600)
    at = copy.stat().st_mtime_ns
    with writing(Settings(db=old)):
        pass
    assert copy.stat().st_mtime_ns == at
    assert [path.name for path in old.parent.glob("*schema*")] == [copy.name]


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


Usage = namedtuple("Usage", "free")  # what `shutil.disk_usage` returns, as far as it is asked


@pytest.mark.parametrize(
    ("module", "name", "replacement"),
    [(backup.os, "fsync", refuse), (backup.shutil, "disk_usage", lambda _: Usage(10))],
)
def test_without_a_copy_there_is_no_upgrade(module, name, replacement, old, monkeypatch):  # noqa: F811
    before = dump(old)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, replacement)
        with pytest.raises(DatabaseError, match="copy"), writing(Settings(db=old)):
            pass
    assert dump(old) == before
    assert list(old.parent.glob("*schema*")) == []
    with writing(Settings(db=old)) as store:
        assert states(store, 1)
    assert dump(backup_path(old, 3)) == before


def test_a_copy_is_a_database_of_its_own(tmp_path):
    """Of a new one there is nothing to copy."""
    with writing(Settings(db=tmp_path / "work.db")) as store:
        assert sqlite3.connect(store.db.path).execute("pragma user_version").fetchone()[0] > 0
    assert list(tmp_path.glob("*schema*")) == []
