"""`agents`: tell coding agents of the docs, in the repository's AGENTS.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rotary_batch.config import Settings
from rotary_batch.errors import RepositoryError
from rotary_batch.pages.agents import FILE_NAME, block, update
from rotary_batch.repo.git import open_repository


def agents(settings: Settings, root: Path, *, remove: bool) -> dict[str, Any]:
    """Write or remove the block.  Raises InputError when the file cannot be changed safely."""
    if getattr(open_repository(root, worktree=settings.worktree, docs_dir=settings.out), "is_bare", False):
        raise RepositoryError(f"{root}: a bare repository has no working tree for {FILE_NAME}")
    changed = update(root, "" if remove else block(settings.out))
    return {"file": str(root / FILE_NAME), "changed": changed}
