"""What was read to be classified is not read again to be parsed, as far as memory is allowed."""

from __future__ import annotations

import pytest

from rotary_batch.repo.git import open_repository
from rotary_batch.repo.read_once import ReadOnce

FILES = {"a.py": "a = 1\n", "b.py": "b = 22\n", "c.py": "c = 333\n"}


@pytest.mark.parametrize(("limit_nbytes", "num_kept"), [(0, 0), (6, 1), (13, 2), (20, 2), (21, 3)])
def test_the_first_files_are_read_once(make_repository, monkeypatch, limit_nbytes, num_kept):
    repository = open_repository(make_repository(FILES))
    reads: list[str] = []
    real = repository.read

    def counted(entries):
        for entry, data in real(entries):
            reads.append(entry.path)
            yield entry, data

    monkeypatch.setattr(repository, "read", counted)
    once = ReadOnce(repository, limit_nbytes)
    for _ in range(2):
        assert {entry.path: data.decode() for entry, data in once.read(once.entries())} == FILES
    assert reads == [*FILES, *list(FILES)[num_kept:]]
