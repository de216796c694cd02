"""`jobs list`, `jobs show` and `jobs new`: the files of a job, and a copy of them to change."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotary_batch.commands.jobs import available_jobs, available_prompts, default_job, file_of
from rotary_batch.commands.packs import described_pack
from rotary_batch.config import DEFAULT_JOB, Settings, excerpt
from rotary_batch.core import Topic, Unit
from rotary_batch.errors import ConfigError, ModelError, StorageError
from rotary_batch.jobs import Job

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NAME_LINE = re.compile(r'^name = ".*"$', re.MULTILINE)
_PROMPT_LINE = re.compile(rf'^(prompt|part|{"|".join(Topic)}) = "([^"]+)"', re.MULTILINE)


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Every job: what it is for, what it describes, and its file."""
    default = settings.job or _default(settings)
    return [
        {
            "name": name,
            "title": job.title,
            "units": [unit.value for unit in Unit if unit in _units(job)],
            "path": str(file_of(settings, name)),
            "is_default": name == default,
        }
        for name, job in available_jobs(settings).items()
    ]


def _units(job: Job) -> set[Unit]:
    return {*job.units, *([Unit.SYMBOL] if job.symbol else []), *([Unit.TOPIC] if job.topics else [])}


def _default(settings: Settings) -> str:
    """The default job of the model that the settings name; of one that cannot be read, that of most models."""
    with suppress(ModelError):
        return default_job(settings, described_pack(settings)[1])
    return DEFAULT_JOB


def shown(settings: Settings, name: str) -> dict[str, Any]:
    """The text of a job's file and of its prompts.  Raises ConfigError."""
    job, path = _job(settings, name), file_of(settings, name)
    prompts = available_prompts(settings)
    return {
        "name": name,
        "path": str(path),
        "text": path.read_text(encoding="utf-8"),
        "prompts": {stem: prompts[stem].text for stem in job.prompt_names},
    }


def new(settings: Settings, name: str, source: str, folder: Path) -> dict[str, Any]:
    """Copy a job and its prompts below a folder under another name.

    Raises ConfigError for a name that is taken or cannot be one, StorageError.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{excerpt(name)} cannot name a job; use up to 40 small letters, digits, - and _")
    if name in available_jobs(settings):
        raise ConfigError(f"there is a job {name} already ({file_of(settings, name)}); choose another name")
    job = _job(settings, source)
    jobs, prompts = settings.jobs or folder / "jobs", settings.prompts or folder / "prompts"
    text = file_of(settings, source).read_text(encoding="utf-8")
    text = _NAME_LINE.sub(f'name = "{name}"', text, count=1)
    text = _PROMPT_LINE.sub(lambda line: f'{line[1]} = "{name}-{line[2]}"', text)
    known = available_prompts(settings)
    files = {prompts / f"{name}-{stem}.md": known[stem].text for stem in job.prompt_names}
    files[jobs / f"{name}.toml"] = text
    _write_new(files)
    missing = {"jobs": jobs} if settings.jobs is None else {}
    missing |= {"prompts": prompts} if settings.prompts is None else {}
    return {
        "name": name,
        "files": [str(path) for path in files],
        "settings": {key: str(path.resolve()) for key, path in missing.items()},
    }


def _job(settings: Settings, name: str) -> Job:
    jobs = available_jobs(settings)
    if name not in jobs:
        raise ConfigError(f"no job named {excerpt(name)}; the jobs are {', '.join(jobs)}")
    return jobs[name]


def _write_new(files: dict[Path, str]) -> None:
    """Write all, or none.  Raises ConfigError when one exists, StorageError."""
    if existing := next((path for path in files if path.exists()), None):
        raise ConfigError(f"{existing} exists already; choose another name, or move it away first")
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise StorageError(f"{written[-1] if written else path}: {error.strerror}; choose another folder") from error
