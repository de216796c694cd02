"""The signature of a definition: its source up to the body, on one line, with long literals elided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tree_sitter import Node

MAX_SIGNATURE_CHARACTERS = 600
MAX_STRING_NBYTES = 40  # of a string literal that is shown whole
MAX_VALUE_NBYTES = 60  # of a value in brackets that is shown whole
MAX_DEFAULT_CHARACTERS = 80  # of the default of a parameter, with what is in its brackets elided
_MAX_KEPT_NBYTES = 8 * MAX_SIGNATURE_CHARACTERS  # read of a definition: more than is shown, even of indented code
# Values; the brackets of types and parameters say what a caller has to know, and stay.
_VALUES = {"argument_list", "arguments", "array", "array_expression", "array_initializer", "dictionary", "object"}
_VALUES |= {"initializer_list", "list", "literal_value", "parenthesized_expression", "set", "tuple"}
_VALUES |= {"dictionary_comprehension", "field_initializer_list", "generator_expression", "list_comprehension"}
_VALUES |= {"set_comprehension", "token_tree", "tuple_expression", "value_arguments", "table_constructor", "hash"}
_VALUES |= {"array_creation_expression", "array_literal", "collection_expression", "dictionary_literal"}
_VALUES |= {"element_value_array_initializer", "initializer_expression", "lambda_literal", "string_array"}
_TYPE_ARGUMENTS = {"template_argument_list", "type_arguments"}  # values in a default
_OBJECTS = {"object", "object_type"}  # of `export default {}` and `type A = {}`; elsewhere what is direct is a part
_BODIES = {"block", "class_body", "compound_statement", "statement_block"}  # of functions within a value
_OTHER_BODIES = {"computed_property", "function_body", "willset_didset_block"}  # shown if short, as values are
_ANNOTATIONS = {"annotation", "marker_annotation"}  # of the definition itself; those of its parameters are shown
_END = re.compile(r"(?: ?(?:\{|=>|[=:]))+$")  # what stands between a definition and its body
_FUNCTION_VALUES = {"arrow_function", "function_expression"}
_LITERALS = {"heredoc", "literal", "nowdoc", "regex"}  # strings that are not called so; `literal` is SQL's
_OPENING = re.compile(rb"""[@$\w]{0,3}(#*)("{3}|'{3}|["'`])""")  # also r#" of Rust, b''' of Python and $@" of C#
_SETS = {"=", "default", "keyword_default"}  # a value follows
_HAS_DEFAULT = re.compile(r".*parameter.*|assignment_pattern|default_type|function_argument|function_declaration")


class _Cut(NamedTuple):
    """Bytes of the source that a signature leaves out, and what replaces them."""

    start: int
    end: int
    instead: bytes


class _Source(NamedTuple):
    """A piece of a file."""

    text: bytes
    start: int  # its first byte, in the file

    def between(self, start: int, end: int) -> bytes:
        """What is between two bytes of the file."""
        return self.text[start - self.start : end - self.start]


class _Part(NamedTuple):
    """A node of a definition that may be too long to be shown."""

    node: Node
    is_value: bool = False  # it is behind `=`
    is_default: bool = False  # and of a parameter
    in_default: bool = False


def signature_of(node: Node, end: int | None, source: bytes) -> str:
    """The definition up to a byte, or up to its body when that is None, on one line."""
    if end is None:
        body = node.child_by_field_name("body") or node.child_by_field_name("value")
        if body is not None and body.type in _FUNCTION_VALUES:
            body = body.child_by_field_name("body")
        end = _before(body).end_byte if body is not None else _line_end(node, source)
        return limited(_END.sub("", on_one_line(_definition(node, source, end))))
    return limited(on_one_line(_definition(node, source, end)).rstrip(";,{ "))


def signature_from(parts: Sequence[str | Node], source: bytes) -> str:
    """Texts and nodes on one line; what is on one line keeps its spaces."""
    whole = _Source(source, 0)
    texts = (part if isinstance(part, str) else _shown(part, whole, part.start_byte, part.end_byte) for part in parts)
    lines = (on_one_line(text) if "\n" in text else text.strip() for text in texts if text)
    return limited(" ".join(lines).rstrip("; "))


def limited(text: str) -> str:
    """A signature that is no longer than pages show."""
    return text if len(text) <= MAX_SIGNATURE_CHARACTERS else text[: MAX_SIGNATURE_CHARACTERS - 1] + "…"


def _line_end(node: Node, source: bytes) -> int:
    """Where the first line of a node ends."""
    newline = source.find(b"\n", node.start_byte, node.end_byte)
    return node.end_byte if newline < 0 else newline


def on_one_line(text: str) -> str:
    """Source with its white space folded."""
    # Runs of white space first: one expression that looked for brackets around them took 80 s for 2,000 line breaks.
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)
    # A line break within brackets is not a space; the comma before one ends a list whose items had lines of their own.
    text = re.sub(r"([(\[{])\n|,?\n(?=[)\]}])", r"\1", text)
    return " ".join(text.split())


def shown(node: Node, start: int | None = None, end: int | None = None) -> str:
    """The source of a node, or what is between two bytes of it, without comments, long literals and defaults elided."""
    first, last = node.start_byte if start is None else start, node.end_byte if end is None else end
    return _shown(node, _Source(node.text or b"", node.start_byte), first, last)


def _definition(node: Node, source: bytes, end: int) -> str:
    start = max((child.end_byte for child in node.children if child.type == "decorator"), default=node.start_byte)
    return _shown(node, _Source(source, 0), start, end, whole=node)


