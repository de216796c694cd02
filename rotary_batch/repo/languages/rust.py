"""Rust."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tree_sitter import Node

from rotary_batch.core import Symbol
from rotary_batch.repo.comments import clean_comments, comment_above, comment_after, text_of
from rotary_batch.repo.languages.import_statements import rust_imports
from rotary_batch.repo.languages.language import MAX_BASE_CHARACTERS, Definition, Language, Scoping
from rotary_batch.repo.languages.visibility import within_private

MAX_ATTRIBUTES = 100  # looked at above one item
_TYPES = {"struct", "enum", "union", "type", "trait"}
_DATA = {"field", "member", "constant", "variable"}
_WITHOUT_BODY = {"type_item", "const_item", "static_item", "enum_variant", "field_declaration"}
_WITHOUT_BODY |= {"function_signature_item", "associated_type"}
MAX_BASES = 100  # of one type
_INNER_TYPE = {"reference_type": "type", "pointer_type": "type", "generic_type": "type", "dynamic_type": "trait"}


def _refine(definition: Definition) -> Iterable[Definition]:
    node, kind = definition.node, definition.kind
    if kind == "scope":
        return _impl(definition)
    if kind in {"constant", "variable"} and node.parent is not None and node.parent.type == "block":
        return []  # a local
    bases = tuple(_bases(node)) if kind == "trait" else ()
    attributes = tuple(one for one in _attributes(node) if not _is_doc(one))
    return [definition._replace(parts=_parts(node), bases=bases, decorators=attributes)]


def _impl(definition: Definition) -> Iterator[Definition]:
    """The scope of an `impl`, and that its type has the trait as a base."""
    name, trait = _type_name(definition.node.child_by_field_name("type")), definition.node.child_by_field_name("trait")
    if trait is not None:
        yield definition._replace(kind="export", name=name, bases=(_word(trait),))
    yield definition._replace(name=name)


def _item_macros(root: Node) -> Iterator[Node]:
    """What macros are given where items stand: often items, as in `cfg_io! { pub fn read() {} }`."""
    waiting = [root]
    while waiting:
        for node in waiting.pop().named_children:
            inner = node.named_children[0] if node.type == "expression_statement" and node.named_child_count else node
            if inner.type == "macro_invocation":
                yield from (child for child in inner.named_children if child.type == "token_tree")
            elif node.type in {"mod_item", "impl_item", "trait_item"}:
                waiting += node.children_by_field_name("body")


def _type_name(node: Node | None) -> str:
    """The name of the type that an `impl` is for, without references and parameters."""
    while node is not None and node.type in _INNER_TYPE:
        node = node.child_by_field_name(_INNER_TYPE[node.type])
    if node is not None and node.type == "scoped_type_identifier":
        node = node.child_by_field_name("name")
    return re.sub(r"\s+", "", text_of(node)).replace(".", "") if node is not None else ""


def _parts(node: Node) -> tuple[str | Node, ...]:
    """The signature of what has no body that it leaves out."""
    if node.type == "macro_definition":
        return ("macro_rules!", *node.children_by_field_name("name"))
    has_fields = any(child.type == "field_declaration_list" for child in node.children_by_field_name("body"))
    return (node,) if node.type in _WITHOUT_BODY or (node.type == "struct_item" and not has_fields) else ()


def _bases(node: Node) -> Iterator[str]:
    bounds = node.child_by_field_name("bounds")
    for bound in bounds.named_children if bounds is not None else ():
        if bound.type not in {"lifetime", "line_comment", "block_comment"}:
            yield _word(bound)


def _word(node: Node) -> str:
    return " ".join(text_of(node).split())[:MAX_BASE_CHARACTERS]


def _attributes(node: Node) -> list[Node]:
    """The attributes above an item, in their order; comments may be between them."""
    attributes: list[Node] = []
    above = node.prev_named_sibling
    for _ in range(MAX_ATTRIBUTES):
        if above is None or (above.type != "attribute_item" and "comment" not in above.type):
            break
        if above.type == "attribute_item":
            attributes.append(above)
        above = above.prev_named_sibling
    return attributes[::-1]


def _is_doc(attribute: Node) -> bool:
    return text_of(attribute.named_children[0].named_children[0]) == "doc" if attribute.named_child_count else False


def _docs_of(attribute: Node) -> str | None:
    """The text of `#[doc = "text"]`."""
    value = attribute.named_children[0].child_by_field_name("value")
    contents = [child for child in value.named_children if child.type == "string_content"] if value is not None else []
    return text_of(contents[0]).strip() if contents else None


def _docstring(definition: Definition) -> str | None:
    node = definition.node
    comment = comment_above(definition.outer) or (comment_after(node) if definition.kind in _DATA else None)
    docs = [text for one in _attributes(node) if _is_doc(one) and (text := _docs_of(one))]
    if node.type == "mod_item" and not comment:
        comment = _inner_docs(node)
    return "\n".join(filter(None, [comment, *docs])) or None


def _inner_docs(node: Node) -> str | None:
    """The `//!` comments that a module begins with."""
    body, comments = node.child_by_field_name("body"), []
    for child in body.named_children if body is not None else ():
        if child.child_by_field_name("inner") is None:
            break
        comments.append(child)
    return clean_comments(comments)


def _is_public(definition: Definition) -> bool:
    """Whether it is `pub`; what a trait, an `impl` of a trait or an enum holds is seen wherever that is."""
    node = definition.node
    if node.type == "macro_definition":
        return any(text_of(one.named_children[0]) == "macro_export" for one in definition.decorators or ())
    if any(child.type == "visibility_modifier" and text_of(child) == "pub" for child in node.children[:3]):
        return True
    around = node.parent.parent if node.parent is not None else None
    if node.type in {"enum_variant", "associated_type"} or around is None:
        return node.type in {"enum_variant", "associated_type"}
    is_trait = around.type == "trait_item" or (around.type == "impl_item" and around.child_by_field_name("trait"))
    return bool(is_trait) or around.type == "enum_variant"


def _complete(symbols: Sequence[Symbol], impls: Sequence[Definition]) -> Sequence[Symbol]:
    """Types with the traits that they implement in this file as bases."""
    traits: dict[str, list[str]] = defaultdict(list)
    for impl in impls:
        traits[impl.name] += impl.bases
    return [
        replace(symbol, bases=tuple(dict.fromkeys([*symbol.bases, *traits[symbol.qualified_name]]))[:MAX_BASES])
        if symbol.kind in _TYPES and symbol.qualified_name in traits
        else symbol
        for symbol in within_private(symbols)
    ]


RUST = Language(
    name="rust",
    grammar=("tree_sitter_rust", "language"),
    queries=("rust",),
    doc_mark="///",
    endings=(".rs",),
    dotted=frozenset({"field_expression", "scoped_identifier"}),
    refine=_refine,
    is_public=_is_public,
    complete=_complete,
    unparsed=_item_macros,
    docstring=_docstring,
    scoping=Scoping(capital_is_constant=True),
    imports=rust_imports,
)
