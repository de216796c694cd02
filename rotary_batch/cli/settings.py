"""The settings of a command, with the notes about settings that were ignored printed to stderr."""

from __future__ import annotations

from pathlib import Path

from rotary_batch import console
from rotary_batch.commands.configuration import Configured, configure
from rotary_batch.config import Settings


def configured(config: Path | None, repos: list[Path] | None, **flags: object) -> Configured:
    """What the user set, for commands that read the settings of each repository themselves."""
    user = configure(config, repos or [], flags)
    for note in user.notes:
        console.err(f"note: {note}")
    return user


def command_settings(config: Path | None, repos: list[Path] | None, **flags: object) -> Settings:
    """The settings that apply to the whole command."""
    whole = configured(config, repos, **flags).whole()
    for note in whole.notes:
        console.err(f"note: {note}")
    return whole.settings
