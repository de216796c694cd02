"""Go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import comment_above, comment_after, text_of
from rotary_batch.repo.languages.import_statements import go_imports
from rotary_batch.repo.languages.language import MAX_BASE_CHARACTERS, MAX_SHARING, Definition, Language, Scoping
from rotary_batch.repo.languages.visibility import within_private

_KINDS = {"struct_type": "struct", "interface_type": "interface"}
_WITH_BODY = {"function_declaration", "method_declaration"}
_GROUPS = {"const_declaration", "var_declaration", "type_declaration"}
MAX_GROUP = 200  # names; the comment of a larger group is not repeated at each
MAX_GROUP_COMMENT_CHARACTERS = 2000
MAX_REPEATED_NBYTES = 60  # of an expression in which `iota` is replaced


def _refine(definition: Definition) -> Iterable[Definition]:
    if definition.kind in {"constant", "variable"}:
        return _declared_names(definition.node, definition.kind)
    if definition.kind == "type":
        return _type(definition)
    return [definition]


def _declared_names(declaration: Node, kind: str) -> Iterator[Definition]:
    """The names of `const` and `var`; a constant without a value repeats the expression before it."""
    specs = [node for node in declaration.named_children if node.type.endswith("_spec")]
    for group in declaration.named_children:
        if group.type == "var_spec_list":
            specs += [node for node in group.named_children if node.type == "var_spec"]
    is_group, source = _is_group(declaration), declaration
    for number, spec in enumerate(specs):
        has_value = spec.child_by_field_name("value") is not None or spec.child_by_field_name("type") is not None
        source = spec if has_value or not number else source
        names = _names(spec)
        for place, name in enumerate(names):
            outer = name if len(names) > 1 else spec if is_group else declaration
            parts: tuple[str | Node, ...] = (text_of(name),)
            if len(names) <= MAX_SHARING:
                parts = (*_head(name, source, kind), *_value(source, place, None if source is spec else number))
            if text_of(name) != "_":
                yield Definition(outer, name, kind, text_of(name), parts=parts)


def _names(spec: Node) -> list[Node]:
    return [name for name in spec.children_by_field_name("name") if name.is_named]


def _head(name: Node, spec: Node, kind: str) -> tuple[str | Node, ...]:
    word = "const" if kind == "constant" else "var"
    return (f"{word} {text_of(name)}", *spec.children_by_field_name("type"))


def _value(spec: Node, place: int, number: int | None) -> tuple[str | Node, ...]:
    """The value of a name; where it repeats an expression, `iota` is the number of its line."""
    values = spec.child_by_field_name("value")
    expressions = [node for node in values.named_children if node.type != "comment"] if values is not None else []
    if place >= len(expressions):
        return ()
    value = expressions[place]
    is_short = value.end_byte - value.start_byte <= MAX_REPEATED_NBYTES
    if number is not None and is_short:
        return ("=", re.sub(r"\biota\b", str(number), text_of(value)))
    return ("=", value)


def _is_group(declaration: Node) -> bool:
    """Whether it has parentheses: its comment is about all that is in them."""
    first = declaration.child(1) if declaration.child_count > 1 else None
    return first is not None and first.type in {"(", "var_spec_list"}


def _type(definition: Definition) -> Iterator[Definition]:
    """A type with its fields, the methods of an interface, and embedded types as its bases."""
    spec = definition.node
    declaration, shape = spec.parent, spec.child_by_field_name("type")
    if declaration is None or shape is None:
        return
    contents = (
        list(_contents(shape)) if declaration.parent is not None and declaration.parent.type == "source_file" else []
    )
    bases = [_embedded(node) for node in _parts(shape)]
    is_constraint = shape.type == "interface_type" and not contents and not all(bases)  # such as `~int | ~string`
    is_whole = shape.type not in _KINDS or is_constraint
    shown = ("=", shape) if spec.type == "type_alias" else (shape,)
    yield definition._replace(
        outer=spec if _is_group(declaration) else declaration,
        kind=_KINDS.get(shape.type, "type"),
        bases=tuple(base for base in bases if base),
        parts=("type", _with_parameters(spec), *(shown if is_whole else (shape.type.removesuffix("_type"),))),
    )
    yield from contents


def _with_parameters(spec: Node) -> str:
    nodes = [*spec.children_by_field_name("name"), *spec.children_by_field_name("type_parameters")]
    return "".join(" ".join(text_of(node).split()) for node in nodes)


def _parts(shape: Node) -> list[Node]:
    """What is directly in a struct or an interface."""
    if shape.type == "struct_type":
        return [part for fields in shape.named_children for part in fields.named_children]
    return shape.named_children if shape.type == "interface_type" else []


def _embedded(part: Node) -> str | None:
    """The type that a struct or an interface embeds there."""
    if part.type == "field_declaration" and part.child_by_field_name("name") is None:
        type_node = part.child_by_field_name("type")
        return _word(type_node) if type_node is not None else None
    is_one_type = part.type == "type_elem" and part.named_child_count == 1
    return _word(part) if is_one_type and part.named_children[0].type != "negated_type" else None


def _word(node: Node) -> str:
    return " ".join(text_of(node).split())[:MAX_BASE_CHARACTERS]


def _contents(shape: Node) -> Iterator[Definition]:
    """Fields and methods, also of structs without a name in it."""
    waiting = _parts(shape)[::-1]
    while waiting:
        part = waiting.pop()
        if part.type == "method_elem":
            name = part.children_by_field_name("name")[0]
            yield Definition(part, part, "method", text_of(name), parts=(part,))
        elif part.type == "field_declaration":
            yield from (fields := list(_fields(part)))
            if len(fields) == 1:
                waiting += _parts(_pointed(part.child_by_field_name("type")))[::-1]


def _fields(part: Node) -> Iterator[Definition]:
    names, tag = _names(part), part.children_by_field_name("tag")
    type_node = part.children_by_field_name("type")[0]
    inner = _pointed(type_node)
    shown: str | Node = type_node
    if inner.type == "struct_type":  # its fields are listed
        shown = text_of(type_node)[: inner.start_byte - type_node.start_byte] + "struct"
    for name in names:
        node = part if len(names) == 1 else name
        parts = (text_of(name), shown, *tag) if len(names) <= MAX_SHARING else (text_of(name),)
        yield Definition(node, node, "field", text_of(name), parts=parts)


def _pointed(type_node: Node | None) -> Node:
    """What a pointer or a slice is of."""
    assert type_node is not None, "a field has a type"
    while type_node.type in {"pointer_type", "slice_type"} and type_node.named_child_count == 1:
        type_node = type_node.named_children[0]
    return type_node


def _docstring(definition: Definition) -> str | None:
    """The comment above or beside it; of a name in a group else that of the group, as gopls shows it."""
    part = definition.outer
    if part.type.endswith("identifier") and part.parent is not None:  # one of several names
        part = part.parent
        if part.named_child_count > MAX_SHARING:
            return None
    own = comment_above(part) or (None if part.type in _WITH_BODY else comment_after(part))
    group = part.parent
    if group is not None and group.type == "var_spec_list":
        group = group.parent
    if own or group is None or group.type not in _GROUPS or group.named_child_count > MAX_GROUP:
        return own
    above = group.prev_sibling
    if above is None or above.end_byte - above.start_byte > MAX_GROUP_COMMENT_CHARACTERS:
        return None
    of_group = comment_above(group)
    return of_group if of_group and len(of_group) <= MAX_GROUP_COMMENT_CHARACTERS else None


GO = Language(
    name="go",
    grammar=("tree_sitter_go", "language"),
    queries=("go",),
    doc_mark="//",
    endings=(".go",),
    dotted=frozenset({"selector_expression"}),
    refine=_refine,
    is_public=lambda definition: definition.name[:1].isupper(),
    complete=within_private,
    docstring=_docstring,
    scoping=Scoping(first_result_counts=True),
    imports=go_imports,
    result="result",
)
