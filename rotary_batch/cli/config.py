"""`config show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import (
    Config,
    Db,
    Device,
    DeviceMemory,
    Experts,
    HostMemory,
    JobName,
    Json,
    Kv,
    LinkTemplate,
    MaxBatch,
    Model,
    Numerics,
    OneRepo,
    Out,
    Worktree,
)
from rotary_batch.cli.settings import user_settings
from rotary_batch.sizes import size_text


def show(
    repo: OneRepo = None,
    worktree: Worktree = None,
    job: JobName = None,
    model: Model = None,
    numerics: Numerics = None,
    kv: Kv = None,
    experts: Experts = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    out: Out = None,
    link_template: LinkTemplate = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show every setting, its value, and where it comes from.

    That is an option, an environment variable, a settings file, the repository's own rotary.toml, or the default.

    Examples:
        rotary-batch config show
        rotary-batch config show ~/src/app --device cuda --json
    """
    user = user_settings(
        config,
        [repo] if repo else None,
        worktree=worktree,
        job=job,
        model=model,
        numerics=numerics,
        kv=kv,
        experts=experts,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        out=out,
        link_template=link_template,
        db=db,
    )
    for note in user.for_command().notes:
        console.err(f"note: {note}")
    rows = list(commands.settings_file.origins(user))
    print_answer(rows, json, lambda: print_origins(rows))


def print_origins(rows: Sequence[dict[str, Any]]) -> None:
    """One line for each setting."""
    texts = [("setting", "value", "from"), *((row["setting"], _in_words(row), row["source"]) for row in rows)]
    first, second = (max(len(text[column]) for text in texts) for column in (0, 1))
    for name, value, source in texts:
        console.out(f"{name:<{first}}  {value:<{second}}  {source}")


def _in_words(row: dict[str, Any]) -> str:
    value = row["value"]
    if value is None or value == ():
        return commands.settings_file.DESCRIBED[row["setting"]].default or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if row["setting"].endswith("_memory"):
        return size_text(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)
