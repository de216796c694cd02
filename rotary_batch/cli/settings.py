"""The settings of a command, with the notes about ignored settings printed to stderr."""

from __future__ import annotations

from pathlib import Path

from rotary_batch import console
from rotary_batch.commands.configuration import UserSettings, configure
from rotary_batch.commands.repositories import whole_repository
from rotary_batch.config import Settings
from rotary_batch.errors import StorageError
from rotary_batch.log import log_to


def start_log(path: Path | None) -> None:
    """Log to the file of `--log`, if there is one.  Raises StorageError."""
    if path is None:
        return
    try:
        log_to(path)
    except OSError as error:
        raise StorageError(f"--log: {path}: {error.strerror}; name another file") from error


def user_settings(config: Path | None, repos: list[Path] | None, **flags: object) -> UserSettings:
    """What the user set.  Commands that work on several repositories ask it for the settings of each."""
    user = configure(config, repos or [], flags)
    for note in user.notes:
        console.err(f"note: {note}")
    return user


def whole_settings(config: Path | None, root: Path, what: str, **flags: object) -> tuple[Path, Settings]:
    """The repository around a folder without docs of its own, else the folder, and its settings.

    `what` is done to the repository, if it is not the folder; a note says so.
    """
    settings = command_settings(config, [root], **flags)
    around = whole_repository(root, settings.out)
    if around is None:
        return root, settings
    console.err(f"note: {root} has no docs of its own, so {around} is {what}")
    return around, command_settings(config, [around], **flags)


def command_settings(config: Path | None, repos: list[Path] | None, **flags: object) -> Settings:
    """The settings that apply to the whole command."""
    settings = user_settings(config, repos, **flags).for_command()
    for note in settings.notes:
        console.err(f"note: {note}")
    return settings.settings
