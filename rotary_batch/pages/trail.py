"""Walk a tree of folders by descriptor, each opened from the one above it, with few of them open at a time."""

from __future__ import annotations

import os
from collections import deque

from rotary_batch.pages.descriptors import open_folder

MOST_OPEN = 100  # a process may have 1024; coming back from deeper than this opens the way down anew


class Trail:
    """The way from an open folder down to one below it.  Closing it leaves that first folder open."""

    def __init__(self, start: int, path: str) -> None:
        self._start = start
        self._path = path  # for messages only
        self.names: list[str] = []
        self._open: deque[int] = deque()  # the lowest folders of the way

    @property
    def lowest(self) -> int:
        """The descriptor of the folder that the way leads to."""
        return self._open[-1] if self._open else self._start

    def enter(self, depth: int, name: str) -> bool:
        """Go up until the way has `depth` names, and from there into a folder; False when it is not there.

        Raises BlockedError and OSError when it cannot be opened; the way then ends above it.
        """
        while len(self.names) > depth:
            self.names.pop()
            if self._open:
                os.close(self._open.pop())
        return (bool(self._open) or self._reopened()) and self._step(name)

    def _reopened(self) -> bool:
        """Open the lowest folders of the way again."""
        way, self.names, is_whole = self.names, [], False
        try:
            is_whole = all(map(self._step, way))
        finally:
            self.names = way
            if not is_whole:
                self.close()
        return is_whole

    def _step(self, name: str) -> bool:
        below = open_folder(self.lowest, name, f"{self._path}/.../{name}")
        if below is None:
            return False
        self.names.append(name)
        self._open.append(below)
        if len(self._open) > MOST_OPEN:
            os.close(self._open.popleft())
        return True

    def close(self) -> None:
        """Close what is open below the first folder."""
        while self._open:
            os.close(self._open.pop())
