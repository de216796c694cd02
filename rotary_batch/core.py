"""The values that all layers share, and the protocol of an engine.

Plain frozen data, so that any boundary between layers could be one between processes.  Lines are 1-based and inclusive,
bytes are half-open and count in the text that `repo.source_text` makes of a file.  Paths are POSIX paths relative to
the repository root; undecodable bytes are surrogate escapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Literal, NamedTuple, Protocol


class FileClass(StrEnum):
    """How a file is treated: only SOURCE is parsed and documented."""

    SOURCE = "source"
    STUB = "stub"  # the signatures of a source, whose page shows them
    TEXT = "text"
    GENERATED = "generated"
    VENDORED = "vendored"
    MINIFIED = "minified"
    BINARY = "binary"
    OVERSIZED = "oversized"
    LFS_POINTER = "lfs-pointer"
    SYMLINK = "symlink"
    SUBMODULE = "submodule"
    IGNORED = "ignored"
    DOCS = "docs"  # written by this program, in this docs folder or an earlier one
    UNREADABLE = "unreadable"


class SourceFile(NamedTuple):
    """One entry of a repository."""

    path: str
    blob: str  # object id of the content; for a symlink, of its target text
    nbytes: int
    language: str | None
    file_class: FileClass
    reason: str  # for the class, as `explain` prints it


def stub_of(path: str) -> str:
    """The path of the type stub that a Python source may have."""
    return f"{path}i"


class Unit(StrEnum):
    """What one work item is about, from the smallest to the largest."""

    CHUNK = "chunk"
    SYMBOL = "symbol"
    DETAIL = "detail"  # a parameter, the result or an exception of a symbol
    FILE = "file"
    DIRECTORY = "directory"
    REPOSITORY = "repository"
    TOPIC = "topic"  # of the page for people who are new to the repository

    @property
    def is_rollup(self) -> bool:
        """Whether it is described by what was written about smaller units, not by source text."""
        return self not in {Unit.CHUNK, Unit.SYMBOL, Unit.DETAIL}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a work item is about."""

    unit: Unit
    path: str  # of the file or directory; "" = the repository; of a topic TOPICS_PAGE
    span: tuple[int, int] | None = None  # bytes of a chunk or a symbol
    # Of a roll-up whose notes are too long for one prompt, or of a symbol; or the number of a topic.  The first is 1.
    part: int | None = None

    @property
    def text(self) -> str:
        """Its form in the database: `path`, `path@start-end` of a chunk or symbol; with `#number` that of a part."""
        span = "" if self.span is None else f"@{self.span[0]}-{self.span[1]}"
        return self.path + span + ("" if self.part is None else f"#{self.part}")

    @property
    def identity(self) -> tuple[str, str]:
        """(unit, text); unique within a job of a repository."""
        return self.unit, self.text

    @classmethod
    def parse(cls, unit: str, path: str, text: str) -> Subject:
        """Read `text` back; the path tells what is behind it, as it may hold any character itself."""
        kind, rest = text[len(path) : len(path) + 1], text[len(path) + 1 :]
        if kind == "@":
            span, _, part = rest.partition("#")
            start, end = span.split("-")
            return cls(Unit(unit), path, span=(int(start), int(end)), part=int(part) if part else None)
        return cls(Unit(unit), path, part=int(rest) if kind == "#" else None)


TOPICS_PAGE = "/onboarding.md"  # no path in a repository begins with a slash


class Topic(StrEnum):
    """What people who are new to a repository ask first, in this order."""

    OVERVIEW = "overview"
    ARCHITECTURE = "architecture"
    ENTRY_POINTS = "entry_points"
    BUILD = "build"
    START = "start"

    @property
    def subject(self) -> Subject:
        """This topic as the subject of a work item."""
        return Subject(Unit.TOPIC, TOPICS_PAGE, part=list(Topic).index(self) + 1)

    @classmethod
    def of(cls, subject: Subject) -> Topic:
        """The topic that is a subject."""
        return list(cls)[(subject.part or 0) - 1]


class FactKind(StrEnum):
    """What a file says of the project apart from its code."""

    COMMAND = "command"  # that builds, tests or runs it
    CI = "ci"  # a command that a server runs on every change
    ENTRY = "entry"  # a program that it installs
    SCRIPT = "script"  # it does something when it is run


class Fact(NamedTuple):
    """One thing that a file says of the project: text of a stranger, which is shown and never run."""

    kind: FactKind
    name: str  # the command, or the name of the program; "" of a script
    code: str = ""  # what it runs
    words: str = ""  # of the author, on what it does


