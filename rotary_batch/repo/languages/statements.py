"""Names that are declared in statements, one or several in each."""

from __future__ import annotations

from collections.abc import Collection

from tree_sitter import Node

from rotary_batch.repo.comments import comment_above, text_of
from rotary_batch.repo.languages.language import MAX_BASE_CHARACTERS, MAX_SHARING, Definition
from rotary_batch.repo.signatures import limited, on_one_line, shown


def one_line(node: Node) -> str:
    """The source of a node on one line, as in a signature, without the semicolon that ends it."""
    return limited(on_one_line(shown(node)).rstrip("; "))


def around(node: Node, types: Collection[str]) -> Node | None:
    """The nearest node of these types around a node."""
    outer = node.parent
    while outer is not None and outer.type not in types:
        outer = outer.parent
    return outer


def in_statement(definition: Definition, statements: Collection[str]) -> Definition:
    """A name with the statement that declares it.

    The statement belongs to its only name.  Of several names each has its own declarator, since two symbols cannot
    start at one byte; of very many, nothing else is shown.
    """
    declarator, statement = definition.node, around(definition.node, statements)
    if statement is None or declarator.parent is None:
        return definition
    if declarator.parent.named_child_count > MAX_SHARING:
        return definition._replace(signature=one_line(declarator))
    is_alone = sum(child.type == declarator.type for child in declarator.parent.named_children) == 1
    signature = one_line(statement)
    node = statement if is_alone else declarator
    return definition._replace(outer=node, node=node, signature=signature)


def comment_above_statement(definition: Definition, statements: Collection[str]) -> str | None:
    """The comment above a definition, or above the statement around it."""
    outer = definition.outer
    if outer.type in _DECLARATORS and outer.parent is not None and outer.parent.named_child_count > MAX_SHARING:
        return None
    statement = None if outer.type in statements else around(outer, statements) if outer.type in _DECLARATORS else None
    return comment_above(statement or outer)


_MAX_MODIFIERS = 30  # with the attributes before them; what follows may be thousands of names
_DECLARATORS = {"variable_declarator", "property_element", "const_element", "simple_identifier"}


def bases_in(node: Node, *lists: str) -> tuple[str, ...]:
    """The types that are named in the lists of a definition, such as its `base_list`."""
    named = [child for inner in node.named_children if inner.type in lists for child in inner.named_children]
    return tuple(one_line(child)[:MAX_BASE_CHARACTERS] for child in named if "argument" not in child.type)


def has_modifier(node: Node, *words: str) -> bool:
    """Whether a definition has one of these modifiers, such as `private`."""
    first = filter(None, map(node.child, range(min(node.child_count, _MAX_MODIFIERS))))
    return any("modifier" in child.type and set(words) & set(text_of(child).split()) for child in first)
