"""Take secrets out of sources as they are read: what is parsed, stored, shown or asked about has none."""

from __future__ import annotations

from rotary_batch.repo.secrets import Finding, without_secrets
from rotary_batch.work.secrets import save_secrets
from rotary_batch.work.store import WorkStore


class Redactor:
    """Cleans the files of one repository, and keeps what was found until a file is stored."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Finding, ...]] = {}

    def clean(self, path: str, text: bytes) -> bytes:
        """The text of a file without its secrets; every byte stays at its place."""
        cleaned, found = without_secrets(text)
        if found:
            self._found[path] = found
        return cleaned

    def save(self, store: WorkStore, repository_id: int, path: str) -> None:
        """Within a transaction: store what was found in a file, which is stored already."""
        save_secrets(store, repository_id, path, self._found.pop(path, ()))

    def save_rest(self, store: WorkStore, repository_id: int) -> None:
        """Within a transaction: store what was found in files that are not parsed, such as a README."""
        for path in list(self._found):
            self.save(store, repository_id, path)
