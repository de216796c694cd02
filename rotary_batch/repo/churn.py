"""How often files changed lately, by the history of a repository."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rotary_batch.errors import RepositoryError
from rotary_batch.repo.folder import path_text
from rotary_batch.repo.plumbing import GitProcess, run_git

MAX_COMMITS = 500  # of the first parents of HEAD; their names fit into a pipe
MAX_NBYTES = 50_000_000  # of paths that are read
_DIFF = ("diff-tree", "--stdin", "-r", "-m", "--first-parent", "--name-only", "-z", "--no-renames", "--no-commit-id")


def recent_changes(root: Path, commit: str | None) -> Counter[str]:
    """Path -> number of the last commits that changed it.  Empty without a history, as in a shallow clone."""
    if commit is None:
        return Counter()
    listed = run_git(root, "rev-list", "--first-parent", "-n", str(MAX_COMMITS), commit, check=False)
    try:
        return _changed(root, listed)
    except RepositoryError:  # a clone without the trees of old commits
        return Counter()


def _changed(root: Path, commits: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()
    with GitProcess(root, *_DIFF, "--relative") as process:
        process.write(commits)
        process.end_input()
        rest, nbytes = b"", 0
        while (block := process.read_some()) and nbytes < MAX_NBYTES:
            nbytes += len(block)
            *paths, rest = (rest + block).split(b"\0")
            counts.update(path_text(path) for path in paths)
    return counts
