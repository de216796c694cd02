"""Which of the indexed repositories share an engine: those of one pack whose settings for the engine are equal."""

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
    notes: list[str] = field(default_factory=list)


def by_engine(rows: Sequence[RepositoryRow], settings_of: SettingsOf, found: list[Any]) -> list[Group]:
    """The groups, by pack; a repository whose settings cannot be read is noted in `found` and left out."""
    groups: dict[tuple[str, Settings], Group] = {}
    for row in sorted(rows, key=attrgetter("pack_dir")):
        with isolated([row.root], found):
            own = settings_of(row)
            settings = own.of_engine()
            group = groups.setdefault((row.pack_dir, settings), Group(Path(row.pack_dir), settings))
            group.rows.append(row)
            group.notes += own.notes
    return list(groups.values())
