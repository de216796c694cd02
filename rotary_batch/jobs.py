"""Load and check `jobs/*.toml`: which units the model describes, with which prompts and limits."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rotary_batch.config import excerpt, parse_toml, refuse_unknown
from rotary_batch.core import SourceFile, Topic, Unit
from rotary_batch.errors import ConfigError
from rotary_batch.model.chat import VARIABLES

# Symbols that get no answer: those whose code says it all, those whose author did, those that users do not see.
SKIP_WORDS = ("trivial", "documented", "private")
# What else of a symbol is told: what its code has, the first three with a line of the model on each; a test of it.
DETAIL_WORDS = ("parameters", "returns", "raises", "examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """The prompt and the limits of one unit of a job."""

    prompt: str  # stem of a file in prompts/
    new_tokens: int
    sentences: int | None = None  # the most in an answer
    part: str | None = None  # the prompt that reduces notes that are too long for `prompt_tokens`
    chunk_tokens: int | None = None  # chunks only: source tokens in one
    prompt_tokens: int | None = None  # roll-ups only: tokens of a whole prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolSpec:
    """The limits of the answers on symbols, which continue the prompt of their chunk, and which symbols get none."""

    new_tokens: int
    sentences: int | None = None
    skip: tuple[str, ...] = ()  # words of `SKIP_WORDS`
    context_tokens: int | None = None  # of what is told of the code around a chunk; None = only where it is in its file
    # Words of `DETAIL_WORDS`.  The index key has them besides the job's text.
    details: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """The prompts and limits of the topics that people who are new to a repository ask about."""

    prompts: Mapping[Topic, str]  # stems of files in prompts/
    prompt_tokens: int  # of a whole prompt; facts that do not fit are left out, the least useful first
    new_tokens: int
    sentences: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Which source files a job describes; an empty field selects all."""

    languages: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def selects(self, path: str, language: str | None) -> bool:
        """Whether a file is selected."""
        if self.languages and language not in self.languages:
            return False
        if self.include and not any(fnmatch.fnmatchcase(path, pattern) for pattern in self.include):
            return False
        return not any(fnmatch.fnmatchcase(path, pattern) for pattern in self.exclude)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job file."""

    name: str
    title: str
    units: Mapping[Unit, UnitSpec]
    select: Select
    attempts: int
    # None = the model is asked about chunks, not about symbols.  The index key has it besides the job's text.
    symbol: SymbolSpec | None = field(default=None, repr=False)
    # None = nothing is asked about topics.  The index key has it besides the job's text.
    topics: TopicSpec | None = field(default=None, repr=False)
    # What the model's chat template asks for.  The index key has it besides the job's text.
    template: Mapping[str, bool | int | str] = field(default_factory=dict, repr=False)

    @property
    def prompt_names(self) -> list[str]:
        """The stems of its prompts, each once."""
        of_units = (stem for spec in self.units.values() for stem in (spec.prompt, spec.part) if stem)
        return list(dict.fromkeys([*of_units, *(self.topics.prompts.values() if self.topics else ())]))

    def selects(self, file: SourceFile) -> bool:
        """Whether it describes a source file."""
        return self.select.selects(file.path, file.language)

    def longest_rollup_tokens(self, context_tokens: int) -> int:
        """The most tokens that a prompt that is not known yet and its answer may have."""
        longest = [unit.prompt_tokens + unit.new_tokens for unit in self.units.values() if unit.prompt_tokens]
        longest += [self.topics.prompt_tokens + self.topics.new_tokens] if self.topics else []
        return min(context_tokens, max(longest, default=0))


def load_jobs(folder: Path) -> dict[str, Job]:
    """All `*.toml` of a folder by name.  Raises ConfigError naming the file and the key."""
    jobs = {path.stem: load_job(path) for path in sorted(folder.glob("*.toml"))}
    if not jobs:
        raise ConfigError(f"{folder}: no jobs (*.toml) in this folder; reinstall the package or name another folder")
    return jobs


def load_job(path: Path) -> Job:
    """Read one job file.  Raises ConfigError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name another folder of jobs") from error
    tables = parse_toml(path, data)
    refuse_unknown(
        str(path),
        tables,
        {"job", "select", "limits", "template", *(unit.value for unit in Unit if unit is not Unit.DETAIL)},
    )
    head = _table(path, tables, "job", {"name": str, "title": str})
    if head.get("name") != path.stem:
        raise ConfigError(
            f"{path}: [job] name is {excerpt(head.get('name'))}; it must be the file's stem {path.stem!r}"
        )
    limits = _table(path, tables, "limits", {"attempts": int})
    units: dict[Unit, UnitSpec] = {
        unit: _unit(path, tables, unit) for unit in Unit if unit in tables and unit not in {Unit.SYMBOL, Unit.TOPIC}
    }
    if Unit.SYMBOL in tables and Unit.CHUNK not in units:
        raise ConfigError(f"{path}: [symbol] continues the prompt of [chunk], which is missing; add it")
    return Job(
        name=path.stem,
        title=head.get("title", path.stem),
        units=units,
        select=_select(path, tables),
        attempts=limits.get("attempts", 3),
        symbol=_symbol(path, tables) if Unit.SYMBOL in tables else None,
        topics=_topics(path, tables) if Unit.TOPIC in tables else None,
        template=_table(path, tables, "template", VARIABLES),
    )


