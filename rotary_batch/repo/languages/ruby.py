"""Ruby."""

from __future__ import annotations

from collections.abc import Iterable

from tree_sitter import Node

from rotary_batch.repo.comments import comment_above, text_of
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.namespace_imports import ruby_imports
from rotary_batch.repo.languages.statements import one_line

_TYPES = {"class", "module", "singleton_class"}
_MIXINS = {"include", "extend", "prepend"}


def _refine(definition: Definition) -> Iterable[Definition]:
    node = definition.node
    definition = definition._replace(name=definition.name.lstrip(":"))
    if node.type in _TYPES:
        yield definition._replace(bases=tuple(_bases(node)))
    elif node.type == "assignment":
        yield definition._replace(signature=one_line(node))
    elif node.type == "simple_symbol":
        yield definition._replace(signature=_signature_of_symbol(node))
    else:
        yield definition._replace(kind=definition.kind if _type_around(node) else "function")


def _signature_of_symbol(node: Node) -> str:
    call = node.parent.parent if node.parent is not None else None
    method = call.child_by_field_name("method") if call is not None else None
    return f"{text_of(method)} {text_of(node)}" if method is not None else text_of(node)


def _bases(node: Node) -> Iterable[str]:
    """The superclass, then what is mixed in."""
    superclass, body = node.child_by_field_name("superclass"), node.child_by_field_name("body")
    if superclass is not None:
        yield from (one_line(child) for child in superclass.named_children[:1])
    for child in body.named_children if body is not None else ():
        method = child.child_by_field_name("method") if child.type == "call" else None
        arguments = child.child_by_field_name("arguments") if method is not None else None
        if method is not None and arguments is not None and text_of(method) in _MIXINS:
            yield from (one_line(argument) for argument in arguments.named_children)


def _type_around(node: Node) -> Node | None:
    while (node := node.parent) is not None:  # type: ignore[assignment]
        if node.type in _TYPES:
            return node
    return None


def _is_public(definition: Definition) -> bool:
    """False below a bare `private` or `protected`, and for `private def`."""
    node = definition.node
    outer = node.parent
    if outer is not None and outer.type == "argument_list" and outer.parent is not None:
        method = outer.parent.child_by_field_name("method")
        if method is not None and text_of(method) in {"private", "protected", "private_class_method"}:
            return False
    before = node.prev_named_sibling
    while before is not None:
        if before.type == "identifier" and text_of(before) in {"private", "protected", "public"}:
            return text_of(before) == "public"
        before = before.prev_named_sibling
    return True


def _docstring(definition: Definition) -> str | None:
    node = definition.outer
    if node.type == "simple_symbol" and node.parent is not None and node.parent.parent is not None:
        node = node.parent.parent
    return comment_above(node)


RUBY = Language(
    name="ruby",
    grammar=("tree_sitter_ruby", "language"),
    queries=("ruby",),
    doc_mark="#",
    endings=(".rb", ".rake", ".gemspec", ".ru"),
    file_names=("Rakefile", "Gemfile", "Vagrantfile"),
    interpreters=("ruby", "jruby"),
    dotted=frozenset({"call", "scope_resolution"}),
    calls_members_by_name=True,
    refine=_refine,
    is_public=_is_public,
    docstring=_docstring,
    imports=ruby_imports,
)
