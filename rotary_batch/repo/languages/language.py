"""What one language says of itself: its files, its grammar, and what its query alone cannot say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tree_sitter import Node

from rotary_batch.core import Symbol
from rotary_batch.repo.comments import comment_above, leading_comment

MAX_BASE_CHARACTERS = 200  # of one type that another extends
MAX_SHARING = 50  # names of one statement that each show its comment and its type; of more, none does


class Definition(NamedTuple):
    """One match of a definition or a scope in a query."""

    outer: Node  # with its wrappers, such as decorators or `export`
    node: Node
    kind: str  # "scope" = names what is inside, and is no symbol itself; "export" = says more of a name in `complete`
    name: str  # may hold dots
    receiver: str | None = None  # the type that a method is defined on
    bases: tuple[str, ...] = ()  # types that it extends or implements, as written
    signature: str | None = None  # when it is not the source up to the body
    span: tuple[Node, int] | None = None  # the signature is the source of this node up to this byte
    target: str | None = None  # of an export: its name in the file, when that is another symbol
    parts: tuple[str | Node, ...] = ()  # the signature in texts and nodes, when it is not one piece of the source
    last: Node | None = None  # its last node, when `outer` goes on with comments
    decorators: tuple[Node, ...] | None = None  # when they are neither in `outer` and `node` nor right before them
    is_private: bool = False  # to its class
    is_local: bool = False  # to its file, and to those that include it if it is a header


def _as_it_is(definition: Definition) -> Iterable[Definition]:
    return (definition,)


def _unchanged(source: bytes) -> bytes:
    return source


def _none(_: bytes) -> Sequence[tuple[int, int]]:
    return ()


def _is_public(_: Definition) -> bool:
    return True


def _all(symbols: Sequence[Symbol], _: Sequence[Definition]) -> Sequence[Symbol]:
    return symbols


class Imported(NamedTuple):
    """One name that an import statement binds; the fields are those of `core.Import`."""

    module: str
    name: str | None
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoping:
    """How names are bound in a language."""

    hoists: bool = False  # a name means the same in all of its scope, also before it is bound
    is_closed: bool = False  # names come from the file and its imports only
    first_result_counts: bool = False  # `a, b = f()`: `a` is the first result, and the type of `f` is that of `a`
    capital_is_constant: bool = False  # a name in a pattern that begins with a capital is not bound
    separate_functions: bool = False  # a local never shadows a function


def _no_imports(_: Node) -> Iterable[Imported]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The declarations of one language.  Adding one takes this, a query `NAME.scm` and a golden fixture."""

    name: str
    grammar: tuple[str, str]  # module of the wheel, function in it
    queries: tuple[str, ...]  # files of this folder without `.scm`, concatenated
    endings: tuple[str, ...]  # of its files, in lower case
    exact_endings: tuple[str, ...] = ()  # with their case, which have precedence
    file_names: tuple[str, ...] = ()  # files without an ending
    interpreters: tuple[str, ...] = ()  # in a `#!` line
    headers: tuple[str, ...] = ()  # endings of files that are included: others see what is local to them
    clean: Callable[[bytes], bytes] = _unchanged  # the source as the grammar is to see it; its bytes stay in place
    misread_breaks: Callable[[bytes], Sequence[tuple[int, int]]] = _none  # spans with line breaks that mean nothing
    wrappers: frozenset[str] = frozenset()  # nodes around a definition that belong to it, such as `export`
    decorators: frozenset[str] = frozenset()  # nodes before a definition, within its wrapper or itself
    dotted: frozenset[str] = frozenset()  # nodes of a name behind a dot, an arrow or colons
    is_data: bool = False  # prose or settings: shown by structure; a model reads them only for a job that names them
    calls_members_by_name: bool = False  # a member of the class around a call needs no dot
    refine: Callable[[Definition], Iterable[Definition]] = _as_it_is  # what the query cannot say; none, one or several
    is_public: Callable[[Definition], bool] = _is_public
    complete: Callable[[Sequence[Symbol], Sequence[Definition]], Sequence[Symbol]] = _all  # given all, and all exports
    docstring: Callable[[Definition], str | None] = lambda definition: comment_above(definition.outer)
    doc_mark: str | None = None  # begins what documents a symbol, above it, or in Python in it; None = none is written
    unparsed: Callable[[Node], Iterable[Node]] = lambda root: ()  # nodes in brackets that may hold code as mere tokens
    embedded: Callable[[bytes], tuple[str, bytes]] | None = None  # the language of the code in a file, all else blank
    file_docstring: Callable[[Node], str | None] = leading_comment
    scoping: Scoping = Scoping()
    imports: Callable[[Node], Iterable[Imported]] = _no_imports  # what an `@import.statement` binds
    result: str = "return_type"  # the field of a function's node that has the type of its result