class FactOf(NamedTuple):
    """What one file says."""

    path: str
    fact: Fact


MAX_OVERLOADS = 50  # shown of one name


DATA_KINDS = frozenset({"constant", "variable", "field", "member"})  # of symbols that are no code


class SymbolId(NamedTuple):
    """Identifies a symbol within one snapshot of a repository."""

    path: str
    start_byte: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A definition in a source file."""

    path: str
    kind: str  # function, method, class, interface, struct, enum, trait, type, module, macro, ...
    name: str
    qualified_name: str  # Outer.inner, without the path
    start_line: int
    end_line: int
    start_byte: int
    end_byte: int
    signature: str  # one line, white space collapsed
    docstring: str | None  # or the comment directly above
    bases: tuple[str, ...] = ()  # types that it extends or implements, as written
    decorators: tuple[str, ...] = ()  # or annotations, as written
    is_public: bool = True

    @property
    def id(self) -> SymbolId:
        """Identifies this symbol within its snapshot."""
        return SymbolId(self.path, self.start_byte)

    @property
    def subject(self) -> Subject:
        """This symbol as the subject of a work item."""
        return Subject(Unit.SYMBOL, self.path, span=(self.start_byte, self.end_byte))


def main_definitions(symbols: Iterable[Symbol], *, or_declarations: bool = False) -> list[Symbol]:
    """One symbol for each qualified name of a file, in order: the documented one of several, else the longest.

    Overloads, property setters and branches define a name several times.  Declarations are left out, or count where
    the file has no definition.
    """
    main: dict[tuple[str, str], Symbol] = {}
    for symbol in symbols:
        key = symbol.path, symbol.qualified_name
        if (or_declarations or symbol.kind != "declaration") and (key not in main or _is_preferred(symbol, main[key])):
            main[key] = symbol
    return sorted(main.values(), key=lambda symbol: symbol.id)


def overloads(symbol: Symbol, others: Iterable[Symbol]) -> list[tuple[list[str], str | None]]:
    """The signatures of a symbol and of others of its name, in file order, each group with the docstring of the first.

    Decorators are above their signature, but for `@overload`, which several signatures say.
    The first group has the symbol's own docstring; those that say nothing, or the same again, are in it.
    """
    same = sorted([symbol, *islice(others, MAX_OVERLOADS - 1)], key=lambda one: one.id)
    groups: dict[str | None, list[str]] = {symbol.docstring: []}
    for one in same:
        if one.docstring not in {None, symbol.docstring}:
            groups.setdefault(one.docstring, []).append(_declared(one))
    told = {signature for signatures in groups.values() for signature in signatures}
    silent = [one for one in same if one.docstring in {None, symbol.docstring}]
    groups[symbol.docstring] = [_declared(one) for one in silent if one is symbol or _declared(one) not in told]
    return [(list(dict.fromkeys(signatures)), docstring) for docstring, signatures in groups.items()]


def _declared(symbol: Symbol) -> str:
    """The signature below its decorators."""
    shown = [one for one in symbol.decorators if one.rpartition(".")[2].removeprefix("@") != "overload"]
    return "\n".join([*shown, symbol.signature])


def _is_preferred(one: Symbol, other: Symbol) -> bool:
    if (one.kind == "declaration") != (other.kind == "declaration"):
        return other.kind == "declaration"
    if (one.docstring is None) != (other.docstring is None):
        return one.docstring is not None
    return one.end_byte - one.start_byte > other.end_byte - other.start_byte


CLASS_KINDS = frozenset(
    {"class", "struct", "interface", "trait", "enum", "record", "union", "protocol", "object", "annotation"}
)  # of symbols that have members
_PARTIAL = re.compile(r"(?:[a-z]+ )*partial (?:class|interface|record|struct)\b")


def is_part(kind: str, signature: str) -> bool:
    """Whether a symbol is a type of C# that may have other parts, in other files too."""
    return kind in CLASS_KINDS and _PARTIAL.match(signature) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A use of a name that is not local; `repo.graph` resolves it."""

    path: str
    name: str
    line: int
    start_byte: int
    caller: SymbolId | None  # the innermost symbol around it; None at module level
    receiver: str | None = None  # what is before its dot, in the notation of `repo.expressions`; None without a dot


class Import(NamedTuple):
    """One name that an import binds in a file; or with neither name nor alias, the package that the file is in."""

    path: str
    module: str  # as written; "" = this file
    name: str | None  # within the module; "*" = all its names; None = the module itself
    alias: str  # what it is called here; "" = nothing is bound, or all of "*"


class ValueType(NamedTuple):
    """What is known of the value of a field, of a variable of a file, or of the result of a function."""

    path: str
    owner: str  # qualified name of the class or function; "" = the file
    name: str  # of the field or variable; "()" = the result of the owner
    value: str  # in the notation of `repo.expressions`


class Call(NamedTuple):
    """A resolved reference: one symbol uses another."""

    caller: SymbolId
    callee: SymbolId


class Linked(NamedTuple):
    """The symbols at the other end of some edges: the first few, and the number of all."""

    ids: Sequence[SymbolId]
    total: int


class Example(NamedTuple):
    """A test that calls a symbol, and its source."""

    test: SymbolId
    text: str


class Inheritance(NamedTuple):
    """A type extends or implements another."""

    derived: SymbolId
    base: SymbolId


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A contiguous run of bytes of one blob; the chunks of a file concatenate to the file."""

    path: str
    blob: str
    start_byte: int
    end_byte: int
    start_line: int
    end_line: int
    tokens: int
    symbols: tuple[str, ...]  # qualified names of the symbols that start in it, in file order
    breadcrumb: str  # enclosing class or signature, imports used; part of the prompt, not of the bytes

    @property
    def subject(self) -> Subject:
        """This chunk as the subject of a work item."""
        return Subject(Unit.CHUNK, self.path, span=(self.start_byte, self.end_byte))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """The result of parsing one source file."""

    file: SourceFile
    docstring: str | None  # module docstring or leading comment
    symbols: tuple[Symbol, ...]
    references: tuple[Reference, ...]
    chunks: tuple[Chunk, ...]
    fallback: str | None  # why it was cut by lines, not by syntax
    imports: tuple[Import, ...] = ()
    value_types: tuple[ValueType, ...] = ()


