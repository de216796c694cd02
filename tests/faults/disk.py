"""What a power cut may leave on a disk: all that was synced, and any part of what was not.

A write lasts once its file was synced, a name once its folder was.  Of the others any subset may be there, and of a
write that is there only its first sectors.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SECTOR_NBYTES = 512
FOLDER = 0  # as the number of a file
_HEAD = struct.Struct("6l")


class Op(NamedTuple):
    """One call that changed something, as shim.c recorded it."""

    kind: str
    inode: int
    at: int
    name: str
    other: str
    data: bytes


class Change(NamedTuple):
    """Something that a sync makes last: bytes or a size of one file, or names."""

    file: int = FOLDER
    kind: str = ""
    at: int = 0
    data: bytes = b""
    names: tuple[tuple[str, int | None], ...] = ()


State = dict[str, bytes | None]  # path -> content; None = a folder


def read_log(path: Path) -> Iterator[Op]:
    data, place = path.read_bytes(), 0
    while place < len(data):
        kind, inode, at, *sizes = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        parts = []
        for size in sizes:
            parts.append(data[place : place + size])
            place += size
        yield Op(chr(kind), inode, at, parts[0].decode(), parts[1].decode(), parts[2])


def parent(path: str) -> str:
    return path.rpartition("/")[0]


class Disk:
    """A disk below one folder, call by call."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._inodes: dict[int, int] = {}  # inode -> number; an inode is used again once its file is gone
        self._files: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        for path in sorted(root.rglob("*")):
            self._names[str(path)] = FOLDER if path.is_dir() else self._new_file(path.stat().st_ino)
            if path.is_file():
                self._files[self._names[str(path)]] = path.read_bytes()
        self._shown = dict(self._names)  # as a program sees it
        self.pending: list[Change] = []

    def _new_file(self, inode: int) -> int:
        self._inodes[inode] = len(self._files) + 1
        self._files[len(self._files) + 1] = b""
        return len(self._files)

    def take(self, op: Op) -> None:
        """What a call changes; a sync makes it last."""
        if op.kind == "S":
            self._settle([one for one in self.pending if one.file and one.file == self._inodes[op.inode]])
        elif op.kind == "D":
            self._settle([one for one in self.pending if any(parent(path) == op.name for path, _ in one.names)])
        elif op.kind in "WTA":
            self.pending.append(Change(self._inodes[op.inode], op.kind, op.at, op.data))
        elif op.kind == "C":
            self._rename((op.name, self._new_file(op.inode)))
        elif op.kind == "M":
            self._rename((op.name, FOLDER))
        elif op.kind == "U":
            self._rename((op.name, None))
        else:
            self._rename((op.name, None), (op.other, self._shown[op.name]))

    def _rename(self, *names: tuple[str, int | None]) -> None:
        _set_names(self._shown, names)
        self.pending.append(Change(names=names))

    def _settle(self, changes: Sequence[Change]) -> None:
        for one in changes:
            _apply(self._files, self._names, one, 1.0)
            self.pending.remove(one)

    def left(self, shares: Sequence[float]) -> State:
        """What is there after a power cut; of each pending change the share that reached the disk."""
        files, names = dict(self._files), dict(self._names)
        for one, share in zip(self.pending, shares, strict=True):
            if share:
                _apply(files, names, one, share)
        state: State = {}
        for path, number in sorted(names.items()):
            if parent(path) == self.root or (parent(path) in state and state[parent(path)] is None):
                state[path] = files[number] if number else None
        return state

    def whole(self) -> State:
        """What a program sees."""
        return self.left([1.0] * len(self.pending))

    def losses(self, num_random: int, seed: random.Random) -> Iterator[list[float]]:
        """Ways to lose what is pending: all of it, each alone, all from each on, and subsets by chance."""
        num = len(self.pending)
        for kept in range(num + 1):
            yield [1.0] * kept + [0.0] * (num - kept)
        for lost in range(num):
            yield [1.0] * lost + [0.0] + [1.0] * (num - lost - 1)
        for _ in range(num_random if num > 1 else num):
            share = seed.random()
            yield [seed.choice([1.0, 1.0, seed.random()]) if seed.random() < share else 0.0 for _ in range(num)]


def _set_names(names: dict[str, int], changed: Sequence[tuple[str, int | None]]) -> None:
    for path, number in changed:
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


def _apply(files: dict[int, bytes], names: dict[str, int], change: Change, share: float) -> None:
    _set_names(names, change.names)
    if not change.file:
        return
    old = files[change.file]
    if change.kind == "W":
        size = len(change.data) if share == 1.0 else int(share * len(change.data)) // SECTOR_NBYTES * SECTOR_NBYTES
        if size:
            files[change.file] = old[: change.at].ljust(change.at, b"\0") + change.data[:size] + old[change.at + size :]
    elif change.kind == "T":
        files[change.file] = old[: change.at].ljust(change.at, b"\0")
    else:
        files[change.file] = old.ljust(change.at, b"\0")


def restore(root: Path, state: State) -> None:
    """Make a folder what a power cut left of it.  Folders that stay keep their inodes."""
    for path in sorted(root.rglob("*"), reverse=True):
        if str(path) not in state:
            path.rmdir() if path.is_dir() else path.unlink()
    for name, data in state.items():
        path = Path(name)
        if data is None:
            path.mkdir(exist_ok=True)
        elif not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
