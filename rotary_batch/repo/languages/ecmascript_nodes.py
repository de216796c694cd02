"""Reads the nodes of JavaScript and TypeScript: names, paths of members, values behind brackets and casts."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of

FUNCTIONS = {"arrow_function", "function_expression", "generator_function"}
_WRAPPERS = {"export_statement", "ambient_declaration", "expression_statement"}
_AROUND_VALUE = {"parenthesized_expression", "as_expression", "satisfies_expression", "non_null_expression"}
_UNNAMED = {"call_signature": "()", "construct_signature": "new"}
_MAX_COMMENTS_BETWEEN = 100  # two overloads; each costs all that are before it in the file
_MAX_LINKS = 20  # of `a = b = c`, of `a.b.c`, of brackets around a value


def outermost(node: Node) -> Node:
    """A declaration with `export` and `declare` around it."""
    while (around := node.parent) is not None and around.type in _WRAPPERS:
        node = around
    return node


def unwrapped(value: Node | None) -> Node | None:
    """A value without the brackets and casts around it."""
    for _ in range(_MAX_LINKS):
        if value is None or value.type not in _AROUND_VALUE:
            break
        value = next(iter(value.named_children), None)
    return value


def chain(value: Node | None) -> tuple[list[Node], Node | None]:
    """`a = b = c` as what is assigned to, [a, b], and the value c."""
    lefts: list[Node] = []
    while value is not None and value.type == "assignment_expression" and len(lefts) < _MAX_LINKS:
        lefts += filter(None, [value.child_by_field_name("left")])
        value = value.child_by_field_name("right")
    return lefts, unwrapped(value)


def path_of(node: Node | None) -> list[str]:
    """The names of `a.b["c"]`; [] when it is something else, such as a member of the result of a call."""
    names: list[str] = []
    while node is not None and node.type in {"member_expression", "subscript_expression"} and len(names) < _MAX_LINKS:
        if node.type == "member_expression":
            names.append(property_name(node.child_by_field_name("property")))
        else:
            names.append(_in_brackets(node.child_by_field_name("index")))
        node = unwrapped(node.child_by_field_name("object"))
    if node is None or node.type not in {"identifier", "this"} or "" in names:
        return []
    return [text_of(node), *reversed(names)]


def member_name(node: Node) -> str:
    """The name of a member of a class, object, interface or enum, "" when it has none."""
    if node.type in _UNNAMED:
        return _UNNAMED[node.type]
    fields = (node.child_by_field_name(field) for field in ("name", "property", "key", "pattern", "left"))
    name = next(filter(None, fields), node)
    return f"[{text_of(name)}]" if node.type == "index_signature" else property_name(name)


def property_name(node: Node | None) -> str:
    """A name as it is written behind a dot; a computed one keeps its brackets unless it is a literal."""
    if node is None:
        return ""
    if node.type != "computed_property_name":
        return text_of(node)[1:-1] if node.type == "string" else text_of(node)
    inside = next(iter(node.named_children), None)
    return _in_brackets(inside) or f"[{'.'.join(path_of(inside))}]".replace("[]", "")


def _in_brackets(node: Node | None) -> str:
    """What `["x"]`, `[1]` and `[Symbol.x]` name; "" for what is known only when the code runs."""
    if node is None or node.type in {"string", "number"}:
        return property_name(node)
    path = path_of(node)
    return f"[{'.'.join(path)}]" if path[:1] == ["Symbol"] else ""


def bound_names(pattern: Node) -> Iterator[Node]:
    """The identifiers in a pattern such as `{ a, b: [c], ...d }`."""
    waiting = [pattern]
    while waiting:
        node = waiting.pop()
        if node.type in {"identifier", "shorthand_property_identifier_pattern"}:
            yield node
        elif node.type in {"pair_pattern", "object_assignment_pattern", "assignment_pattern"}:
            waiting += filter(None, [node.child_by_field_name("value" if node.type == "pair_pattern" else "left")])
        elif node.type in {"object_pattern", "array_pattern", "rest_pattern"}:
            waiting += reversed(node.named_children)


def bases(node: Node) -> tuple[str, ...]:
    """What a class or an interface extends and implements, as written."""
    found = list[Node]()
    for child in node.named_children:
        if child.type == "class_heritage":
            clauses = [clause for clause in child.named_children if clause.type.endswith("_clause")]
            found += [base for clause in clauses for base in clause.named_children] or child.named_children
        elif child.type == "extends_type_clause":
            found += child.named_children
    texts: list[str] = []
    for base in found:
        if "comment" in base.type:
            continue
        text = " ".join(text_of(base).split())
        if base.type == "type_arguments" and texts:
            texts[-1] += text
        else:
            texts.append(text)
    return tuple(texts)


def signature_end(node: Node, value: Node | None) -> int:
    """Where the body begins of a definition, or of the function or class that it holds, else its end."""
    body = node.child_by_field_name("body")
    if body is None and value is not None and (value.type in FUNCTIONS or value.type == "class"):
        body = value.child_by_field_name("body")
    return node.end_byte if body is None else body.start_byte


def overload_before(node: Node, outer: Node) -> Node | None:
    """The last overload above the body of a function or method: it is what callers see, and the body's own is not."""
    before = outer.prev_named_sibling
    for _ in range(_MAX_COMMENTS_BETWEEN):
        if before is None or "comment" not in before.type:
            break
        before = before.prev_named_sibling
    if before is not None and before.type == "export_statement":
        before = before.child_by_field_name("declaration")
    if before is None or before.type not in {"function_signature", "method_signature"}:
        return None
    return before if member_name(before) == member_name(node) else None


def is_import(value: Node | None) -> bool:
    """Whether a value is `require(…)`, a member of it, or `await import(…)`."""
    for _ in range(_MAX_LINKS):
        if value is None:
            return False
        if value.type == "call_expression":
            function = value.child_by_field_name("function")
            if function is not None and (function.type == "import" or function.text == b"require"):
                return True
            value = function
        elif value.type == "member_expression":
            value = value.child_by_field_name("object")
        elif value.type == "await_expression":
            value = next(iter(value.named_children), None)
        else:
            return False
    return False
