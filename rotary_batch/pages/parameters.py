"""The parameters and the result of a function, as its signature has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from rotary_batch.core import Symbol
from rotary_batch.pages.faithful.described import Described

_TYPE_BEHIND = {"python", "notebook", "javascript", "typescript", "tsx", "vue", "svelte", "rust", "kotlin", "scala"}
_TYPE_BEFORE = {"java", "c", "cpp", "c_sharp", "php"}
_NO_TYPE = {"ruby", "lua"}
_DEFAULT = re.compile(r"\s*(?<![=<>!])=(?![=>])\s*")
_WORDS_BEFORE = re.compile(r"^(?:(?:@\w+(?:\([^()]*\))?|mut|val|var|vararg|final|const|readonly|this|out|ref|in)\s+)+")
_BEHIND = re.compile(r"(?:\*{1,2}|\.\.\.|&)?([A-Za-z_$][\w$]*)\??\s*(?::\s*(.+))?")
_GO = re.compile(r"([A-Za-z_]\w*)(?:\s+(.+))?")
_BEFORE = re.compile(r"(.*?)(?<![\w$])(\$?[A-Za-z_]\w*)((?:\[\w*\])*)")
_TYPE_NAMES = {"int", "char", "long", "short", "float", "double", "void", "bool", "unsigned", "signed"}
_PLAIN = re.compile(r"[*&]{0,2}([A-Za-z_]\w*):?")


class Parameter(NamedTuple):
    """One parameter; what the signature does not say is ""."""

    name: str
    type: str
    default: str


def parameters_of(symbol: Symbol, language: str | None) -> list[Parameter]:
    """The parameters of a function without its receiver; none when they are not known, or have no names."""
    written = _described(symbol, language).parameters or ()
    if language == "go" and not any(" " in one for one in written):
        return []  # types alone
    return [found for one in written if (found := _parameter(" ".join(one.split()), language)) is not None]


def result_of(symbol: Symbol, language: str | None) -> str:
    """The type of the result as the signature has it behind the parameters; "" when it has none there."""
    result = _described(symbol, language).result or ""
    return re.sub(r"^(?:->|:)\s*", "", result) if language in _TYPE_BEHIND | {"swift", "go"} else ""


def _described(symbol: Symbol, language: str | None) -> Described:
    return Described(
        symbol.name, symbol.qualified_name, symbol.kind, language or "", " ".join(symbol.signature.split())
    )


def _parameter(written: str, language: str | None) -> Parameter | None:
    return next(_read(written, language), None)


def _read(written: str, language: str | None) -> Iterator[Parameter]:
    declared, *defaults = _DEFAULT.split(_WORDS_BEFORE.sub("", written), maxsplit=1)
    default = defaults[0] if defaults else ""
    behind = _BEHIND if language in _TYPE_BEHIND else _GO if language == "go" else None
    if behind is not None and (found := behind.fullmatch(declared)):
        yield Parameter(found[1], found[2] or "", default)
    elif language in _TYPE_BEFORE and (found := _BEFORE.fullmatch(declared)):
        kind = found[1].removesuffix("...").strip() + found[3]
        if (kind and found[2] not in _TYPE_NAMES) or found[2].startswith("$"):  # else a type without a name
            yield Parameter(found[2], kind, default)
    elif language in _NO_TYPE and (found := _PLAIN.fullmatch(declared)):
        yield Parameter(found[1], "", default)