class ItemState(StrEnum):
    """WAITING -> READY <-> LEASED -> DONE | PARKED; a changed input takes any state back to WAITING."""

    WAITING = "waiting"
    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    PARKED = "parked"


class Verdict(StrEnum):
    """Whether the prose of a result may be shown on a page."""

    SHOWN = "shown"
    LOW_CONFIDENCE = "low-confidence"
    UNFAITHFUL = "unfaithful"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """What may be shown of an answer, and why the rest may not."""

    verdict: Verdict
    shown_text: str | None  # None unless the verdict is SHOWN
    reasons: tuple[str, ...] = ()  # each a kind, a colon, and what was found
    num_sentences: int = 0  # that were looked at; none of an answer that was rejected as a whole
    num_kept: int = 0  # of them


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One row of the queue."""

    id: int
    repository_id: int
    job: str
    subject: Subject
    key: str | None  # None until its inputs are complete
    state: ItemState
    attempts: int
    prompt_tokens: int | None
    output_tokens: int | None
    ended: Reason | None  # what ended its answer
    error: str | None
    error_class: ErrorClass | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of a run to work on an item; a lease with an older `epoch` changes nothing."""

    item_id: int
    run_id: int
    epoch: int


Reason = Literal["stop", "length", "sentences", "loop"]  # why a sequence ended


class StopCriteria(NamedTuple):
    """What ends a sequence besides its stop token and its limit of new tokens."""

    max_sentences: int | None = None
    stops_loops: bool = False
    at_line_end: bool = False  # before the first newline that follows something visible; thinking does not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sequence for an engine.  `generated_ids` are the tokens that earlier runs generated.

    Requests whose prompts begin with the same `shared_tokens` tokens are siblings: the engine computes that beginning
    once, while they are live together or follow each other.  It changes no answer.
    """

    request_id: int
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    generated_ids: tuple[int, ...] = ()
    logprob_sum: float = 0.0  # over generated_ids, natural logarithm
    stop: StopCriteria = field(default_factory=StopCriteria)
    shared_tokens: int = 0  # less than the whole prompt; 0 = no siblings are known


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokens:
    """What one step added to one sequence."""

    request_id: int
    token_ids: tuple[int, ...]
    logprob_sum: float  # running sum over all generated tokens, these included


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished sequence: its generated tokens, those of earlier runs included, without the tokens that ended it."""

    request_id: int
    token_ids: tuple[int, ...]
    logprob_sum: float  # of every generated token, also the stop token and the repetitions of a loop
    num_scored: int  # how many tokens logprob_sum covers
    reason: Reason

    @property
    def mean_logprob(self) -> float:
        """The confidence of the answer: mean natural log-probability of its tokens."""
        return self.logprob_sum / max(1, self.num_scored)


