"""Symbols and references of one source file, from a tree-sitter query."""

from __future__ import annotations

import ast
import inspect
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from tree_sitter import Node, Parser, QueryCursor, Tree

from rotary_batch.core import Reference, Symbol
from rotary_batch.repo.languages import grammar, query

MAX_SIGNATURE_CHARACTERS = 600
_LICENCE = re.compile(
    r"copyright\b|\(c\)|spdx-|licen[cs]ed under|all rights reserved|permission is hereby|redistribution and use"
    r"|this (file|program|software|source|library|code|work)\b.*(licen[cs]|copyright|free software)",
    re.IGNORECASE | re.DOTALL,
)
_MAX_NAME = 200  # characters; nobody reads or calls longer names
_MAX_NESTING = 50  # of symbols: a qualified name repeats all those around it
_CLASS_KINDS = {"class", "struct", "interface", "trait", "enum", "record", "union", "scope"}
# Nodes around a definition that belong to it: its decorators, its `export`, its `const`.
_WRAPPERS = {
    "decorated_definition",  # Python
    "export_statement",  # JavaScript, TypeScript
    "lexical_declaration",  # JavaScript, TypeScript: const, let
    "template_declaration",  # C++
    "type_declaration",  # Go
}
# Nodes of a name behind a dot, an arrow or colons.
_DOTTED = {
    "attribute",  # Python
    "field_expression",  # C, C++, Rust
    "member_expression",  # JavaScript, TypeScript
    "method_invocation",  # Java
    "qualified_identifier",  # C++
    "scoped_identifier",  # Rust, Java
    "selector_expression",  # Go
}
_NAME_CHARACTERS = string.ascii_letters + string.digits + "_"


class Extract(NamedTuple):
    """What one file holds."""

    docstring: str | None
    symbols: tuple[Symbol, ...]
    references: tuple[Reference, ...]
    imports: tuple[str, ...]  # names that import statements bind


class _Definition(NamedTuple):
    """One match of a definition or a scope."""

    outer: Node  # with decorators or `export`
    node: Node
    kind: str
    name: str
    receiver: str | None


def parse(language: str, source: bytes) -> Tree:
    """The syntax tree; it has error nodes where the code is broken."""
    return Parser(grammar(language)).parse(source)


def extract(language: str, source: bytes, path: str, tree: Tree) -> Extract:
    """Symbols in file order, and references with the symbol that they are in."""
    definitions, names, imports = _matches(language, tree)
    symbols: list[Symbol] = []
    scopes: list[tuple[int, str, str]] = []  # (end, qualified name, kind) of what is open
    for item in definitions:
        while scopes and scopes[-1][0] <= item.node.start_byte:
            scopes.pop()
        if len(item.name) > _MAX_NAME or len(scopes) >= _MAX_NESTING:
            continue
        outer = item.receiver or (scopes[-1][1] if scopes else "")
        qualified = f"{outer}.{item.name}" if outer else item.name
        if item.kind != "scope":
            inside = bool(item.receiver) or bool(scopes and scopes[-1][2] in _CLASS_KINDS)
            symbols.append(_symbol(item, qualified, language, source, path, inside_class=inside))
        scopes.append((item.node.end_byte, item.name if item.kind == "scope" else qualified, item.kind))
    references = _references(names, symbols, path, source)
    return Extract(_file_docstring(language, tree.root_node), tuple(symbols), references, imports)


def _matches(language: str, tree: Tree) -> tuple[list[_Definition], list[Node], tuple[str, ...]]:
    definitions: dict[tuple[int, str], _Definition] = {}
    references: list[Node] = []
    imports: list[str] = []
    for _, captures in QueryCursor(query(language)).matches(tree.root_node):
        if "reference" in captures:
            references += captures["reference"]
        elif "import" in captures:
            imports += [_text(node) for node in captures["import"]]
        else:
            item = _definition(captures)
            key = (item.outer.start_byte, item.name)
            # A typedef of a named struct is both; the struct says more.
            if key not in definitions or definitions[key].kind in {"type", "declaration"}:
                definitions[key] = item
    in_order = sorted(definitions.values(), key=lambda item: (item.node.start_byte, -item.node.end_byte))
    return in_order, references, tuple(dict.fromkeys(imports))


def _definition(captures: dict[str, list[Node]]) -> _Definition:
    label = next(name for name in captures if name.startswith(("definition.", "scope")))
    node = outer = captures[label][0]
    while outer.parent is not None and outer.parent.type in _WRAPPERS and outer.parent.named_child_count <= 2:
        outer = outer.parent
    receiver = _text(captures["receiver"][0]) if "receiver" in captures else None
    name = re.sub(r"\s+", "", _text(captures["name"][0])).strip("'\"")
    return _Definition(outer, node, label.removeprefix("definition."), name.replace("::", "."), receiver)


def _symbol(
    item: _Definition, qualified: str, language: str, source: bytes, path: str, *, inside_class: bool
) -> Symbol:
    kind = "method" if item.kind == "function" and inside_class else item.kind
    return Symbol(
        path=path,
        kind=kind,
        name=item.name.rsplit(".", 1)[-1],
        qualified_name=qualified,
        start_line=item.outer.start_point.row + 1,
        end_line=item.outer.end_point.row + 1,
        start_byte=item.outer.start_byte,
        end_byte=item.outer.end_byte,
        signature=_signature(item.node, source),
        docstring=_docstring(language, item),
    )


