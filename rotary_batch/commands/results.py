"""The file that `generate` appends its results to: looked at before it is touched, locked, and always mended.

Whatever is not a file of results is refused unchanged.  A line that a kill cut short begins as all of ours do, so it
can be told from any other text and taken off.
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
# How every result of ours begins, by its parts: any beginning of this is a line cut short.
_BEGINNING = b'{"custom_id": '
_ID = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"|null')
_MIDDLES = (
    b', "response": null, "error": {"code": "',
    b', "response": {"status_code": 200, "body": {"choices": [{"index": 0, "message": {"role": "assistant", ',
)


class ResultFile:
    """Open and locked.  `num_nbytes` is what it holds in whole lines."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._num_nbytes = 0
        self.answered: dict[str, bool] = {}  # custom_id -> whether it is an error
        self.refused: set[str] = set()  # what was said of lines without an id
        with os.fdopen(os.dup(descriptor), "rb") as file:
            self._look(jsonl.lines(file, _MAX_LINE_NBYTES))

    def _look(self, lines: Iterator[jsonl.Line]) -> None:
        """Take in what is there, then mend the last line if it needs it.  Raises InputError before any change."""
        size, cut = os.fstat(self._descriptor).st_size, False
        for number, data, has_newline in lines:
            row = None if data is None else _result(data)
            if row is None:
                cut = data is not None and not has_newline and _is_cut_short(data, is_first=number == 1)
                if not cut:
                    raise InputError(f"{self._path}:{number}: not a result of generate; name another output file")
                break
            assert data is not None
            self._note(row)
            self._num_nbytes += len(data) + 1
        if cut:
            self._truncate()
        elif self._num_nbytes == size + 1:  # a whole result without its newline
            self._write(b"\n", at=size)

    def _note(self, row: dict[str, Any]) -> None:
        if row["custom_id"] is None:
            self.refused.add(row["error"]["message"])
        else:
            self.answered[row["custom_id"]] = row["error"] is not None

    def add(self, row: dict[str, Any]) -> None:
        """Append one result; `sync` makes it last.  Raises StorageError, with no part of the line left."""
        line = jsonl.dump_line(row)
        self._write(line, at=self._num_nbytes)
        self._num_nbytes += len(line)
        self._note(row)

    def sync(self) -> None:
        """Wait until all that was added survives a loss of power.  Raises StorageError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._refused(error) from error

    def _write(self, data: bytes, at: int) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], at + done)
        except OSError as error:
            self._truncate()
            raise self._refused(error) from error

    def _truncate(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._num_nbytes)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(f"{self._path}: {error.strerror}; make room, then run generate again to go on")


@contextmanager
def open_results(path: Path, source: os.stat_result) -> Iterator[ResultFile]:
    """The file at `path`, made if need be; it is not left behind empty.

    Raises InputError for what is not a file of results or is the source itself, BusyError, StorageError.
    """
    descriptor, is_new = _open_locked(path, source)
    try:
        yield ResultFile(path, descriptor)
    finally:
        if is_new and os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, source: os.stat_result) -> tuple[int, bool]:
    """A descriptor, and whether the file was made for it.  Another run may make or unlink it at any moment."""
    while True:
        is_new = not os.path.lexists(path)
        try:
            descriptor = _open(path, is_new=is_new)
            if descriptor is not None and _is_locked(path, descriptor, source):
                return descriptor, is_new
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}; name another output file") from error


def _open(path: Path, *, is_new: bool) -> int | None:
    """None when another run was faster.  Nothing but a plain file is opened at all."""
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


def _is_locked(path: Path, descriptor: int, source: os.stat_result) -> bool:
    """Whether the file is ours alone now; otherwise it is closed.  Raises InputError, BusyError."""
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if os.path.samestat(found := os.fstat(descriptor), source):
            raise InputError(f"{path}: the file of requests itself; name another output file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{path}: another generate writes into this file; wait for it") from error
        if not path.exists() or not os.path.samestat(found, path.stat()):
            return False  # the run that had made it took it away again
        stack.pop_all()
    return True


def _result(data: bytes) -> dict[str, Any] | None:
    """The result in a line, or None when it is none of ours."""
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
    """Whether a last line without newline is the beginning of a result; alone, a few characters prove nothing."""
    if not is_first and _BEGINNING.startswith(data):
        return True
    if not data.startswith(_BEGINNING):
        return False
    rest = data.removeprefix(_BEGINNING)
    found = _ID.match(rest)
    if found is None:  # within the id
        return b"null".startswith(rest) or (rest.startswith(b'"') and not re.search(rb"[\x00-\x1f]", rest))
    after = rest[found.end() :]
    return any(middle.startswith(after) or after.startswith(middle) for middle in _MIDDLES)
