"""Files that git's index knows to be unchanged are counted as such without being read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rotary_batch.repo import git as git_module
from rotary_batch.repo.git import open_repository

LONG_AGO_NS = 10**18
FILES = {"a.py": "x = 1\n", "in/new\nline.py": "y = 1\n", "in/empty.py": "", "in/deep/b.py": "z = 1\n"}


@pytest.fixture
def read(monkeypatch):
    """The files that are read to see whether they changed."""
    paths: list[str] = []
    compare = git_module._changed_since

    def noting(path, info, blob):
        paths.append(Path(os.fsdecode(path)).name)
        return compare(path, info, blob)

    monkeypatch.setattr(git_module, "_changed_since", noting)
    return paths


@pytest.fixture
def root(make_repository, git):
    """A repository whose files are older than its index."""
    root = make_repository(FILES)
    for name in FILES:
        os.utime(root / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    git(root, "add", "-A")
    git(root, "update-index", "--refresh")
    return root


def num_uncommitted(root: Path) -> int:
    notes = [note for note in open_repository(root).notes if "uncommitted" in note]
    return int(notes[0].split()[0]) if notes else 0


def test_no_unchanged_file_is_read(root, read):
    assert (num_uncommitted(root), num_uncommitted(root / "in"), read) == (0, 0, [])


def test_no_unchanged_file_of_a_linked_worktree_is_read(root, git, read, tmp_path):
    linked = tmp_path / "linked"
    git(root, "worktree", "add", "-q", "-b", "other", str(linked))
    for name in FILES:
        os.utime(linked / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
    git(linked, "update-index", "--refresh")
    assert (num_uncommitted(linked), read) == (0, [])


def test_an_edit_of_the_same_size_and_time_is_counted(root, read):
    (root / "a.py").write_text("x = 2\n")
    os.utime(root / "a.py", ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert (num_uncommitted(root), read) == (1, ["a.py"])


def test_an_edit_at_the_time_of_the_index_is_counted(root, read):
    """Of such a file the status says nothing."""
    for name in FILES:
        os.utime(root / name, ns=(LONG_AGO_NS, LONG_AGO_NS))
        (root / name).chmod(0o644)
    index = root / ".git/index"
    git_time_ns = (root / "a.py").stat().st_mtime_ns
    os.utime(index, ns=(git_time_ns, git_time_ns))
    assert num_uncommitted(root) == 0
    assert "a.py" in read


def test_what_is_staged_is_counted_although_git_knows_its_status(root, git, read):
    (root / "a.py").write_text("x = 2\n")
    os.utime(root / "a.py", ns=(LONG_AGO_NS, LONG_AGO_NS))
    git(root, "add", "-A")
    assert (num_uncommitted(root), read) == (1, ["a.py"])


def test_a_touched_file_is_read_and_not_counted(root, read):
    (root / "a.py").touch()
    assert (num_uncommitted(root), read) == (0, ["a.py"])


def test_without_an_index_all_files_are_read(root, read):
    (root / ".git/index").unlink()
    num_uncommitted(root)
    assert sorted(read) == sorted(Path(name).name for name in FILES)
