"""The files that say what the packages of a repository are called."""

from __future__ import annotations

from rotary_batch.repo.git import Repository

NAMES = {
    "go.mod",
    "Cargo.toml",
    "package.json",
    "tsconfig.json",
    "jsconfig.json",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
}
MAX_FILES = 2000  # those nearest to the top
MAX_NBYTES = 200_000  # of one


def manifests(repository: Repository) -> dict[str, bytes]:
    """Path -> content of the manifests of a repository."""
    entries = [
        entry
        for entry in repository.entries()
        if entry.path.rpartition("/")[2] in NAMES and entry.mode.startswith("100") and entry.nbytes <= MAX_NBYTES
    ]
    nearest = sorted(entries, key=lambda entry: (entry.path.count("/"), entry.path))[:MAX_FILES]
    return {entry.path: data for entry, data in repository.read(nearest)}
