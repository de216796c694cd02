"""Walk a tree of folders by descriptor, each opened from the one above it, with few of them open at a time."""

from __future__ import annotations

import os
from collections import deque

from rotary_batch.pages.descriptors import open_folder

MAX_OPEN = 100  # a process may have 1024; to come back from deeper than this, folders are opened again


class FolderStack:
    """The folders from an open one, the base, down to one below it.  Closing the stack leaves the base open."""

    def __init__(self, base: int, path: str) -> None:
        self._base = base
        self._path = path  # for messages only
        self.names: list[str] = []
        self._open: deque[int] = deque()  # descriptors of the lowest folders

    @property
    def top(self) -> int:
        """The descriptor of the lowest folder."""
        return self._open[-1] if self._open else self._base

    def enter(self, depth: int, name: str) -> bool:
        """Go up until `depth` names are left, and from there into a folder; False when it does not exist.

        Raises BlockedError and OSError when it cannot be opened; the stack then ends above it.
        """
        while len(self.names) > depth:
            self.names.pop()
            if self._open:
                os.close(self._open.pop())
        return (bool(self._open) or self._reopen()) and self._push(name)

    def _reopen(self) -> bool:
        """Open the lowest folders again, from the base down; whether all of them still exist."""
        names, self.names, is_whole = self.names, [], False
        try:
            is_whole = all(map(self._push, names))
        finally:
            self.names = names
            if not is_whole:
                self.close()
        return is_whole

    def _push(self, name: str) -> bool:
        descriptor = open_folder(self.top, name, f"{self._path}/.../{name}")
        if descriptor is None:
            return False
        self.names.append(name)
        self._open.append(descriptor)
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popleft())
        return True

    def close(self) -> None:
        """Close everything below the base."""
        while self._open:
            os.close(self._open.pop())
