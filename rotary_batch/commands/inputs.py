"""Open what a command needs: the repositories, the job, the model.  The database is in `database.py`.

Knows defaults and where things live; knows nothing of what is done with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rotary_batch.commands.roots import resolved
from rotary_batch.config import DEFAULT_JOB, Settings, bundled, cache_dir, excerpt
from rotary_batch.errors import ConfigError, ModelError, RepositoryError
from rotary_batch.jobs import Job, load_jobs
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.prompts import load_prompts
from rotary_batch.repo.git import enclosing_repository
from rotary_batch.work.rows import RepositoryRow

EMBEDDED = Path(__file__).parent.parent / "embedded"


def jobs_of(settings: Settings) -> dict[str, Job]:
    """All jobs that the settings offer, by name."""
    return load_jobs(settings.jobs or bundled("jobs"))


def load_job_named(settings: Settings) -> Job:
    """The job that the settings name.  All jobs are loaded, so that a broken one is found now."""
    jobs, name = jobs_of(settings), settings.job or DEFAULT_JOB
    if name not in jobs:
        raise ConfigError(f"no job named {excerpt(name)}; there are {', '.join(jobs)}")
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
    from rotary_batch.engine.packs.pack import pack_into_cache  # torch is needed only to pack

    return pack_into_cache(
        model, cache_dir(os.environ) / "packs", experts=settings.experts or "bf16", progress=progress
    )


def pack_of(row: RepositoryRow) -> Path:
    """The pack that a repository was indexed with.  Raises ModelError when it is gone."""
    pack = Path(row.pack_dir)
    if (pack / MANIFEST_NAME).is_file():
        return pack
    if row.model_name == Manifest.load(EMBEDDED).name:  # that one moves with the program
        return EMBEDDED
    raise ModelError(f"{pack}: {row.root} was indexed with this model, and it is gone; name one with --model")


def asking(settings: Settings, pack: Path) -> PromptBuilder:
    """The settings' job put to the model in `pack`."""
    manifest = Manifest.load(pack)
    return PromptBuilder(
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


def repository_root(repo: Path | None) -> Path:
    """The folder that a command names; left out, the repository around the current folder."""
    around = repo or enclosing_repository(Path.cwd())
    if around is None:
        raise RepositoryError(f"{Path.cwd()}: not inside a git repository; name the folder to read")
    return resolved(around)