class ErrorClass(StrEnum):
    """What is to blame for a failure, and so what comes next."""

    TEMPORARY = "temporary"  # something that passes: it is asked again later, up to its limit of attempts
    BAD_ITEM = "bad-item"  # this item: it is parked, and all else goes on
    BAD_MODEL = "bad-model"  # the model: nothing is parked, the run ends
    BAD_MACHINE = "bad-machine"  # a device, a disk or the memory: the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A sequence that failed; the others of the step are unharmed."""

    request_id: int
    error: str
    error_class: ErrorClass
    is_attempt: bool = True  # False: it was in the way of others, and may be asked again as if nothing had been

    @property
    def retry(self) -> bool:
        """Whether another attempt may succeed."""
        return self.error_class is ErrorClass.TEMPORARY


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An engine of a pool died, or hung and was killed.  What it had live is lost but for the tokens reported so far.

    One of the requests may have killed it.  Which one, `runner` finds out.
    """

    request_ids: tuple[int, ...]
    error: str
    node: str = ""  # of a cluster, where the engine was


class NodeStep(NamedTuple):
    """What an engine on a node of a cluster did in a step."""

    node: str
    answers: int
    prompt_tokens: int
    generated_tokens: int
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one step did.  `new_tokens` also covers the sequences that it completed."""

    new_tokens: tuple[NewTokens, ...] = ()
    completions: tuple[Completion, ...] = ()
    failures: tuple[Failure, ...] = ()
    losses: tuple[Loss, ...] = ()  # of a pool
    nodes: tuple[NodeStep, ...] = ()  # of a cluster; one that has several engines can be here more than once
    revolutions: int = 1  # an engine elsewhere reports several as one step
    prefill_tokens: int = 0
    reprefill_tokens: int = 0  # of prefill_tokens, those that earlier runs had generated or computed
    decode_tokens: int = 0
    step_s: float = 0.0
    roofline_s: float = 0.0  # the least it could have taken at the rates of the machine; 0 = no rates are known
    counters: Mapping[str, float] = field(default_factory=dict)  # running totals since open
    tier: str = ""  # where experts came from, and how


class ExpertKey(NamedTuple):
    """Names one expert of one layer; sorts in the order in which a sweep loads them."""

    layer: int
    expert: int


class Engine(Protocol):
    """A model that generates.  One thread uses it; each `step` takes every live sequence through the model once."""

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished."""
        ...

    def has_room(self, request: Request) -> bool:
        """Whether `admit` would take the request now, or refuse it for ever; changes nothing."""
        ...

    def admit(self, request: Request) -> None:
        """Take a request.  Raises PromptError when it can never fit."""
        ...

    def step(self) -> StepReport:
        """Take every live sequence one step further; with nothing live, do nothing."""
        ...

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        ...

    def close(self) -> None:
        """Stop the prefetchers, free the memory; idempotent."""
        ...


class EnginePool(Protocol):
    """Engines that share a queue: one in this process, some in processes of their own or on other machines.

    Only plain data passes: requests in; reports, failures and losses out.  One thread uses it.  Engines open when they
    are first needed, and again when they died.  A request that can never fit is refused with PromptError by `admit`, or
    fails in a later step.
    """

    @property
    def num_live(self) -> int:
        """How many admitted sequences are neither ended nor reported as lost; 0 before an engine is opened."""
        ...

    @property
    def starts_in_s(self) -> float:
        """How long nothing can be admitted because engines wait to be replaced; 0 = not at all."""
        ...

    def has_room(self, request: Request, *, apart: bool = False) -> bool:
        """Whether `admit` would take the request now, or refuse it for ever."""
        ...

    def admit(self, request: Request, *, apart: bool = False) -> None:
        """Take a request; those that are `apart` get an engine where nothing else is live.  Raises PromptError."""
        ...

    def step(self) -> StepReport:
        """Wait until an engine has taken its sequences further or is lost, and report all that did.

        Raises an error of this package when the model or the machine is to blame, not one engine.
        """
        ...

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        ...

    def release(self) -> None:
        """Free all memory; every live sequence is forgotten.  The next one that is admitted takes it again."""
        ...

    def close(self) -> None:
        """Free all memory and end every process; idempotent."""
        ...
