"""`init` and `config show`: a commented settings file, and where each setting comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.configuration import UserSettings, is_in_repository
from rotary_batch.commands.database import database_path
from rotary_batch.config import FILE_NAME, Settings, config_dir
from rotary_batch.errors import ConfigError, StorageError
from rotary_batch.own_file import read_own

_HEAD = """\
# Settings of rotary-batch. Each key is shown with its default, or with an example.
# To set one, remove the "# " before it.
#
# An environment variable wins over this file (ROTARY_BATCH_DEVICE=cuda), and an option over both (--device cuda).
# `rotary-batch config show` prints every setting and where it comes from.
"""


class Described(NamedTuple):
    """What a setting does, a value of it in TOML, and its default in words where the value is only an example."""

    text: str
    value: str
    default: str | None = None


DESCRIBED = {
    "db": Described("The database.", '"~/.local/state/rotary-batch/work.db"'),
    "model": Described(
        "The model: a pack, a Hugging Face checkpoint, or a GGUF file.",
        '"~/models/mixtral-int4"',
        "the demonstration model",
    ),
    "job": Described("The job to run.", '"summarize"', "the one of the last index, else summarize"),
    "jobs": Described("A folder of your own jobs, besides the bundled ones.", '"~/rotary/jobs"', "none"),
    "prompts": Described("A folder of your own prompts, besides the bundled ones.", '"~/rotary/prompts"', "none"),
    "include": Described("Patterns of the only files to document, as in .rotaryignore.", '["src/"]', "all files"),
    "exclude": Described("Patterns of files to leave out, as in .rotaryignore.", '["tests/"]', "none"),
    "out": Described("Folder of the docs inside the repository.", '"rotary-docs"'),
    "link_template": Described(
        "URL of source lines, with {path}, {start} and {end}.",
        '"https://git.example.org/app/blob/main/{path}#L{start}-L{end}"',
        "relative links",
    ),
    "worktree": Described("Read the working tree instead of the last commit.", "false"),
    "device": Described("Where to compute: cpu, cuda or cuda:N.", '"cpu"'),
    "device_memory": Described(
        "Use at most this much memory on the device.", '"22GB"', "90 % of a GPU's memory, 75 % of the free RAM"
    ),
    "host_memory": Described("With a GPU: RAM for experts and KV cache.", '"48GB"', "80 % of the free RAM"),
    "max_batch": Described("Maximum sequences in flight.", "128", "128"),
    "yields": Described("Work less while other programs need the processors, memory or the card.", "true"),
    "engine": Described(
        "subprocess: when it crashes or hangs, it is replaced. in-process: a crash ends the run.",
        '"subprocess"',
    ),
    "ray": Described("A Ray cluster whose nodes run the engines: auto, or HOST:PORT of its head.", '"auto"', "none"),
    "ray_workers": Described("How many engines the cluster runs.", "3", "as many as fit its nodes"),
    "ray_resource": Described(
        "What an engine needs of its node: NAME or NAME=AMOUNT.", '"GPU=1"', "a GPU with cuda, else a CPU"
    ),
    "insecure_ray": Described("Join a Ray cluster that asks for no token.", "false"),
    "numerics": Described(
        "exact: answers do not depend on the batch. fast: higher speed.",
        '"fast"',
        "exact for plain models up to 1 GB, else fast",
    ),
    "kv": Described("Format of the KV cache: bf16 or int8.", '"bf16"'),
    "experts": Described(
        "Format of the experts: bf16, int8 or int4. A checkpoint is packed in it; a pack must have it.",
        '"int4"',
        "that of the pack, or bf16",
    ),
    "prometheus": Described(
        "A file for metrics of each run, for the textfile collector of node_exporter.",
        '"/var/lib/node_exporter/rotary-batch.prom"',
        "none",
    ),
    "on_finish": Described(
        "A command that gets the report as JSON on stdin when a run has ended.",
        "\"mail -s 'The night' me@example.org\"",
        "none",
    ),
}
assert list(DESCRIBED) == [field.name for field in fields(Settings)], "every setting is described, in the same order"


def settings_file() -> str:
    """A settings file in which every key is commented out."""
    return "\n".join([_HEAD, *map(_entry, DESCRIBED)])


def _entry(name: str) -> str:
    text, value, default = DESCRIBED[name]
    return f"# {text}{f' Default: {default}.' if default else ''}\n# {name} = {value}\n"


def init(*, for_user: bool) -> dict[str, Any]:
    """Write a settings file: into this folder, or where it applies in every folder.

    A file inside a repository counts as a stranger's, so there it goes to the user's folder too.  Raises ConfigError
    when the file exists, StorageError.
    """
    here = Path.cwd()
    in_repository = is_in_repository(here, set())
    folder = config_dir(os.environ) if for_user or in_repository else here
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(path, settings_file())
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already; edit it, or move it away first") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; choose another folder") from error
    return {"file": str(path), "in_repository": in_repository and not for_user}


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:  # a full disk: half a file would be in the way next time
            path.unlink()
            raise


def origins(user: UserSettings) -> Iterator[dict[str, Any]]:
    """Every setting: its name, its value, and where that comes from."""
    found = user.for_command()
    root = user.only_repository
    own = read_own(root, os.environ).values if root else {}
    for name in DESCRIBED:
        value = database_path(found.settings) if name == "db" else getattr(found.settings, name)
        source = user.sources.get(name)
        if source is None and root and name in own and own[name] == value:
            source = str(root / FILE_NAME)
        yield {"setting": name, "value": value, "source": source or "default"}
