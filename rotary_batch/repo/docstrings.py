"""Write documentation into a source: one docstring or comment for each symbol that has none.

Nothing else changes.  What comes out is parsed again: the code must be the same but for comments and docstrings, and
our own reader must find each text where it belongs.  A text that fails is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple

from tree_sitter import Node, Tree

from rotary_batch.core import Symbol
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.symbols import extract, parse

LINE_CHARACTERS = 100  # with the indentation
_MIN_CHARACTERS = 40  # of a line of text, however deep it is
_DOCSTRING = '"""'
_BLOCKS = {"/**": " */"}  # comments that end with a mark of their own
_UNSAFE = ("\\", _DOCSTRING, "*/", "/*", "--[[", "]]", "\n", "\r", "?>", "<?")  # end or begin something


class Written(NamedTuple):
    """A source with texts in it."""

    source: bytes
    symbols: tuple[Symbol, ...]  # as they were, of those that got a text


class _Insertion(NamedTuple):
    symbol: Symbol
    text: str
    place: int  # byte
    lines: bytes


def write_docs(language: str, source: bytes, texts: Mapping[int, str]) -> Written:
    """Insert each text for the symbol that starts at its byte, unless it has words of its own."""
    symbols = [one for one in _symbols(language, source) if one.start_byte in texts and not one.docstring]
    tree = parse(language, source)
    found = (_insertion(language, tree, source, symbol, texts[symbol.start_byte]) for symbol in symbols)
    wanted = [one for one in found if one]
    check = _Check(language, source, tree)
    wanted = _good(check, wanted)
    if not check.passes(wanted):  # each alone is right, together they are not
        return Written(source, ())
    return Written(_inserted(source, wanted), tuple(one.symbol for one in wanted))


def _good(check: _Check, insertions: Sequence[_Insertion]) -> list[_Insertion]:
    """Those that pass, found by halves: most files pass as a whole."""
    if not insertions or check.passes(insertions):
        return list(insertions)
    middle = len(insertions) // 2
    return [*_good(check, insertions[:middle]), *_good(check, insertions[middle:])] if middle else []


class _Check:
    """Compares a source with itself after insertions."""

    def __init__(self, language: str, source: bytes, tree: Tree) -> None:
        self._language = language
        self._source = source
        self._code = list(_code(language, tree))
        self._symbols = _symbols(language, source)

    def passes(self, insertions: Sequence[_Insertion]) -> bool:
        """Whether each text is at its symbol, and all but comments and docstrings stays the same."""
        changed = _inserted(self._source, insertions)
        after = _symbols(self._language, changed)
        if [_apart_from_docs(one) for one in self._symbols] != [_apart_from_docs(one) for one in after]:
            return False
        texts = {one.symbol.start_byte: one for one in insertions}
        for old, new in zip(self._symbols, after, strict=True):
            wanted = texts.get(old.start_byte)
            if not (_is_text(new.docstring, wanted) if wanted else new.docstring == old.docstring):
                return False
        return self._code == list(_code(self._language, parse(self._language, changed)))


def _symbols(language: str, source: bytes) -> tuple[Symbol, ...]:
    return extract(language, source, "", parse(language, source)).symbols


def _insertion(language: str, tree: Tree, source: bytes, symbol: Symbol, text: str) -> _Insertion | None:
    mark = LANGUAGES[language].doc_mark
    if not mark or any(part in text for part in _UNSAFE) or not text.isprintable() or symbol.kind == "module":
        return None
    place = _in_body(tree, source, symbol) if mark == _DOCSTRING else _above(source, symbol)
    if place is None:
        return None
    start, indentation = place
    newline = b"\r\n" if b"\r\n" in source[: symbol.end_byte] else b"\n"
    lines = _lines(mark, _named(text, symbol) if language == "go" else text, len(indentation))
    return _Insertion(symbol, text, start, b"".join(indentation + line.encode() + newline for line in lines))


