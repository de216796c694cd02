"""Which of the indexed repositories share an engine: those of one pack with equal settings for the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.isolation import isolated
from rotary_batch.commands.keeping import indexed_pack, require_same
from rotary_batch.config import Settings
from rotary_batch.model.manifest import Manifest
from rotary_batch.work.rows import RepositoryRow

SettingsOf = Callable[[RepositoryRow], RepositorySettings]


@dataclass(slots=True)
class Group:
    """Repositories that share an engine."""

    pack: Path
    manifest: Manifest
    settings: Settings
    rows: list[RepositoryRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # which of the repositories' own settings were ignored


def by_engine(rows: Sequence[RepositoryRow], settings_of: SettingsOf, outcomes: list[Any]) -> list[Group]:
    """The groups, by pack.

    A repository whose settings cannot be read, or whose model is gone or another, becomes a Failure in `outcomes`.
    """
    groups: dict[tuple[Path, Settings], Group] = {}
    manifests: dict[Path, Manifest] = {}
    for row in sorted(rows, key=attrgetter("pack_dir")):
        with isolated([row.root], outcomes):
            own, pack = settings_of(row), indexed_pack(row)
            manifest = manifests[pack] = manifests.get(pack) or Manifest.load(pack)
            require_same(row, pack, manifest)
            settings = own.engine_settings()
            group = groups.setdefault((pack, settings), Group(pack, manifest, settings))
            group.rows.append(row)
            group.notes += own.notes
    return list(groups.values())
