"""Index and drain in the process of the test, with an engine that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.drain import DrainRequest, drain
from rotary_batch.commands.index import IndexOutcome, IndexRequest, index
from rotary_batch.commands.isolation import Failure
from rotary_batch.commands.recording import recording
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.run_report import RunReport
from rotary_batch.commands.watching import Watcher
from rotary_batch.config import Settings
from rotary_batch.core import Engine
from rotary_batch.sync import IndexViews
from rotary_batch.window import Window
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


def index_all(
    store: WorkStore, settings: Settings, *roots: Path, window: Window | None = None, progress=lambda *_: None
) -> list[IndexOutcome | Failure]:
    """Index repositories, all with the same settings."""
    request = IndexRequest(
        store=store,
        settings_of=lambda root: RepositorySettings(root, settings),
        window=window or Window(),
        views=IndexViews(store),
        progress=progress,
    )
    return index(request, roots)


def drain_all(
    store: WorkStore,
    settings: Settings | Callable[[RepositoryRow], Settings],
    roots: Sequence[Path],
    make_engine: Callable[[], Engine],
    window: Window | None = None,
    watcher: Watcher | None = None,
) -> list[RunReport | Failure]:
    """Drain the repositories, all with the same settings or each with its own; no roots = all that are indexed."""

    def settings_of(row: RepositoryRow) -> RepositorySettings:
        own = settings if isinstance(settings, Settings) else settings(row)
        return RepositorySettings(Path(row.root), replace(own, engine="in-process"))

    window = window or Window()
    with recording(store, "drain", window) as recorder:
        request = DrainRequest(
            store=store,
            settings_of=settings_of,
            window=window,
            open_engine=lambda _pack, _options: make_engine(),
            recorder=recorder,
            views=IndexViews(store),
            watcher=watcher or Watcher(),
        )
        return list(drain(request, select_repositories(store, roots)))