def _named(text: str, symbol: Symbol) -> str:
    """As Go wants it: the sentence begins with the name."""
    first, _, rest = text.partition(" ")
    is_word = first[:1].isupper() and first[1:].islower() and first.endswith("s")
    return f"{symbol.name} {first.lower()} {rest}" if is_word else text


def _lines(mark: str, text: str, indentation: int) -> list[str]:
    room = max(_MIN_CHARACTERS, LINE_CHARACTERS - indentation - len(mark) - 1)
    lines = wrap(text, room, break_long_words=False, break_on_hyphens=False)
    if mark == _DOCSTRING:
        return _docstring(lines)
    if mark in _BLOCKS:
        end = _BLOCKS[mark]
        return [f"{mark} {text}{end}"] if len(lines) == 1 else [mark, *(f" * {line}" for line in lines), end]
    return [f"{mark} {line}" for line in lines]


def _docstring(lines: Sequence[str]) -> list[str]:
    """A last quotation mark would end it early."""
    first, *rest = lines
    last = " " if lines[-1].endswith('"') else ""
    if not rest:
        return [f"{_DOCSTRING}{first}{last}{_DOCSTRING}"]
    return [f"{_DOCSTRING}{first}", *rest, _DOCSTRING]


def _above(source: bytes, symbol: Symbol) -> tuple[int, bytes] | None:
    """The line of a symbol, and its indentation; None when something else begins on it."""
    start = source.rfind(b"\n", 0, symbol.start_byte) + 1
    indentation = source[start : symbol.start_byte]
    return None if indentation.strip(b" \t") else (start, indentation)


def _in_body(tree: Tree, source: bytes, symbol: Symbol) -> tuple[int, bytes] | None:
    """The line after the header of a function or class of Python, and the indentation of its body."""
    node = _definition(tree.root_node, symbol)
    body = node.child_by_field_name("body") if node else None
    if node is None or body is None or not body.named_child_count:
        return None
    header_end = next(child for child in node.children if child.type == ":").end_byte
    first = body.named_children[0]
    line = source.rfind(b"\n", 0, first.start_byte) + 1
    indentation = source[line : first.start_byte]
    if line <= header_end or indentation.strip(b" \t"):
        return None  # the body is on the line of its header
    return source.index(b"\n", header_end) + 1, indentation


def _definition(root: Node, symbol: Symbol) -> Node | None:
    node = root.descendant_for_byte_range(symbol.start_byte, symbol.end_byte)
    while node is not None and node.type not in {"function_definition", "class_definition"}:
        node = node.child_by_field_name("definition")
    return node


def _inserted(source: bytes, insertions: Sequence[_Insertion]) -> bytes:
    parts, done = [], 0
    for one in sorted(insertions, key=lambda one: one.place):
        parts += [source[done : one.place], one.lines]
        done = one.place
    return b"".join([*parts, source[done:]])


def _is_text(found: str | None, wanted: _Insertion) -> bool:
    words = (found or "").split()
    return words == wanted.text.split() or words == _named(wanted.text, wanted.symbol).split()


def _apart_from_docs(symbol: Symbol) -> tuple[str, str, str]:
    return symbol.kind, symbol.qualified_name, symbol.signature


def _code(language: str, tree: Tree) -> Iterator[tuple[str, bytes]]:
    """The tokens of a source without comments, and for Python without docstrings."""
    cursor = tree.walk()
    has_docstrings = LANGUAGES[language].doc_mark == _DOCSTRING
    while True:
        node = cursor.node
        assert node is not None, "a cursor is always at a node"
        is_left_out = "comment" in node.type or (has_docstrings and _is_docstring(node))
        if not is_left_out and node.child_count == 0:
            yield node.type, node.text or b""
        if not is_left_out and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _is_docstring(node: Node) -> bool:
    """Whether a statement is the first of a body and a string alone."""
    if node.type != "expression_statement" or node.named_child_count != 1 or node.named_children[0].type != "string":
        return False
    block = node.parent
    return block is not None and block.type == "block" and block.named_children[0] == node