def _unit(path: Path, tables: Mapping[str, Any], unit: Unit) -> UnitSpec:
    budget = "chunk_tokens" if unit is Unit.CHUNK else "prompt_tokens"
    kinds: dict[str, type] = {"prompt": str, "new_tokens": int, "sentences": int, budget: int}
    if unit is not Unit.CHUNK:
        kinds["part"] = str
    values = _table(path, tables, unit, kinds)
    if missing := kinds.keys() - values.keys() - {"sentences"}:
        raise ConfigError(f"{path}: [{unit}] lacks {min(missing)!r}")
    return UnitSpec(**values)


def _symbol(path: Path, tables: Mapping[str, Any]) -> SymbolSpec:
    values = _table(
        path,
        tables,
        Unit.SYMBOL,
        {"new_tokens": int, "sentences": int, "skip": list, "context_tokens": int, "details": list},
    )
    if "new_tokens" not in values:
        raise ConfigError(f"{path}: [symbol] lacks 'new_tokens'")
    skip, details = _words(path, "skip", values, SKIP_WORDS), _words(path, "details", values, DETAIL_WORDS)
    return SymbolSpec(**values, skip=skip, details=details)


def _topics(path: Path, tables: Mapping[str, Any]) -> TopicSpec:
    """Each topic that is asked about is a key with the name of its prompt."""
    kinds: dict[str, type] = {topic.value: str for topic in Topic}
    kinds |= {"prompt_tokens": int, "new_tokens": int, "sentences": int}
    values = _table(path, tables, Unit.TOPIC, kinds)
    if missing := {"prompt_tokens", "new_tokens"} - values.keys():
        raise ConfigError(f"{path}: [topic] lacks {min(missing)!r}")
    prompts = {topic: values.pop(topic) for topic in Topic if topic in values}
    if not prompts:
        raise ConfigError(f"{path}: [topic] names no prompt; add one of {', '.join(Topic)}")
    return TopicSpec(prompts=prompts, **values)


def _words(path: Path, key: str, values: dict[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """Take a list of known words out of the values of [symbol]."""
    words = tuple(map(str, values.pop(key, ())))
    if unknown := [word for word in words if word not in known]:
        raise ConfigError(f"{path}: [symbol] {key}: {excerpt(unknown[0])} is not one of {', '.join(known)}")
    return words


def _select(path: Path, tables: Mapping[str, Any]) -> Select:
    kinds: dict[str, type] = {field.name: list for field in fields(Select)}
    values = _table(path, tables, "select", kinds)
    return Select(**{name: tuple(map(str, items)) for name, items in values.items()})


def _table(path: Path, tables: Mapping[str, Any], name: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    table = tables.get(name, {})
    refuse_unknown(f"{path}: [{name}]", table, kinds)
    for key, value in table.items():
        if type(value) is not kinds[key] or (type(value) is int and value <= 0):
            wanted = _WANTED[kinds[key]]
            raise ConfigError(f"{path}: [{name}] {key} = {excerpt(value)} is not {wanted}")
    return dict(table)


_WANTED = {bool: "true or false", int: "a whole number above 0", str: "a string", list: "a list"}
