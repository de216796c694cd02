"""Open what a command needs: the database, the repositories, the job, the model.

Knows defaults and where things live; knows nothing of what is done with them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rotary_batch.config import DEFAULT_JOB, Settings, bundled, cache_dir, shown, state_dir
from rotary_batch.errors import BusyError, ConfigError, ModelError, RepositoryError
from rotary_batch.jobs import Job, load_jobs
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner.asking import Asking
from rotary_batch.prompts import load_prompts
from rotary_batch.repo.git import enclosing_repository
from rotary_batch.work.connection import explained, needs_recovery, open_database
from rotary_batch.work.lock import driver_lock
from rotary_batch.work.patience import READER_PATIENCE_S
from rotary_batch.work.schema import migrate, require_current
from rotary_batch.work.store import WorkStore

EMBEDDED = Path(__file__).parent.parent / "embedded"


def database_path(settings: Settings) -> Path:
    """The database that the settings name, or the default one."""
    return settings.db or state_dir(os.environ) / "work.db"


@contextmanager
def writing(
    settings: Settings, *, create: bool = True, should_stop: Callable[[], bool] | None = None
) -> Iterator[WorkStore]:
    """The database as its one writer.  Raises BusyError when another run has it, StorageError when it is damaged."""
    path = database_path(settings)
    if not create:
        _require_database(path)
    with driver_lock(path):
        db = open_database(path, should_stop=should_stop)
        try:
            with explained(path):
                migrate(db)
                yield WorkStore(db)
        finally:
            db.close()


@contextmanager
def reading(settings: Settings) -> Iterator[WorkStore]:
    """The database for questions only.  Raises ConfigError when there is none yet, StorageError when it is damaged."""
    path = database_path(settings)
    _require_database(path)
    _recover(path)
    db = open_database(path, read_only=True)
    try:
        with explained(path):
            require_current(db)
            yield WorkStore(db)
    finally:
        db.close()


def _recover(path: Path) -> None:
    """Take back what a killed run left half done; a driver that is just beginning does it itself."""
    give_up_at = time.monotonic() + READER_PATIENCE_S
    while needs_recovery(path) and time.monotonic() < give_up_at:
        try:
            with driver_lock(path):
                open_database(path).close()
        except BusyError:
            time.sleep(0.05)


def _require_database(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise ConfigError(f"{path}: no database yet; run `rotary-batch index REPO` first, or name one with --db")


def jobs_of(settings: Settings) -> dict[str, Job]:
    """All jobs that the settings offer, by name."""
    return load_jobs(settings.jobs or bundled("jobs"))


def load_job_named(settings: Settings) -> Job:
    """The job that the settings name.  All jobs are loaded, so that a broken one is found now."""
    jobs, name = jobs_of(settings), settings.job or DEFAULT_JOB
    if name not in jobs:
        raise ConfigError(f"no job named {shown(name)}; there are {', '.join(jobs)}")
    return jobs[name]


def pack_dir(settings: Settings, progress: Callable[[int, int], None] | None = None) -> Path:
    """The pack to use: the embedded one, `--model PACK`, or `--model CHECKPOINT` packed into the cache.

    `progress` gets (experts packed, experts to pack); a pack that it stops by raising is gone on with the next time.
    """
    model = settings.model or EMBEDDED
    if not model.is_dir():
        raise ModelError(f"{model}: not a directory; --model takes a checkpoint or a pack directory")
    if (model / MANIFEST_NAME).is_file():
        found = Manifest.load(model).experts
        if settings.experts not in {None, found}:
            raise ModelError(f"{model}: its experts are {found}, not {settings.experts}; pack the checkpoint again")
        return model
    from rotary_batch.engine.pack import pack_into_cache  # torch is needed only to pack

    return pack_into_cache(
        model, cache_dir(os.environ) / "packs", experts=settings.experts or "bf16", progress=progress
    )


def asking(settings: Settings, pack: Path) -> Asking:
    """The settings' job put to the model in `pack`."""
    manifest = Manifest.load(pack)
    return Asking(
        job=load_job_named(settings),
        prompts=load_prompts(settings.prompts or bundled("prompts")),
        tokenizer=Tokenizer.load(pack),
        manifest=manifest,
        numerics=numerics_label(settings, manifest),
    )


def numerics_label(settings: Settings, manifest: Manifest) -> str:
    """How answers are computed, as far as it can change them; part of every result's key."""
    mode = settings.numerics or manifest.default_numerics
    return mode if settings.kv == "bf16" else f"{mode}, {settings.kv} keys and values"


def repository_roots(repos: Sequence[Path]) -> list[Path]:
    """The folders that a command names; left out, the repository around the current folder."""
    if repos:
        return list(dict.fromkeys(repo.resolve() for repo in repos))
    around = enclosing_repository(Path.cwd())
    if around is None:
        raise RepositoryError(f"{Path.cwd()}: not inside a git repository; name the folder to read")
    return [around]
