"""Which symbols get no answer of a model, because their code or their author says all that there is to say.

A job names the rules in `[symbol] skip`: `documented` are symbols with words of their author, `trivial` are getters and
setters, calls that are passed on, methods that every class has, and what has no body, `private` are those that users of
the code do not see, and tests.  Only text is looked at, so the rule for a body is the same in all languages whose
bodies are in braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rotary_batch.core import CLASS_KINDS, DATA_KINDS, Symbol, SymbolId
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.outline import Outline, Part, is_test_file

MAX_TRIVIAL_NBYTES = 1000  # of a symbol; longer ones are read by the model, whatever is in them
MAX_STATEMENT_CHARACTERS = 120
_CALLABLE_KINDS = {"function", "method", "constructor", "property"}
# Methods whose name says what they do, in whatever class they are.
_CONVENTIONAL = {
    *("toString", "hashCode", "equals", "compareTo", "clone", "finalize"),  # Java, Kotlin, Scala, JavaScript
    *("ToString", "GetHashCode", "Equals", "CompareTo", "Clone", "Dispose", "Finalize"),  # C#
    *("to_s", "inspect", "hash", "==", "eql?", "<=>"),  # Ruby
    *("__toString", "__clone", "__isset", "__unset"),  # PHP
    *("String", "GoString", "Unwrap"),  # Go
    *("fmt", "eq", "ne", "cmp", "partial_cmp", "drop"),  # Rust
}
# Of Python's `__names__`, those that say what only this class does.
_TOLD_DUNDERS = {"__init__", "__new__", "__call__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__main__"}
_DUNDER = re.compile(r"__\w+__")
_STRING = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_BLOCK_STRING = r'"""(?:[^"\\]|\\.|"(?!""))*"""' + r"|'''(?:[^'\\]|\\.|'(?!''))*'''"
_SLASHES = re.compile(rf"({_STRING}|`[^`]*`)|//[^\n]*|/\*.*?\*/", re.DOTALL)
_HASHES = re.compile(rf"({_BLOCK_STRING}|{_STRING})|#[^\n]*", re.DOTALL)
_DASHES = re.compile(rf"({_STRING})|--[^\n]*")
_LONE_STRING = re.compile(rf"\s*[rRuUbB]?(?:{_BLOCK_STRING}|{_STRING})\s*(?:\n|\Z|;)")
_ARROW = re.compile(r"=>\s*|\)[^={}\n]*=(?![=>])\s*")  # before a body that is one expression
_LINE_ENDED = {"ruby", "lua"}  # bodies from the end of the first line to `end`

_PATH = r"[&*!@$]*\w+(?:(?:\?|!!)?(?:\.|->|::)\$?#?\w+)*[?!]?"
_LITERAL = rf"-?[\d.]+\w?|{_STRING}|\[\]|\{{\}}|\(\)"
_VALUE = rf"(?:{_PATH}|{_LITERAL})"
_ARGUMENT = rf"(?:\*{{0,2}}(?:\w+\s*[:=]\s*)?{_VALUE}|\.\.\.{_PATH}|{_PATH}\.\.\.)"
_CALL = rf"(?:new\s+)?{_PATH}(?:\(\))?(?:(?:\.|->|::)\w+)?\s*\(\s*(?:{_ARGUMENT}(?:\s*,\s*{_ARGUMENT})*\s*,?)?\s*\)"
_SIMPLE = re.compile(
    rf"(?:return\b\s*|await\s+|yield\s+from\s+|try\s+)*(?:{_VALUE}(?:\[{_VALUE}\])?|{_CALL}\??)?"
    rf"|{_PATH}(?:\[{_VALUE}\])?\s*:?=\s*{_VALUE}"
    r"|(?:raise|throw)\s+(?:new\s+)?\w*(?:NotImplemented|Unsupported|UnsupportedOperation)\w*\s*(?:\([^()]*\))?"
    r"|(?:todo|unimplemented|unreachable|panic)!?\s*\([^()]*\)|pass|\.\.\."
)
_ASSIGNMENT = re.compile(
    rf"(?:var\s+|val\s+|let\s+)?(?:self|this|@)?(?:\.|->)?@?\w+\s*=\s*{_VALUE}|super\b[^()]*\([^()]*\)"
)


def wants_answer(symbol: Symbol, text: str, language: str | None, skip: tuple[str, ...]) -> bool:
    """Whether a model is asked what a symbol does; `text` is its source."""
    return reason_to_skip(symbol, text, language, skip) is None


def reason_to_skip(symbol: Symbol, text: str, language: str | None, skip: tuple[str, ...]) -> str | None:
    """Why a model is not asked what a symbol does; None = it is.

    Data and declarations hold nothing to read, whatever the job skips.
    """
    if symbol.kind in DATA_KINDS or symbol.kind == "declaration":
        return f"a {symbol.kind} has no code"
    if "documented" in skip and is_documented(symbol, language):
        return "its author says what it does (documented)"
    if "trivial" in skip and is_trivial(symbol, text, language):
        return "its name and its code say it all (trivial)"
    return None


def private_symbols(path: str, arranged: Outline) -> frozenset[SymbolId]:
    """The symbols of a file that its users do not see; all of a file of tests."""
    public = () if is_test_file(path) else arranged.parts.get(Part.PUBLIC, ())
    return frozenset(symbol.id for symbol in arranged.sections) - {symbol.id for symbol in public}


def is_documented(symbol: Symbol, language: str | None) -> bool:
    """Whether its author says what it is."""
    return bool(symbol.docstring) and bool(authored_summary(symbol.docstring or "", language))


def is_trivial(symbol: Symbol, text: str, language: str | None) -> bool:
    """Whether its name and its signature say it all."""
    is_method = symbol.qualified_name != symbol.name or symbol.kind == "method"
    if _DUNDER.fullmatch(symbol.name) and language == "python" and symbol.name not in _TOLD_DUNDERS:
        return True
    if is_method and symbol.kind in _CALLABLE_KINDS and symbol.name in _CONVENTIONAL:
        return True
    if len(text) > MAX_TRIVIAL_NBYTES:
        return False
    body = _body(text, language)
    if body is None:  # a type that stands for another, a macro, a module in a file of its own
        return symbol.kind not in CLASS_KINDS and "\n" not in text.strip() and len(text) <= MAX_STATEMENT_CHARACTERS
    statements = [one for one in _statements(body) if one]
    if symbol.kind not in _CALLABLE_KINDS:
        return not statements or statements in (["pass"], ["..."])
    if len(statements) <= 1:
        return all(len(one) <= MAX_STATEMENT_CHARACTERS and _SIMPLE.fullmatch(one) for one in statements)
    is_constructor = symbol.kind == "constructor" or symbol.name in {"__init__", "constructor", "init", "initialize"}
    return is_constructor and all(_ASSIGNMENT.fullmatch(one) for one in statements)


def _body(text: str, language: str | None) -> str | None:
    """What is in a definition, without comments; None when it has no body."""
    if language == "python":
        bare = _without_comments(text, _HASHES)
        start = _end_of_signature(bare, ":")
        return None if start is None else _LONE_STRING.sub("", bare[start:], count=1)
    if language in _LINE_ENDED:
        lines = _without_comments(text, _HASHES if language == "ruby" else _DASHES).strip().split("\n")
        return "\n".join(lines[1:-1]) if lines[1:] and lines[-1].strip() == "end" else None
    bare = _without_comments(text, _SLASHES)
    start, end = _end_of_signature(bare, "{"), bare.rfind("}")
    arrow = _ARROW.search(bare)
    if arrow is not None and (start is None or arrow.end() < start) and bare[arrow.end() : arrow.end() + 1] != "{":
        return bare[arrow.end() :].strip().rstrip(";,")
    return None if start is None or end < start else bare[start:end]


def _without_comments(text: str, comments: re.Pattern[str]) -> str:
    return comments.sub(lambda match: match[1] or " ", text)


def _end_of_signature(text: str, end: str) -> int | None:
    """The place behind the first `end` that is in no brackets and behind the keyword or the name."""
    depth = 0
    begun = re.search(r"^\s*(?:async\s+)?(?:def|class)\b", text, re.MULTILINE) if end == ":" else None
    for place in range(begun.end() if begun else 0, len(text)):
        letter = text[place]
        if letter == end and depth == 0:
            return place + 1
        depth += (letter in "([{") - (letter in ")]}")
    return None


def _statements(body: str) -> Iterator[str]:
    """The statements of a short body, each on one line; one that goes on in brackets is whole."""
    depth, begun = 0, 0
    for place, letter in enumerate(body):
        depth += (letter in "([{") - (letter in ")]}")
        if letter in "\n;" and depth <= 0:
            yield " ".join(body[begun:place].split())
            begun = place + 1
    yield " ".join(body[begun:].split())
