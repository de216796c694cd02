"""The job that the settings name, and the PromptBuilder that puts its questions to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rotary_batch.config import DEFAULT_JOB, Settings, bundled, excerpt
from rotary_batch.errors import ConfigError
from rotary_batch.jobs import Job, load_jobs
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.prompts import Prompt, load_prompts


def available_jobs(settings: Settings) -> dict[str, Job]:
    """All jobs by name: the bundled ones, and those of the user's folder, which come first.  Raises ConfigError."""
    jobs = load_jobs(bundled("jobs"))
    return jobs if settings.jobs is None else jobs | load_jobs(settings.jobs)


def available_prompts(settings: Settings) -> dict[str, Prompt]:
    """All prompts by their stem, as `available_jobs` has the jobs.  Raises ConfigError."""
    prompts = load_prompts(bundled("prompts"))
    return prompts if settings.prompts is None else prompts | load_prompts(settings.prompts)


def file_of(settings: Settings, job: str) -> Path:
    """The file of a job."""
    own = settings.jobs / f"{job}.toml" if settings.jobs else None
    return own if own and own.is_file() else bundled("jobs") / f"{job}.toml"


def default_job(settings: Settings, manifest: Manifest) -> str:
    """The job that the model was made for, unless the user has an own one under the name of all models' default."""
    has_own = settings.jobs is not None and (settings.jobs / f"{DEFAULT_JOB}.toml").is_file()
    return DEFAULT_JOB if has_own or manifest.job is None else manifest.job


def find_job(settings: Settings, manifest: Manifest) -> Job:
    """The job that the settings name, or the default.  All are loaded, so that a broken one is reported now."""
    jobs, name = available_jobs(settings), settings.job or default_job(settings, manifest)
    if name not in jobs:
        raise ConfigError(f"no job named {excerpt(name)}; the jobs are {', '.join(jobs)}")
    return jobs[name]


def load_prompt_builder(settings: Settings, pack: Path) -> PromptBuilder:
    """The prompts of the settings' job for the model in `pack`."""
    manifest = Manifest.load(pack)
    job = find_job(settings, manifest)
    return PromptBuilder(
        job=job,
        prompts=_prompts_of(job, available_prompts(settings)),
        tokenizer=Tokenizer.load(pack),
        manifest=manifest,
        numerics=numerics_label(settings, manifest),
    )


def _prompts_of(job: Job, prompts: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """Those that a job names: others do not concern its answers."""
    return {stem: prompt for stem, prompt in prompts.items() if stem in job.prompt_names}


def numerics_label(settings: Settings, manifest: Manifest) -> str:
    """What can change an answer besides model and prompt.  Part of every result's key, so the text must not change."""
    mode = settings.numerics or manifest.default_numerics
    return mode if settings.kv == "bf16" else f"{mode}, {settings.kv} keys and values"
