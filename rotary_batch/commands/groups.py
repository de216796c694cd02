"""Which of the indexed repositories share an engine: those of one pack with equal settings for the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.isolation import isolated
from rotary_batch.config import Settings
from rotary_batch.work.rows import RepositoryRow

SettingsOf = Callable[[RepositoryRow], RepositorySettings]


@dataclass(slots=True)
class Group:
    """Repositories that share an engine."""

    pack: Path
    settings: Settings
    rows: list[RepositoryRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # which of the repositories' own settings were ignored


def by_engine(rows: Sequence[RepositoryRow], settings_of: SettingsOf, outcomes: list[Any]) -> list[Group]:
    """The groups, by pack.  A repository whose settings cannot be read becomes a Failure in `outcomes`."""
    groups: dict[tuple[str, Settings], Group] = {}
    for row in sorted(rows, key=attrgetter("pack_dir")):
        with isolated([row.root], outcomes):
            own = settings_of(row)
            settings = own.engine_settings()
            group = groups.setdefault((row.pack_dir, settings), Group(Path(row.pack_dir), settings))
            group.rows.append(row)
            group.notes += own.notes
    return list(groups.values())
