"""Read the files of a repository once although they are needed twice: to be classified and to be parsed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rotary_batch.errors import UnreadableError
from rotary_batch.repo.folder import Entry
from rotary_batch.repo.git import Repository

WENT_AWAY = "changed or went away while it was read; index again"
MAX_KEPT_NBYTES = 32 * 10**6  # of a larger repository the rest is read twice, which takes a hundredth of parsing it


class ReadOnce:
    """A repository that keeps what it read first until it is read again, as far as memory is allowed for that."""

    def __init__(self, repository: Repository, max_kept_nbytes: int = MAX_KEPT_NBYTES) -> None:
        self._repository = repository
        self._left_nbytes = max_kept_nbytes
        self._kept: dict[str, bytes] = {}
        self.root, self.name = repository.root, repository.name
        self.unreadable: dict[str, str] = {}  # path -> why it could not be read

    @property
    def commit(self) -> str | None:
        """As of the repository."""
        return self._repository.commit

    @property
    def notes(self) -> tuple[str, ...]:
        """As of the repository."""
        return self._repository.notes

    def entries(self) -> list[Entry]:
        """As of the repository."""
        return self._repository.entries()

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """As of the repository."""
        return self._repository.attributes(paths)

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files, in the given order; what cannot be read is left out and is in `unreadable`."""
        for is_kept, group in groupby(entries, key=lambda entry: entry.path in self._kept):
            if is_kept:
                yield from ((entry, self._kept.pop(entry.path)) for entry in group)
            else:
                yield from self._read_first(list(group))

    def _read_first(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Keeps the first files alone, so that the second time they are one run and the others are another."""
        missing = {entry.path: WENT_AWAY for entry in entries}
        try:
            for entry, data in self._repository.read(entries):
                missing.pop(entry.path, None)
                self._left_nbytes -= len(data)
                if self._left_nbytes >= 0:
                    self._kept[entry.path] = data
                yield entry, data
        except UnreadableError as error:
            missing |= error.reasons
        self.unreadable |= missing
