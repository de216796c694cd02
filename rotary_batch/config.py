"""Settings: the user's `rotary.toml`, then `ROTARY_BATCH_*`, then flags; later ones win.

Has the name of every setting and the reader of its text.  Callers pass the environment.  An unknown name is an error
that names the nearest known one.  What a repository may set is in own_file.py.
"""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, get_args

from rotary_batch.errors import ConfigError, UsageError

FILE_NAME = "rotary.toml"
ENVIRONMENT_PREFIX = "ROTARY_BATCH_"
DEFAULT_DOCS_DIR = "rotary-docs"
DEFAULT_JOB = "summarize"
LINK_FIELD = re.compile(r"\{(path|start|end)\}")
ExpertFormat = Literal["bf16", "int8", "int4"]  # how a pack stores expert weights; model/slabs.py specifies each
EXPERT_FORMATS: tuple[str, ...] = get_args(ExpertFormat)
NUMERICS = ("exact", "fast")
ENGINE_PLACES = ("in-process", "subprocess")
KV_FORMATS = ("bf16", "int8")
ISA_LEVELS = ("portable", "avx2", "avx_vnni", "avx512_bf16", "amx")  # CPU instructions, the highest that may be used
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set.  None = decided where the setting is used."""

    db: Path | None = None  # the database; default below $XDG_STATE_HOME
    model: Path | None = None  # a pack or a Hugging Face checkpoint; default the embedded one
    job: str | None = None  # by name; default the one that a repository was indexed with, else summarize
    jobs: Path | None = None  # folder of job files instead of the bundled ones
    prompts: Path | None = None  # folder of prompt files instead of the bundled ones
    include: tuple[str, ...] = ()  # patterns as in .rotaryignore of files to document; empty = all
    exclude: tuple[str, ...] = ()  # patterns as in .rotaryignore of files to leave out
    out: str = DEFAULT_DOCS_DIR  # the docs folder, relative to the repository
    link_template: str | None = None  # {path} {start} {end} -> a link to source lines
    worktree: bool = False  # read the working tree instead of the last commit
    device: str = "cpu"
    device_memory: int | None = None  # bytes
    host_memory: int | None = None  # bytes
    max_batch: int | None = None  # sequences at once
    yields: bool = True  # to other programs that need the processors, memory or the card
    engine: str = "subprocess"  # or in-process: where it runs
    ray: str | None = None  # auto, or HOST:PORT of a Ray cluster: engines run on its nodes
    ray_workers: int | None = None  # engines; default as many as fit
    ray_resource: str | None = None  # NAME or NAME=AMOUNT that an engine needs of its node
    insecure_ray: bool = False  # join a cluster that asks for no token
    numerics: str | None = None  # exact or fast
    kv: str = "bf16"  # format of the KV cache: bf16 (as computed) or int8
    experts: str | None = None  # bf16, int8 or int4: a checkpoint is packed in it, a pack must have it
    prometheus: Path | None = None  # a file for metrics
    on_finish: str | None = None  # a command that gets the report on stdin; words as in a shell, but no shell runs


def parse_nbytes(text: str) -> int:
    """Read `22GB`, `512MB` or `64GiB`; MB = 10^6, MiB = 2^20.  Raises ConfigError, also for a number without a unit."""
    if re.fullmatch(r"\s*0*[1-9]\d{0,17}\s*", text, re.ASCII):
        raise ConfigError(f"{int(text)} has no unit; write for example {_with_unit(int(text))}")
    match = re.fullmatch(r"\s*(\d{1,19}(?:\.\d{1,19})?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    nbytes = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    if nbytes == 0:
        raise ConfigError(f"{excerpt(text)} is not a size; write for example 512MB, 22GB or 64GiB")
    return nbytes


def _with_unit(number: int) -> str:
    """What a number without a unit probably means."""
    return f"{number}{'GB' if number < 2000 else 'MB' if number < 10**6 else 'B'}"


def excerpt(value: object) -> str:
    """A value as an error quotes it: one line of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ConfigError(f"{excerpt(text)} is not true or false")
    return text.lower() in {"true", "1"}


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader of one of a few words.  It raises ConfigError, which names the nearest one."""

    def read(text: str) -> str:
        if text not in choices:
            raise ConfigError(f"{excerpt(text)} is not one of {', '.join(choices)}{did_you_mean(text, choices)}")
        return text

    return read


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,17}", text, re.ASCII):
        raise ConfigError(f"{excerpt(text)} is not a whole number above 0")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", text, re.ASCII):
        raise ConfigError(f"{excerpt(text)} is not a device; use cpu, cuda or cuda:N")
    return text


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ConfigError(f"{excerpt(text)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{excerpt(text)}: no such user; write the path out") from error


def _docs_dir(text: str) -> str:
    path = PurePosixPath(text)
    if not text or "\0" in text or path == PurePosixPath() or ".." in path.parts or ".git" in path.parts:
        raise ConfigError(
            f"{excerpt(text)} cannot be the docs folder; name a folder inside the repository for docs alone, or /PATH"
        )
    return str(path)  # without `./` and trailing slash: pages are told from sources by this path


def _link_template(text: str) -> str:
    if re.search(r"[{}]", LINK_FIELD.sub("", text)) or not text.isprintable():
        raise ConfigError(f"{excerpt(text)} may hold {{path}}, {{start}} and {{end}} and no other braces")
    if "{path}" not in text:
        raise ConfigError(
            f"{excerpt(text)} has no {{path}}; write for example https://host/{{path}}#L{{start}}-L{{end}}"
        )
    return text


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:  # a quotation mark without its partner
        raise ConfigError(f"{excerpt(text)} is not a command: {error}") from error
    if not words or "\0" in text:
        raise ConfigError(f"{excerpt(text)} is not a command; write for example 'mail -s Night me@example.org'")
    return text


def _cluster(text: str) -> str:
    if not re.fullmatch(r"auto|[A-Za-z0-9_.-]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", text, re.ASCII):
        raise ConfigError(f"{excerpt(text)} is not a Ray cluster; write auto, or HOST:PORT of its head")
    return text


def _resource(text: str) -> str:
    named_amount(text)
    return text


def named_amount(text: str) -> tuple[str, float]:
    """Read `NAME` or `NAME=AMOUNT`; without an amount it is 1.  Raises ConfigError."""
    match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_:.-]*)(?:=(\d{1,6}(?:\.\d{1,4})?))?", text, re.ASCII)
    amount = float(match[2] or 1) if match else 0.0
    if match is None or not amount:
        raise ConfigError(f"{excerpt(text)} is not a resource; write for example rotary, GPU=1 or CPU=4")
    return match[1], amount


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split("\n")))


_READERS: dict[str, Callable[[str], object]] = {
    "db": _path,
    "model": _path,
    "jobs": _path,
    "prompts": _path,
    "job": str,
    "include": _patterns,
    "exclude": _patterns,
    "out": _docs_dir,
    "link_template": _link_template,
    "worktree": _boolean,
    "device": _device,
    "device_memory": parse_nbytes,
    "host_memory": parse_nbytes,
    "max_batch": _positive,
    "yields": _boolean,
    "engine": one_of(*ENGINE_PLACES),
    "ray": _cluster,
    "ray_workers": _positive,
    "ray_resource": _resource,
    "insecure_ray": _boolean,
    "numerics": one_of(*NUMERICS),
    "kv": one_of(*KV_FORMATS),
    "experts": one_of(*EXPERT_FORMATS),
    "prometheus": _path,
    "on_finish": _command,
}
# The TOML type that a file may hold instead of a string.
_KINDS: dict[str, type] = {
    "worktree": bool,
    "yields": bool,
    "max_batch": int,
    "ray_workers": int,
    "insecure_ray": bool,
    "include": list,
    "exclude": list,
}
_MAX_WORD = 100  # characters that are compared with known words
_ENVIRONMENT_ONLY = ("max_isa",)  # a property of the machine


def did_you_mean(word: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'device'?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word[:_MAX_WORD], known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def refuse_unknown(source: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first name that is not known, with the nearest known one."""
    for name in sorted(set(names) - set(known)):
        advice = did_you_mean(name, known) or f"; the keys are {', '.join(sorted(known))}"
        raise ConfigError(f"{source}: unknown key {excerpt(name)}{advice}")


