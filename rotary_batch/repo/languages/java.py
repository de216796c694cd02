"""Java."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import comment_above, comment_after, text_of
from rotary_batch.repo.languages.import_statements import java_imports
from rotary_batch.repo.languages.language import MAX_BASE_CHARACTERS, MAX_SHARING, Definition, Language, Scoping
from rotary_batch.repo.languages.visibility import within_private

_ANNOTATIONS = {"annotation", "marker_annotation"}
_OF_INTERFACE = {"interface_body", "annotation_type_body"}  # what is in them is public and its fields are constants
_DATA = {"field", "constant", "member"}


def _refine(definition: Definition) -> Iterable[Definition]:
    node = definition.node
    if definition.kind == "field":
        return [] if _is_in_anonymous_class(node) else _fields(node)
    span = None if node.child_by_field_name("body") is not None else (node, node.end_byte)
    definition = definition._replace(bases=tuple(_bases(node)), span=span, decorators=tuple(_annotations(node)))
    return [definition, *_components(node)] if definition.kind == "record" else [definition]


def _fields(node: Node) -> Iterator[Definition]:
    declarators = node.children_by_field_name("declarator")
    modifiers, annotations = _modifiers(node), tuple(_annotations(node))
    is_constant = node.type == "constant_declaration" or {"static", "final"} <= set(modifiers)
    shared: tuple[str | Node, ...] = ()
    if len(declarators) <= MAX_SHARING:
        shared = (*modifiers, *node.children_by_field_name("type"))
    for declarator in declarators:
        outer = node if len(declarators) == 1 else declarator
        name = declarator.child_by_field_name("name")
        if name is not None:
            yield Definition(
                outer=outer,
                node=outer,
                kind="constant" if is_constant else "field",
                name=text_of(name),
                parts=(*shared, declarator),
                decorators=annotations,
            )


def _components(record: Node) -> Iterator[Definition]:
    """The components of a record."""
    parameters = record.child_by_field_name("parameters")
    for one in parameters.named_children if parameters is not None else ():
        inner = next((child for child in one.named_children if child.type == "variable_declarator"), one)  # `int... x`
        name = inner.child_by_field_name("name")
        if name is not None:
            annotations = tuple(_annotations(one))
            yield Definition(one, one, "field", text_of(name), span=(one, one.end_byte), decorators=annotations)


def _bases(node: Node) -> Iterator[str]:
    for clause in node.named_children:
        if clause.type in {"superclass", "super_interfaces", "extends_interfaces"}:
            types = clause.named_children
            if types and types[0].type == "type_list":
                types = types[0].named_children
            texts = (" ".join(text_of(base).split()) for base in types if "comment" not in base.type)
            yield from (text[:MAX_BASE_CHARACTERS] for text in texts)


def _modifiers(node: Node) -> list[str]:
    """`public`, `static` and the like."""
    return [child.type for child in _children_of_modifiers(node) if not child.is_named]


def _annotations(node: Node) -> list[Node]:
    return [child for child in _children_of_modifiers(node) if child.type in _ANNOTATIONS]


def _children_of_modifiers(node: Node) -> list[Node]:
    first = node.named_child(0) if node.named_child_count else None
    return first.children if first is not None and first.type == "modifiers" else []


def _is_in_anonymous_class(member: Node) -> bool:
    body = member.parent
    around = body.parent if body is not None and body.type == "class_body" else None
    return around is not None and around.type == "object_creation_expression"


def _is_public(definition: Definition) -> bool:
    """Whether it is `public` or `protected`, is in an interface, or is an enum constant or a record component."""
    declaration = definition.node
    if declaration.type == "variable_declarator" and declaration.parent is not None:
        declaration = declaration.parent
    body = declaration.parent
    if body is None or declaration.type in {"enum_constant", "formal_parameter", "spread_parameter"}:
        return body is not None
    if _is_in_anonymous_class(declaration):
        return False
    modifiers = set(_modifiers(declaration))
    return bool(modifiers & {"public", "protected"}) or (body.type in _OF_INTERFACE and "private" not in modifiers)


def _docstring(definition: Definition) -> str | None:
    part = definition.outer
    if part.type == "variable_declarator" and part.parent is not None:
        part = part.parent
        if part.named_child_count > MAX_SHARING:
            return None
    return comment_above(part) or (comment_after(part) if definition.kind in _DATA else None)


JAVA = Language(
    name="java",
    grammar=("tree_sitter_java", "language"),
    queries=("java",),
    doc_mark="/**",
    endings=(".java",),
    dotted=frozenset({"method_invocation", "scoped_identifier"}),
    calls_members_by_name=True,
    refine=_refine,
    is_public=_is_public,
    complete=within_private,
    docstring=_docstring,
    scoping=Scoping(separate_functions=True),
    imports=java_imports,
    result="type",
)
