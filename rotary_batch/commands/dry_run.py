"""`--dry-run`: what `index` or `run` would do.  The index is made in a copy of the database, and no page is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotary_batch.commands import plan
from rotary_batch.commands.configuration import RepositorySettings, UserSettings
from rotary_batch.commands.database import copied, database_path
from rotary_batch.commands.index import IndexOutcome, IndexRequest, index, index_views
from rotary_batch.commands.isolation import Failure, failures
from rotary_batch.commands.keeping import keeping_model_and_job
from rotary_batch.commands.packs import find_pack, pack_folder
from rotary_batch.commands.preflight import ready_to_run
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import MANIFEST_NAME
from rotary_batch.pages.files import SyncResult
from rotary_batch.sync import IndexViews, open_unwritten_docs, sync_pending
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.index import repositories
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What would be done."""

    repositories: list[dict[str, Any]]
    items: int  # that a run would answer, those of earlier indexes included
    seconds: float | None  # to answer them; None = not known, or not asked
    speed: str | None  # what `seconds` was computed from
    needs: str | None  # the command after which `seconds` is known
    failures: list[Failure]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "repositories": self.repositories,
            "items": self.items,
            "seconds": self.seconds,
            "speed": self.speed,
            "needs": self.needs,
            "failures": [failure.as_dict() for failure in self.failures],
        }


def dry_run(
    user: UserSettings,
    repos: Sequence[Path],
    progress: Callable[[str, int, int], None],
    window: Window,
    *,
    answers: bool,
) -> DryRun:
    """What `index`, or with `answers` what `run`, would do with some repositories."""
    database = database_path(user.for_command().settings)
    checked: list[Failure] = []
    with copied(database) as store:
        if answers:
            repos = ready_to_run(store, repos, user.for_repository, database, checked)
        request = IndexRequest(
            store=store,
            settings_of=_packed(user.for_repository, store),
            window=window,
            views=index_views(store),
            progress=progress,
            sync=_sync_unwritten,
        )
        outcomes = index(request, repos)
        indexed = [outcome for outcome in outcomes if isinstance(outcome, IndexOutcome)]
        refused = [*checked, *failures(outcomes)]
        rows = [outcome.indexed.repository for outcome in indexed]
        seconds, speed, needs = _forecast(store, user, rows, refused) if answers and rows else (None, None, None)
        return DryRun(
            repositories=[_as_dict(store, outcome) for outcome in indexed],
            items=counts.tally(store, [row.id for row in rows]).open,
            seconds=seconds,
            speed=speed,
            needs=needs,
            failures=refused,
        )


def _packed(
    settings_of: Callable[[Path], RepositorySettings], store: WorkStore
) -> Callable[[Path], RepositorySettings]:
    """The settings of a repository.  Raises ModelError when its model would be packed first, which writes.

    The default model is packed all the same, into the cache: nobody can name its pack.
    """
    rows = {row.root: row for row in repositories(store)}

    def packed(root: Path) -> RepositorySettings:
        own = keeping_model_and_job(settings_of(root), rows.get(str(root)))
        model = own.settings.model
        pack = find_pack(own.settings) if model is None else pack_folder(own.settings)
        if not (pack / MANIFEST_NAME).is_file():
            raise ModelError(
                f"{model}: not packed yet, and a dry run writes nothing; run `rotary-batch model pack {model} PACK` "
                "first, then name PACK with --model"
            )
        return own

    return packed


def _sync_unwritten(
    store: WorkStore, row: RepositoryRow, views: IndexViews, should_stop: Callable[[], bool]
) -> SyncResult:
    return sync_pending(store, row, views, should_stop, open_unwritten_docs)


def _as_dict(store: WorkStore, outcome: IndexOutcome) -> dict[str, Any]:
    indexed, pages = outcome.indexed, outcome.sync_result
    row = indexed.repository
    open_tokens = counts.open_tokens(store, row.id).values()
    return {
        "repository": row.root,
        "docs": os.fspath(outcome.docs),
        "model": row.model_name,
        "source_files": indexed.files.get("source", 0),
        "files_to_read": indexed.parsed,
        "items_to_queue": indexed.counts.queued,
        "items_to_remove": indexed.counts.removed,
        "open_items": sum(unit["items"] for unit in open_tokens),
        "prompt_tokens": sum(unit["prompt_tokens"] for unit in open_tokens),
        "shared_tokens": sum(unit["shared_tokens"] for unit in open_tokens),
        "unknown_prompts": sum(unit["unknown"] for unit in open_tokens),
        "pages_to_write": sorted(pages.written),
        "pages_to_remove": sorted(pages.removed),
        "pages_kept": sorted(pages.kept),
        "conflicts": pages.conflicts,
        "notes": list(outcome.notes),
    }


def _forecast(
    store: WorkStore, user: UserSettings, rows: Sequence[RepositoryRow], refused: list[Failure]
) -> tuple[float | None, str | None, str | None]:
    """(seconds for all answers, what they were computed from, the command that is needed to know them)."""
    known = {row.root for row in repositories(store)}
    roots = [Path(row.root) for row in rows if row.root in known]
    models = plan.plan(store, user.for_indexed, roots, None, refused)["models"]
    seconds, speeds = 0.0, set[str]()
    for model in models:
        name = "hours_as_last_run" if "hours_as_last_run" in model else "hours"
        if name not in model:
            return None, None, model["needs"]
        speeds.add("the last run" if name == "hours_as_last_run" else "the measured rates of this machine, at best")
        seconds += 3600 * model[name]
    return seconds, " and ".join(sorted(speeds)) or None, None