def _signature(node: Node, source: bytes) -> str:
    """The definition up to its body, on one line."""
    body = node.child_by_field_name("body") or node.child_by_field_name("value")
    if body is not None and body.type in {"arrow_function", "function_expression"}:
        body = body.child_by_field_name("body")
    end = _before(body).end_byte if body is not None else node.end_byte
    text = _without_comments(node, source, end).decode("utf-8", "replace")
    text = text if body is not None else text.split("\n", 1)[0]
    # Runs of white space first: one expression that looked for brackets around them took 80 s for 2,000 line breaks.
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)
    text = re.sub(r"([(\[{])\n|\n(?=[)\]}])", r"\1", text)  # a line break within brackets is not a space
    folded = " ".join(text.split()).rstrip("{=:> ").rstrip()
    return folded if len(folded) <= MAX_SIGNATURE_CHARACTERS else folded[: MAX_SIGNATURE_CHARACTERS - 1] + "…"


def _without_comments(node: Node, source: bytes, end: int) -> bytes:
    """The source of a node up to a byte; joined onto one line, a `//` comment would swallow the code after it."""
    kept, start, waiting = [], node.start_byte, [node]
    while waiting:
        inner = waiting.pop()
        if "comment" in inner.type:
            kept.append(source[start : inner.start_byte])
            start = inner.end_byte
        else:
            waiting += [child for child in reversed(inner.children) if child.start_byte < end]
    return b"".join([*kept, source[start:end]])


def _before(body: Node) -> Node:
    """The last node before a body that is not a comment."""
    before = body.prev_sibling
    while before is not None and "comment" in before.type:
        before = before.prev_sibling
    return before or body


def _docstring(language: str, item: _Definition) -> str | None:
    if language == "python":
        return _python_docstring(item.node.child_by_field_name("body"))
    return _comment_above(item.outer)


def _file_docstring(language: str, root: Node) -> str | None:
    if language == "python" and (docstring := _python_docstring(root)):
        return docstring
    first = next((child for child in root.children if child.type not in {"hash_bang_line", "preproc_ifdef"}), None)
    comments: list[Node] = []
    while first is not None and "comment" in first.type:
        if comments and first.start_point.row > _last_row(comments[-1]) + 1:
            break
        comments.append(first)
        first = first.next_sibling
    # A comment that touches the first definition belongs to that.
    if first is not None and comments and first.start_point.row <= _last_row(comments[-1]) + 1 and language != "python":
        return None
    text = _clean_comments(comments) or ""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if not _LICENCE.match(part.strip())]
    return "\n\n".join(paragraphs).strip() or None


def _python_docstring(body: Node | None) -> str | None:
    first = next((child for child in body.named_children if child.type != "comment"), None) if body else None
    if first is None or first.type != "expression_statement" or first.named_child_count != 1:
        return None
    if first.named_children[0].type != "string":
        return None
    try:
        value = ast.literal_eval(_text(first.named_children[0]))
    except (ValueError, SyntaxError, MemoryError):
        return None
    return inspect.cleandoc(value).strip() or None if isinstance(value, str) else None


def _comment_above(node: Node) -> str | None:
    """The comment that ends on the line before, with those it touches; attributes may be between them."""
    comments: list[Node] = []
    line, above = node.start_point.row, node.prev_sibling
    while above is not None and _last_row(above) >= line - 1:
        if "comment" in above.type:
            # A comment at the end of another statement's line belongs to that statement.
            before = above.prev_sibling
            if before is not None and _last_row(before) == above.start_point.row and "comment" not in before.type:
                break
            comments.insert(0, above)
        elif above.type != "attribute_item":
            break
        line, above = above.start_point.row, above.prev_sibling
    return _clean_comments(comments)


def _last_row(node: Node) -> int:
    """The last row that a node has text on; directives and doc comments end at the start of the row after."""
    return node.end_point.row - (node.end_point.column == 0)


def _clean_comments(comments: Sequence[Node]) -> str | None:
    lines: list[str] = []
    for comment in comments:
        text = re.sub(r"^(/\*+!?|//+!?|#+[!:]?)|\*+/$", "", _text(comment).strip())
        lines += [re.sub(r"^\s*(\*|//+!?|#+)\s?", "", line).rstrip() for line in text.split("\n")]
    return inspect.cleandoc("\n".join(lines)).strip() or None


def _references(names: Sequence[Node], symbols: Sequence[Symbol], path: str, source: bytes) -> tuple[Reference, ...]:
    waiting, around = list(reversed(symbols)), list[Symbol]()
    references = []
    for node in sorted(names, key=lambda node: node.start_byte):
        while waiting and waiting[-1].start_byte <= node.start_byte:
            around.append(waiting.pop())
        while around and around[-1].end_byte <= node.start_byte:
            around.pop()
        if node.end_byte - node.start_byte > _MAX_NAME:
            continue
        references.append(
            Reference(
                path=path,
                name=_text(node),
                line=node.start_point.row + 1,
                start_byte=node.start_byte,
                caller=around[-1].id if around else None,
                receiver=_receiver(node, source),
            )
        )
    return tuple(references)


def _receiver(node: Node, source: bytes) -> str | None:
    """The last name before the dot, arrow or colons of a name; None for a Rust path that begins with `crate`."""
    around = node.parent
    before = around.named_children[0] if around is not None and around.type in _DOTTED else node
    if before.start_byte == node.start_byte:
        return None
    # only its end: a chain of 10,000 calls would be copied 10,000 times
    end = source[max(before.start_byte, before.end_byte - _MAX_NAME) : before.end_byte].decode("utf-8", "replace")
    end = end.removesuffix("()") if end.endswith("super()") else end  # Python's
    receiver = end[len(end.rstrip(_NAME_CHARACTERS)) :].lstrip("0123456789")
    is_path = around is not None and around.type == "scoped_identifier"
    return None if is_path and receiver in {"crate", "super", "self"} else receiver


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