class Origin(NamedTuple):
    """The value of a setting, and where it was set: a file, an environment variable or an option."""

    value: Any
    source: str


def user_values(
    *,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    folders: Collection[Path],
    config: Path | None,
) -> dict[str, Origin]:
    """What the three sources set.  A flag that is None was not given; text is read as in a file.

    The file is `config`, or the first `rotary.toml` in `folders`.  Raises ConfigError, UsageError for a flag.
    """
    path = config or next((f / FILE_NAME for f in folders if (f / FILE_NAME).is_file()), None)
    from_file = {} if path is None else _from_file(path)
    from_flags = {name: _flag(name, value) for name, value in flags.items() if value is not None}
    return (
        {name: Origin(value, str(path)) for name, value in from_file.items()}
        | {name: Origin(value, _variable(name)) for name, value in _from_environment(environment).items()}
        | {name: Origin(value, _option(name)) for name, value in from_flags.items()}
    )


def _variable(name: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flag(name: str, value: Any) -> Any:  # noqa: ANN401
    if name == "db" and value.is_dir():
        raise UsageError(f"--db: '{value}' is a folder; name a file in it")
    if not isinstance(value, str):
        return value
    try:
        return _READERS[name](value)
    except ConfigError as error:
        raise UsageError(f"{_option(name)}: {error}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file with --config") from error
    table = parse_toml(path, data)
    refuse_unknown(str(path), table, _READERS)
    return {name: read_value(path, name, value) for name, value in table.items()}


def parse_toml(path: Path, data: bytes) -> dict[str, Any]:
    """The table in a settings file.  Raises ConfigError when it is not TOML."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError as error:  # thousands of nested brackets
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from error
    except ValueError as error:  # also a number of 5,000 digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def read_value(path: Path, name: str, value: object) -> object:
    """One known setting of a file; relative paths are relative to that file.  Raises ConfigError."""
    source = f"{path}: {name}"
    setting = _read(source, name, _as_text(source, name, value))
    return path.parent / setting if isinstance(setting, Path) else setting


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    ours = {
        k.removeprefix(ENVIRONMENT_PREFIX).lower(): v
        for k, v in environment.items()
        if k.startswith(ENVIRONMENT_PREFIX)
    }
    max_isa(environment)
    refuse_unknown(f"environment ({ENVIRONMENT_PREFIX}*)", ours, {*_READERS, *_ENVIRONMENT_ONLY})
    ours = {name: text for name, text in ours.items() if name not in _ENVIRONMENT_ONLY}
    return {name: _read(_variable(name), name, text) for name, text in ours.items()}


def _read(source: str, name: str, text: str) -> object:
    try:
        return _READERS[name](text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _as_text(source: str, name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and _KINDS.get(name) is list and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, int) and isinstance(value, _KINDS.get(name, str)):
        return str(value).lower()
    if isinstance(value, int) and value > 0 and value is not True and _READERS[name] is parse_nbytes:
        raise ConfigError(f'{source}: {value} has no unit; write it in quotes, for example "{_with_unit(value)}"')
    wanted = {list: "a list of strings", int: "a number or a string", bool: "true or false"}.get(_KINDS.get(name, str))
    raise ConfigError(f"{source}: a {type(value).__name__}; write {wanted or 'a string'}")


def state_dir(environment: Mapping[str, str]) -> Path:
    """The default folder of the database and the reports."""
    return _xdg(environment, "XDG_STATE_HOME", ".local/state")


def config_dir(environment: Mapping[str, str]) -> Path:
    """The folder of the user's settings file, which is read when the current folder has none."""
    return _xdg(environment, "XDG_CONFIG_HOME", ".config")


def cache_dir(environment: Mapping[str, str]) -> Path:
    """The folder of packs that were made from `--model CHECKPOINT`, of rates and of kernels."""
    return _xdg(environment, "XDG_CACHE_HOME", ".cache")


def kernel_dir(environment: Mapping[str, str]) -> Path:
    """The folder of compiled kernels."""
    return cache_dir(environment) / "kernels"


def c_compiler(environment: Mapping[str, str]) -> str | None:
    """The compiler for the kernels of the engine: `CC`, else cc, gcc or clang; None when there is none."""
    return environment.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def max_isa(environment: Mapping[str, str]) -> str | None:
    """A cap on the CPU instructions that kernels use, for tests and for machines where a kernel misbehaves.

    Raises ConfigError.
    """
    name = f"{ENVIRONMENT_PREFIX}MAX_ISA"
    return isa_named(environment[name], source=name) if name in environment else None


def isa_named(label: str, source: str) -> str:
    """The label that `source` gave, checked.  Raises ConfigError when it is not one of ISA_LEVELS."""
    if label not in ISA_LEVELS:
        raise ConfigError(f"{source}: {label!r} is not one of {', '.join(ISA_LEVELS)}")
    return label


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    try:
        base = environment.get(variable) or str(Path(environment.get("HOME") or "~").expanduser() / fallback)
    except RuntimeError as error:  # an account without a home folder
        raise ConfigError(f"neither HOME nor {variable} is set; set one of them") from error
    return Path(base) / "rotary-batch"


def bundled(folder: str) -> Path:
    """The `jobs` or `prompts` folder: inside the package of a wheel, next to the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "_bundled" / folder
    return inside if inside.is_dir() else package.parent / folder


assert {field.name for field in fields(Settings)} == set(_READERS), "every setting has a reader"