def _shown(node: Node, source: _Source, start: int, end: int, whole: Node | None = None) -> str:
    """What is between two bytes of a node.  Of `whole`, a definition, what is directly in it stays as it is."""
    return _without(_cuts(_Part(node), whole, source, start, end), source, start, end)


def _without(cuts: Iterable[_Cut], source: _Source, start: int, end: int) -> str:
    kept, nbytes = list[bytes](), 0
    for cut in cuts:
        kept += [source.between(start, cut.start), cut.instead]
        nbytes += cut.start - start
        start = cut.end
        if nbytes > _MAX_KEPT_NBYTES:
            break
    else:
        kept.append(source.between(start, min(end, start + _MAX_KEPT_NBYTES)))
    return b"".join(kept).decode("utf-8", "replace")


def _cuts(first: _Part, whole: Node | None, source: _Source, start: int, end: int) -> Iterator[_Cut]:
    """In their order: comments, the middle of long strings, of long values in brackets and of function bodies."""
    waiting = [first]
    while waiting and waiting[-1].node.start_byte <= start + _MAX_KEPT_NBYTES:
        part = waiting.pop()
        inner = part.node
        if start <= inner.start_byte and inner.end_byte <= end:
            cut = (_default_cut(part, source) if part.is_default else None) or _cut(part, first.node, whole, source)
            if cut is not None:
                start = cut.end
                yield cut
                continue
        waiting += [one for one in _inside(part) if one.node.start_byte < end and one.node.end_byte > start][::-1]


def _inside(part: _Part) -> Iterator[_Part]:
    before, in_default = "", part.in_default or part.is_default
    for child in part.node.children:
        is_value = before in _SETS or (before == ":" and part.node.type == "keyword_parameter")
        is_default = is_value and not in_default and _HAS_DEFAULT.fullmatch(part.node.type) is not None
        yield _Part(child, is_value, is_default, in_default)
        if "comment" not in child.type:
            before = child.type


def _default_cut(part: _Part, source: _Source) -> _Cut | None:
    """The whole of a default that is long although what is in its brackets is elided."""
    start, end = part.node.start_byte, part.node.end_byte
    if end - start <= MAX_DEFAULT_CHARACTERS:
        return None
    inner = _Part(part.node, part.is_value, in_default=True)
    text = on_one_line(_without(_cuts(inner, None, source, start, end), source, start, end))
    return _Cut(start, end, "…".encode()) if len(text) > MAX_DEFAULT_CHARACTERS else None


def _cut(part: _Part, node: Node, whole: Node | None, source: _Source) -> _Cut | None:
    inner = part.node
    nbytes = inner.end_byte - inner.start_byte
    if "comment" in inner.type:
        return _Cut(inner.start_byte, inner.end_byte, b"")  # on one line, `//` would swallow the code after it
    if _is_shown_as_decorator(inner, node):
        return _Cut(inner.start_byte, inner.end_byte, b"")
    if nbytes > MAX_STRING_NBYTES and inner.type not in _VALUES and ("string" in inner.type or inner.type in _LITERALS):
        return _string_cut(inner, source)
    is_bracketed = inner.type in _VALUES or (inner.type == "object_type" and node.type == "type_alias_declaration")
    is_bracketed = is_bracketed or (part.in_default and inner.type in _TYPE_ARGUMENTS)
    # The size first: deep down, a parent is looked for from the top of the file.
    is_long = is_bracketed and nbytes > MAX_VALUE_NBYTES and not _holds_function(inner)
    if is_long and not part.is_value and inner.type not in _OBJECTS and inner.parent == whole:
        return None
    is_long_body = nbytes > (len("{}") if inner.type in _BODIES else MAX_VALUE_NBYTES)
    is_body = inner.type in _BODIES or inner.type in _OTHER_BODIES
    return _bracket_cut(inner, source) if is_long or (is_body and is_long_body) else None


def _is_shown_as_decorator(inner: Node, node: Node) -> bool:
    if inner.type == "attribute_list":
        return inner.parent == node
    return inner.type in _ANNOTATIONS and inner.parent is not None and inner.parent.parent == node


def _bracket_cut(node: Node, source: _Source) -> _Cut | None:
    """What is between the brackets of a node; the whole of a body that has none."""
    opening = next((child for child in node.children if _is_token(child, b"([{<", source)), None)
    closing = next((child for child in reversed(node.children) if _is_token(child, b")]}>", source)), None)
    if opening is not None and closing is not None:
        return _Cut(opening.end_byte, closing.start_byte, "…".encode())
    return _Cut(node.start_byte, node.end_byte, "…".encode()) if node.type in _OTHER_BODIES else None


def _is_token(node: Node, last: bytes, source: _Source) -> bool:
    """Whether a node is one of these brackets, also as in Ruby's `%w[`."""
    text = source.between(node.end_byte - 1, node.end_byte)
    return node.child_count == 0 and not node.is_named and text != b"" and text in last


def _holds_function(node: Node) -> bool:
    """Whether an argument is a function, whose parameters are shown, or a call that may be given one."""
    inside = _FUNCTION_VALUES | {"call_expression"}
    return "argument" in node.type and any(child.type in inside for child in node.named_children)


def _string_cut(node: Node, source: _Source) -> _Cut:
    start, end = node.start_byte, node.end_byte
    opening = _OPENING.match(source.between(start, start + 12))
    if opening is None:
        return _Cut(start, end, "/…/".encode() if node.type == "regex" else "…".encode())
    return _Cut(start + opening.end(), end - len(opening[1]) - len(opening[2]), "…".encode())


def _before(body: Node) -> Node:
    """The last node before a body that is not a comment."""
    before = body.prev_sibling
    while before is not None and "comment" in before.type:
        before = before.prev_sibling
    return before or body
