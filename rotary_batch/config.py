"""Settings: `rotary.toml`, then `ROTARY_BATCH_*`, then flags; later ones win.

Knows every setting's name and how its text is read; knows nothing of what a setting does.  Callers hand the
environment in.  An unknown name is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rotary_batch.errors import ConfigError, UsageError

FILE_NAME = "rotary.toml"
ENVIRONMENT_PREFIX = "ROTARY_BATCH_"
DEFAULT_DOCS_DIR = "rotary-docs"
ISA_LEVELS = ("portable", "avx2", "avx512_bf16", "amx")  # instructions of processors, each with those before it
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set.  None = decided where it is used, as the documentation of each says."""

    db: Path | None = None  # the database; default below $XDG_STATE_HOME
    model: Path | None = None  # a pack or a Hugging Face checkpoint; default the embedded one
    job: str = "summarize"
    jobs: Path | None = None  # folder of job files instead of the bundled ones
    prompts: Path | None = None  # folder of prompt files instead of the bundled ones
    out: str = DEFAULT_DOCS_DIR  # the docs folder, relative to the repository
    link_template: str | None = None  # {path} {start} {end} -> a link to source lines
    worktree: bool = False  # read files as they are, not as committed
    device: str = "cpu"
    device_memory: int | None = None  # bytes
    host_memory: int | None = None  # bytes
    max_batch: int | None = None  # live sequences
    numerics: str | None = None  # exact or fast
    kv: str = "bf16"  # how keys and values are kept: bf16 (as computed) or int8
    experts: str | None = None  # bf16, int8 or int4: what a checkpoint is packed as, and what a pack must be


def parse_nbytes(text: str) -> int:
    """Read `22GB`, `512MB`, `64GiB` or plain bytes; MB = 10^6, MiB = 2^20.  Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    nbytes = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    if nbytes == 0:
        raise ConfigError(f"{text!r} is not a size; write for example 512MB, 22GB or 64GiB")
    return nbytes


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ConfigError(f"{text!r} is not true or false")
    return text.lower() in {"true", "1"}


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ConfigError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return read


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"{text!r} is not a whole number above 0")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ConfigError(f"{text!r} is not a device; use cpu, cuda or cuda:N")
    return text


def _path(text: str) -> Path:
    if not text:
        raise ConfigError("'' is not a path")
    return Path(text).expanduser()


def _docs_dir(text: str) -> str:
    path = PurePosixPath(text)
    if not text or path == PurePosixPath() or ".." in path.parts or ".git" in path.parts:
        raise ConfigError(f"{text!r} is no place for docs; name a folder of their own inside the repository, or /PATH")
    return text


def _link_template(text: str) -> str:
    try:
        text.format_map({"path": "p", "start": 1, "end": 2})
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"{text!r} may hold {{path}}, {{start}} and {{end}} and no other braces") from error
    return text


_READERS: dict[str, Callable[[str], object]] = {
    "db": _path, "model": _path, "jobs": _path, "prompts": _path,
    "job": str, "out": _docs_dir, "link_template": _link_template, "worktree": _boolean, "device": _device,
    "device_memory": parse_nbytes, "host_memory": parse_nbytes, "max_batch": _positive,
    "numerics": _one_of("exact", "fast"), "kv": _one_of("bf16", "int8"), "experts": _one_of("bf16", "int8", "int4"),
}  # fmt: skip
_ENVIRONMENT_ONLY = ("max_isa",)  # they belong to a machine, not to a repository


def refuse_unknown(source: str, found: Collection[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first name in `found` that is not known, with the nearest that is."""
    for name in sorted(set(found) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ConfigError(f"{source}: unknown key {name!r}; did you mean {near[0]!r}?")


def load_settings(
    *,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    folders: Collection[Path],
    config: Path | None,
) -> Settings:
    """Put the three sources together.  `flags` that are None were not given; text is read as in a file.

    The file is `config`, or the first `rotary.toml` in `folders`.  Raises ConfigError, UsageError for a flag.
    """
    path = config or next((f / FILE_NAME for f in folders if (f / FILE_NAME).is_file()), None)
    settings = Settings()
    if path is not None:
        settings = replace(settings, **_from_file(path))
    settings = replace(settings, **_from_environment(environment))
    return replace(settings, **{name: _flag(name, value) for name, value in flags.items() if value is not None})


def _flag(name: str, value: Any) -> Any:  # noqa: ANN401
    if name == "db" and value.is_dir():
        raise UsageError(f"--db: '{value}' is a folder; name a file in it")
    if not isinstance(value, str):
        return value
    try:
        return _READERS[name](value)
    except ConfigError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    refuse_unknown(str(path), table, _READERS)
    values = {name: _read(f"{path}: {name}", name, _as_text(value)) for name, value in table.items()}
    return {name: _beside(path, value) for name, value in values.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    ours = {
        k.removeprefix(ENVIRONMENT_PREFIX).lower(): v
        for k, v in environment.items()
        if k.startswith(ENVIRONMENT_PREFIX)
    }
    max_isa(environment)
    refuse_unknown(f"environment ({ENVIRONMENT_PREFIX}*)", ours, {*_READERS, *_ENVIRONMENT_ONLY})
    ours = {name: text for name, text in ours.items() if name not in _ENVIRONMENT_ONLY}
    return {name: _read(f"{ENVIRONMENT_PREFIX}{name.upper()}", name, text) for name, text in ours.items()}


def _read(source: str, name: str, text: str) -> object:
    try:
        return _READERS[name](text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _beside(path: Path, value: object) -> object:
    """Relative paths in a file are relative to that file."""
    return path.parent / value if isinstance(value, Path) else value


def state_dir(environment: Mapping[str, str]) -> Path:
    """Where the database and the reports live by default."""
    return _xdg(environment, "XDG_STATE_HOME", ".local/state")


def cache_dir(environment: Mapping[str, str]) -> Path:
    """Where packs made from `--model CHECKPOINT` live."""
    return _xdg(environment, "XDG_CACHE_HOME", ".cache")


def c_compiler(environment: Mapping[str, str]) -> str | None:
    """What compiles the kernels of the engine, if anything: `CC`, else cc, gcc or clang."""
    return environment.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def max_isa(environment: Mapping[str, str]) -> str | None:
    """The instructions that kernels may use at most, for tests and for a machine whose kernels misbehave.

    Raises ConfigError.
    """
    name = f"{ENVIRONMENT_PREFIX}MAX_ISA"
    if (label := environment.get(name)) is not None and label not in ISA_LEVELS:
        raise ConfigError(f"{name}: {label!r} is not one of {', '.join(ISA_LEVELS)}")
    return label


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    try:
        base = environment.get(variable) or str(Path(environment.get("HOME") or "~").expanduser() / fallback)
    except RuntimeError as error:  # an account without a home folder
        raise ConfigError(f"neither HOME nor {variable} is set; set one of them") from error
    return Path(base) / "rotary-batch"


def bundled(folder: str) -> Path:
    """The `jobs` or `prompts` folder: inside an installed wheel, else beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "_bundled" / folder
    return inside if inside.is_dir() else package.parent / folder


assert {field.name for field in fields(Settings)} == set(_READERS), "every setting has a reader"
