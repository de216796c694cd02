"""What declarations of C and C++ declare: a name within its declarators, its kind, and its signature."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from tree_sitter import Node

from rotary_batch.repo.comments import clean_comments, comment_above, is_behind, last_row, text_of
from rotary_batch.repo.languages.language import Definition
from rotary_batch.repo.signatures import MAX_STRING_NBYTES, MAX_VALUE_NBYTES, limited, on_one_line, shown

MAX_VALUE_CHARACTERS = 80  # of a constant, in its signature
_MAX_NAMESPACES = 20  # around a definition that are looked at
_NAMES = {
    *("identifier", "field_identifier", "type_identifier", "qualified_identifier", "destructor_name", "operator_name"),
    *("operator_cast", "template_function", "template_method", "template_type", "primitive_type"),
}
_TYPES = {"struct_specifier", "union_specifier", "class_specifier", "enum_specifier"}
_BODIES = {
    *("compound_statement", "field_declaration_list", "enumerator_list", "declaration_list", "field_initializer_list"),
    *("try_statement", "requirement_seq"),
}
_WRAPPERS = {"template_declaration", "linkage_specification"}
_STATEMENTS = {"declaration", "field_declaration", "type_definition"}
_DECLARATORS = {
    *("pointer_declarator", "reference_declarator", "array_declarator", "function_declarator", "init_declarator"),
    *("parenthesized_declarator", "attributed_declarator", *_NAMES),
}
_BASES = {"type_identifier", "qualified_identifier", "template_type"}
_WITH_BODY = {"function", "method", "constructor", "struct", "class", "union", "enum"}
_KEYWORDS = {
    *("", "if", "else", "for", "while", "do", "switch", "return", "typedef", "enum", "struct", "union"),
    *("unsigned", "signed", "int", "char", "long", "short", "void"),
}
_MAX_DECLARATORS = 50  # of one statement, for which its comment is repeated
_LINE_COMMENT = re.compile(r"(?:[^\"'/\\]|\"[^\"]*+\"|/(?!/))*+//[/!]?<?[ \t]*+([^\n]*\S)\s*")
_CODE = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*', re.DOTALL)
_CUDA = re.compile(r"\[\[(global|device|host|shared|constant|managed)\]\]")  # see c_macros.py


class _Declared(NamedTuple):
    """What one declarator declares."""

    name: str
    scopes: tuple[str, ...]  # before its colons
    is_function: bool


def definitions(match: Definition) -> Iterable[Definition]:
    """The definitions of one match: a declaration has several names, a type has members."""
    node = match.node
    if node.type in _TYPES:
        return _type(node)
    if node.type == "type_definition":
        return _aliases(node)
    if node.type == "declaration":
        return _declared_by(node, is_member=False, is_private=False)
    if node.type == "function_definition":
        return () if _is_member(node) else _function(node, class_name="", is_private=False)
    if node.type in {"preproc_def", "preproc_function_def"}:
        return _macro(match)
    if node.type == "expression_statement":
        return (match._replace(signature=_line(text_of(node))),)
    if _is_member(node):  # an alias, which its class lists
        return ()
    return (match._replace(outer=_outer(node), signature=_head(node)),)


def docstring(definition: Definition) -> str | None:
    """The comment above, else the one behind it on its last line."""
    node = definition.outer
    if node.type not in _STATEMENTS and node.parent is not None and node.parent.type in _STATEMENTS:
        node = node.parent
        if node.named_child_count > _MAX_DECLARATORS:
            return None
    node = _outer(node)
    return comment_above(node) or (None if definition.kind in _WITH_BODY else _comment_behind(node))


def is_public(definition: Definition) -> bool:
    """Whether code outside its class may use it."""
    return not definition.is_private


def _comment_behind(node: Node) -> str | None:
    """The comment on the last line of a node, with those below that say that they belong to it (`///<`)."""
    if node.type.startswith("preproc"):
        value = node.child_by_field_name("value")  # holds a `//` comment
        line = _LINE_COMMENT.fullmatch(text_of(value)) if value is not None else None
        return line[1] if line else clean_comments([child for child in node.children if child.type == "comment"])
    row, comment = last_row(node), node.next_sibling
    while comment is not None and comment.type in {",", ";"} and comment.start_point.row == row:
        comment = comment.next_sibling
    comments: list[Node] = []
    while comment is not None and comment.type == "comment" and comment.start_point.row <= row + bool(comments):
        if comments and not is_behind(comment):
            break
        comments.append(comment)
        row, comment = last_row(comment), comment.next_sibling
    text = clean_comments(comments)
    return re.sub(r"^< ?", "", text, flags=re.MULTILINE).strip() or None if text else None


def _type(node: Node) -> Iterator[Definition]:
    """A type with a body, unless a class around it lists it, and its members."""
    body = node.child_by_field_name("body")
    name = _type_name(node)
    if body is None:
        return
    if name and not _is_member(node):
        yield _type_definition(node, name, is_private=False)
    if node.type == "enum_specifier":
        kind = "member" if name else "constant"
        for child in body.named_children:
            if child.type == "enumerator":
                yield _enumerator(child, kind)
        return
    yield from _members(body, name, is_private=node.type == "class_specifier")


def _enumerator(node: Node, kind: str) -> Definition:
    name, value = (node.child_by_field_name(field) for field in ("name", "value"))
    text = text_of(name) if name is not None else ""
    return Definition(node, node, kind, text, signature=f"{text} = {_value(value)}" if value is not None else text)


def _type_definition(node: Node, name: str, *, is_private: bool) -> Definition:
    around = node.parent
    is_alias = around is not None and around.type == "type_definition"
    anonymous = node.child_by_field_name("name") is None
    bases = next((child for child in node.children if child.type == "base_class_clause"), None)
    return Definition(
        outer=around if is_alias and around is not None else _outer(node),
        node=node,
        kind=node.type.removesuffix("_specifier"),
        name=name,
        bases=tuple(_line(text_of(base)) for base in bases.named_children if base.type in _BASES) if bases else (),
        signature=f"typedef {_key(node)} {{ … }} {name}" if is_alias and anonymous else _head(node),
        is_private=is_private,
    )


def _members(body: Node, class_name: str, *, is_private: bool) -> Iterator[Definition]:
    """What a class declares; functions that it only declares are defined elsewhere."""
    for member in body.named_children:
        node = _inside(member)
        if member.type == "access_specifier":
            is_private = text_of(member) != "public"
        elif node.type == "function_definition":
            yield from _function(node, class_name=class_name, is_private=is_private)
        elif node.type in {"field_declaration", "declaration"}:
            yield from _nested_type(node.child_by_field_name("type"), is_private=is_private)
            yield from _declared_by(node, is_member=True, is_private=is_private)
        elif node.type == "type_definition":
            yield from _nested_type(node.child_by_field_name("type"), is_private=is_private)
            yield from (alias._replace(is_private=is_private) for alias in _aliases(node))
        elif node.type == "alias_declaration":
            yield Definition(member, node, "type", _type_name(node), signature=_head(node), is_private=is_private)
        else:
            yield from _nested_type(node, is_private=is_private)


def _nested_type(node: Node | None, *, is_private: bool) -> Iterator[Definition]:
    if node is not None and node.type in _TYPES and node.child_by_field_name("body") and (name := _type_name(node)):
        yield _type_definition(node, name, is_private=is_private)


def _function(node: Node, *, class_name: str, is_private: bool) -> Iterator[Definition]:
    declared = _declared(node.child_by_field_name("declarator"))
    if declared is None or not declared.is_function:
        return
    scopes = declared.scopes
    if node.child_by_field_name("type") is None and _is_statement(declared, class_name):
        return  # `TEST(suite, name) {}`
    kind = "method" if class_name or scopes else "function"
    if declared.name == (scopes[-1] if scopes else class_name):
        kind = "constructor"
    yield Definition(
        outer=_outer(node),
        node=node,
        kind=kind,
        name=".".join([*scopes, declared.name]),
        signature=_head(node),
        is_private=is_private,
        is_local=not class_name and _is_local(node),
    )


def _declared_by(node: Node, *, is_member: bool, is_private: bool) -> Iterator[Definition]:
    """The variables, fields and functions of a declaration."""
    type_node = node.child_by_field_name("type")
    has_body = type_node is not None and type_node.child_by_field_name("body") is not None
    head, groups = _groups(node)
    is_local = not is_member and _is_local(node)
    words = {text_of(child) for child in node.children if child.type in {"storage_class_specifier", "type_qualifier"}}
    for place, group in enumerate(groups):
        declared = _declared(group[0])
        if declared is None or (type_node is None and _is_statement(declared)):
            continue
        is_alone = len(groups) == 1 and not has_body
        is_around = has_body and place == 0 and not _type_name(type_node)  # its fields are named after it
        yield Definition(
            outer=_outer(node) if is_alone else group[0],
            node=node if is_alone or is_around else group[0],
            kind=_kind(words, group, declared, is_member=is_member),
            name=".".join([*declared.scopes, declared.name]),
            signature=_line(" ".join(filter(None, [head, _declarator(group)]))),
            is_private=is_private,
            is_local=is_local,
        )


def _aliases(node: Node) -> Iterator[Definition]:
    """The names that a `typedef` gives, but the one that its own struct has."""
    type_node = node.child_by_field_name("type")
    has_body = type_node is not None and type_node.child_by_field_name("body") is not None
    own = _type_name(type_node) if has_body else ""
    head, groups = _groups(node)
    for group in groups:
        declared = _declared(group[0])
        if declared is None or declared.name == own:
            continue
        is_alone = len(groups) == 1 and not has_body
        signature = _line(f"{head} {_declarator(group)}")
        at = node if is_alone else group[0]
        yield Definition(outer=at, node=at, kind="type", name=declared.name, signature=signature)


def _macro(match: Definition) -> Iterator[Definition]:
    parameters, value = (match.node.child_by_field_name(name) for name in ("parameters", "value"))
    signature = f"#define {match.name}" + (text_of(parameters) if parameters else "")
    if value is not None and not parameters:
        signature += f" {_value(value)}"
    yield match._replace(signature=_line(signature).rstrip())


def _groups(node: Node) -> tuple[str, list[list[Node]]]:
    """What a declaration says of all its names, and for each name its declarator and what follows that."""
    head: list[Node] = []
    groups: list[list[Node]] = []
    starts = {child.id for child in node.children_by_field_name("declarator")}
    for child in node.children:
        if child.id in starts:
            groups.append([child])
        elif not groups:
            head.append(child)
        elif child.type not in {",", ";", "comment"}:
            groups[-1].append(child)
    return _templates(node) + _joined(head), groups


def _declarator(group: Sequence[Node]) -> str:
    first, *rest = group
    value = first.child_by_field_name("value") if first.type == "init_declarator" else None
    declarator = first.child_by_field_name("declarator") if value is not None else first
    text = _text(declarator) if declarator is not None else ""
    if value is not None:
        text += " = " * (value.type not in {"argument_list", "initializer_list"} or _has_equals(first)) + _value(value)
    return text + "".join(f" {_value(node)}" for node in rest)


def _has_equals(node: Node) -> bool:
    return any(child.type == "=" for child in node.children)


def _kind(words: Collection[str], group: Sequence[Node], declared: _Declared, *, is_member: bool) -> str:
    if declared.is_function:
        is_pure = is_member and [text_of(child) for child in group[1:]] == ["=", "0"]
        return "method" if is_pure else "declaration"
    if not is_member and "extern" in words and group[0].type != "init_declarator":
        return "declaration"
    is_constant = "constexpr" in words or ("const" in words and (not is_member or "static" in words))
    pointer = _pointer(group[0])
    if pointer is not None and "constexpr" not in words:
        is_constant = any(text_of(child) == "const" for child in pointer.children if child.type == "type_qualifier")
    return "constant" if is_constant else "field" if is_member else "variable"


def _pointer(declarator: Node | None) -> Node | None:
    """The outermost pointer of a declarator."""
    while declarator is not None and declarator.type in {"init_declarator", "array_declarator", "pointer_declarator"}:
        if declarator.type == "pointer_declarator":
            return declarator
        declarator = declarator.child_by_field_name("declarator")
    return None


def _declared(declarator: Node | None) -> _Declared | None:
    """The name within declarators; it is a function if its parameters come first around the name."""
    node, is_function = declarator, False
    while node is not None and node.type not in _NAMES:
        if node.type in {"pointer_declarator", "reference_declarator", "array_declarator", "function_declarator"}:
            is_function = node.type == "function_declarator"
        inner = node.child_by_field_name("declarator")
        node = inner or next((child for child in node.named_children if child.type in _DECLARATORS), None)
    scopes: list[str] = []
    while node is not None and node.type == "qualified_identifier":
        if (scope := node.child_by_field_name("scope")) is not None:
            scopes.append(_plain(scope))
        node = node.child_by_field_name("name")
    if node is None or node.type not in _NAMES or _plain(node) in _KEYWORDS:
        return None
    return _Declared(_plain(node), tuple(scopes), is_function or node.type == "operator_cast")


def _plain(node: Node) -> str:
    """A name without template arguments; an operator with its sign or type."""
    if node.type.startswith("template_"):
        node = node.child_by_field_name("name") or node
    text = text_of(node)
    if node.type == "operator_cast":
        text = text.split("(", 1)[0]
    if node.type in {"operator_name", "operator_cast"}:
        return re.sub(r"^operator (?=\W)", "operator", " ".join(text.split()))
    return "".join(text.split())


def _type_name(node: Node | None) -> str:
    """The tag of a type, else the first name that its `typedef` gives it."""
    if node is None:
        return ""
    if (name := node.child_by_field_name("name")) is not None:
        return re.sub(r"<.*>|\s+", "", text_of(name), flags=re.DOTALL).replace("::", ".")
    around = node.parent
    if around is None or around.type != "type_definition":
        return ""
    names = (child for child in around.children_by_field_name("declarator") if child.type == "type_identifier")
    return next(map(text_of, names), "")


def _is_statement(declared: _Declared, class_name: str = "") -> bool:
    """Whether what looks like a function without a type is a macro, such as `TEST(suite, name)`."""
    is_capitals = re.fullmatch(r"[A-Z][A-Z0-9_]+", declared.name) is not None
    return is_capitals and not declared.scopes and declared.name != class_name


def _is_local(node: Node) -> bool:
    """Whether it is seen in its file only: it is `static`, or in a namespace without a name."""
    if any(child.type == "storage_class_specifier" and text_of(child) == "static" for child in node.children):
        return True
    around = _outer(node).parent
    for _ in range(_MAX_NAMESPACES):
        if around is None or (around.type == "namespace_definition" and around.child_by_field_name("name") is None):
            return around is not None
        around = around.parent
    return False


def _is_member(node: Node) -> bool:
    around = _outer(node).parent
    if around is not None and around.type in _STATEMENTS:
        around = _outer(around).parent
    return around is not None and around.type == "field_declaration_list"


def _outer(node: Node) -> Node:
    """With its template parameters, or its `extern "C"`."""
    while node.parent is not None and node.parent.type in _WRAPPERS:
        node = node.parent
    return node


def _inside(node: Node) -> Node:
    while node.type in _WRAPPERS and node.named_child_count:
        node = node.named_children[-1]
    return node


def _templates(node: Node) -> str:
    """The template parameters of a definition."""
    texts: list[str] = []
    while node.parent is not None and node.parent.type in _WRAPPERS:
        inner, node = node, node.parent
        if node.type == "template_declaration":
            texts.append(_joined([child for child in node.children if child.end_byte <= inner.start_byte]))
    return "".join(f"{text} " for text in reversed(texts))


def _head(node: Node) -> str:
    """A definition up to its body."""
    body = next((place for place, child in enumerate(node.children) if child.type in _BODIES), node.child_count)
    return _line(_templates(node) + _joined(node.children[:body]))


def _joined(nodes: Sequence[Node]) -> str:
    text, end = "", nodes[0].start_byte if nodes else 0
    for node in nodes:
        if node.type not in {"comment", ";"}:
            text += " " * (node.start_byte > end and bool(text)) + _piece(node)
        end = node.end_byte
    return text


def _piece(node: Node) -> str:
    """A node as it is; a type without its body."""
    if node.type not in _TYPES or node.child_by_field_name("body") is None:
        return _text(node)
    name = node.child_by_field_name("name")
    return f"{_key(node)} {text_of(name)}" if name is not None else f"{_key(node)} {{ … }}"


def _text(node: Node) -> str:
    """A node as it is, but for long defaults; most have none, and need no walk."""
    text = text_of(node)
    return shown(node) if len(text) > MAX_VALUE_NBYTES and "=" in text else text


def _key(node: Node) -> str:
    return node.type.removesuffix("_specifier")


def _value(node: Node) -> str:
    """A value, elided if it is long."""
    if node.end_byte - node.start_byte <= 4 * MAX_VALUE_CHARACTERS:
        text = _line(text_of(node))
        if len(text) <= MAX_VALUE_CHARACTERS:
            return text
    return {"initializer_list": "{ … }", "argument_list": "(…)"}.get(node.type, "…")


def _shortened(token: re.Match[str]) -> str:
    if token[0][:2] in {"//", "/*"}:
        return " "
    is_long = token[0][:1] in {'"', "'"} and len(token[0].encode()) > MAX_STRING_NBYTES
    return f"{token[0][0]}…{token[0][0]}" if is_long else token[0]


def _line(text: str) -> str:
    """On one line, without comments, and with long strings elided."""
    text = _CODE.sub(_shortened, text)
    text = _CUDA.sub(r"__\1__", text)
    return limited(on_one_line(text).rstrip(";: "))
