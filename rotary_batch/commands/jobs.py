"""The job that the settings name, and the PromptBuilder that puts its questions to a model."""

from __future__ import annotations

from pathlib import Path

from rotary_batch.config import DEFAULT_JOB, Settings, bundled, excerpt
from rotary_batch.errors import ConfigError
from rotary_batch.jobs import Job, load_jobs
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.prompts import load_prompts


def available_jobs(settings: Settings) -> dict[str, Job]:
    """All jobs that the settings offer, by name.  Raises ConfigError."""
    return load_jobs(settings.jobs or bundled("jobs"))


def find_job(settings: Settings) -> Job:
    """The job that the settings name.  All jobs are loaded, so that a broken one is reported now."""
    jobs, name = available_jobs(settings), settings.job or DEFAULT_JOB
    if name not in jobs:
        raise ConfigError(f"no job named {excerpt(name)}; the jobs are {', '.join(jobs)}")
    return jobs[name]


def load_prompt_builder(settings: Settings, pack: Path) -> PromptBuilder:
    """The prompts of the settings' job for the model in `pack`."""
    manifest = Manifest.load(pack)
    return PromptBuilder(
        job=find_job(settings),
        prompts=load_prompts(settings.prompts or bundled("prompts")),
        tokenizer=Tokenizer.load(pack),
        manifest=manifest,
        numerics=numerics_label(settings, manifest),
    )


def numerics_label(settings: Settings, manifest: Manifest) -> str:
    """What can change an answer besides model and prompt.  Part of every result's key, so the text must not change."""
    mode = settings.numerics or manifest.default_numerics
    return mode if settings.kv == "bf16" else f"{mode}, {settings.kv} keys and values"
