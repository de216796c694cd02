"""The file that `generate` appends its results to: locked, checked before the first change, and repaired.

A file that holds anything but results is refused unchanged.  A line that a kill cut short begins as every result does,
so it can be told from other text, and is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rotary_batch import jsonl
from rotary_batch.errors import BusyError, InputError, StorageError

_MAX_LINE_NBYTES = 64 * 2**20  # a result repeats an id of at most 3 KB beside its answer
# How every result begins, part by part.  A last line that is a beginning of this was cut short.
_BEGINNING = b'{"custom_id": '
_ID = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"|null')
_MIDDLES = (
    b', "response": null, "error": {"code": "',
    b', "response": {"status_code": 200, "body": {"choices": [{"index": 0, "message": {"role": "assistant", ',
)


class ResultFile:
    """An open and locked file of results."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._num_nbytes = 0  # in whole lines
        self.answered: dict[str, bool] = {}  # custom_id -> whether it is an error
        self.refused: set[str] = set()  # error messages of lines without an id
        with os.fdopen(os.dup(descriptor), "rb") as file:
            self._read_existing(jsonl.lines(file, _MAX_LINE_NBYTES))

    def _read_existing(self, lines: Iterator[jsonl.Line]) -> None:
        """Read the results in the file, then repair its last line.  Raises InputError before any change."""
        size, cut = os.fstat(self._descriptor).st_size, False
        for number, data, has_newline in lines:
            row = None if data is None else _result(data)
            if row is None:
                cut = data is not None and not has_newline and _is_cut_short(data, is_first=number == 1)
                if not cut:
                    raise InputError(f"{self._path}:{number}: not a result of generate; name another output file")
                break
            assert data is not None
            self._remember(row)
            self._num_nbytes += len(data) + 1
        if cut:
            self._truncate()
        elif self._num_nbytes == size + 1:  # a whole result without its newline
            self._write(b"\n", at=size)

    def _remember(self, row: dict[str, Any]) -> None:
        if row["custom_id"] is None:
            self.refused.add(row["error"]["message"])
        else:
            self.answered[row["custom_id"]] = row["error"] is not None

    def add(self, row: dict[str, Any]) -> None:
        """Append one result.  Raises StorageError; then no part of the line is in the file."""
        line = jsonl.dump_line(row)
        self._write(line, at=self._num_nbytes)
        self._num_nbytes += len(line)
        self._remember(row)

    def sync(self) -> None:
        """Wait until everything added survives a power loss.  Raises StorageError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._storage_error(error) from error

    def _write(self, data: bytes, at: int) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], at + done)
        except OSError as error:
            self._truncate()
            raise self._storage_error(error) from error

    def _truncate(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._num_nbytes)
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: {error.strerror}; free some space, then run generate again to resume")


@contextmanager
def open_results(path: Path, source: os.stat_result) -> Iterator[ResultFile]:
    """Open the file, or create it; a new file that stays empty is deleted.

    Raises InputError when it is the source itself or holds anything but results, BusyError, StorageError.
    """
    descriptor, is_new = _open_locked(path, source)
    try:
        yield ResultFile(path, descriptor)
    finally:
        if is_new and os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, source: os.stat_result) -> tuple[int, bool]:
    """The descriptor, and whether the file is new.  Another run may create or delete it at any moment."""
    while True:
        is_new = not os.path.lexists(path)
        try:
            descriptor = _open(path, is_new=is_new)
            if descriptor is not None and _lock(path, descriptor, source):
                return descriptor, is_new
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}; name another output file") from error


def _open(path: Path, *, is_new: bool) -> int | None:
    """None when another run was faster.  Only a plain file is opened."""
    if is_new:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a plain file; name another output file")
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(f"{path}: a link to nothing; name another output file") from error
        return None


def _lock(path: Path, descriptor: int, source: os.stat_result) -> bool:
    """Lock the file.  Closes it and returns False when it is no longer at `path`.  Raises InputError, BusyError."""
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        opened = os.fstat(descriptor)
        if os.path.samestat(opened, source):
            raise InputError(f"{path}: the file of requests itself; name another output file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{path}: another generate is writing into this file; wait for it") from error
        if not path.exists() or not os.path.samestat(opened, path.stat()):
            return False  # the run that created it deleted it again
        stack.pop_all()
    return True


def _result(data: bytes) -> dict[str, Any] | None:
    """The result in a line, or None when the line is not a result."""
    try:
        row = jsonl.parse_object(data)
    except ValueError:
        return None
    if set(row) != {"custom_id", "response", "error"} or not isinstance(row["custom_id"], str | None):
        return None
    response, error = row["response"], row["error"]
    if error is None:
        is_ours = (
            row["custom_id"] is not None and isinstance(response, dict) and set(response) == {"status_code", "body"}
        )
    else:
        is_ours = response is None and isinstance(error, dict) and isinstance(error.get("message"), str)
    return row if is_ours else None


def _is_cut_short(data: bytes, *, is_first: bool) -> bool:
    """Whether a last line without newline is the start of a result.  In the first line a few letters prove nothing."""
    if not is_first and _BEGINNING.startswith(data):
        return True
    if not data.startswith(_BEGINNING):
        return False
    rest = data.removeprefix(_BEGINNING)
    match = _ID.match(rest)
    if match is None:  # within the id
        return b"null".startswith(rest) or (rest.startswith(b'"') and not re.search(rb"[\x00-\x1f]", rest))
    after = rest[match.end() :]
    return any(middle.startswith(after) or after.startswith(middle) for middle in _MIDDLES)
