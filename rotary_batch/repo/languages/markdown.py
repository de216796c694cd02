"""Markdown: its headings are sections."""

from __future__ import annotations

from collections.abc import Iterable

from tree_sitter import Node

from rotary_batch.readme import first_paragraphs
from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import one_line

_HEADINGS = {"atx_heading", "setext_heading"}


def _refine(definition: Definition) -> Iterable[Definition]:
    heading = definition.node if definition.node.type in _HEADINGS else definition.node.named_children[0]
    content = heading.child_by_field_name("heading_content")
    if content is not None and (name := one_line(content).rstrip("# ")):
        yield definition._replace(name=name, signature=name)


def _first_paragraph(definition: Definition) -> str | None:
    node: Node | None = definition.node.named_children[0] if definition.node.type == "section" else definition.node
    node = node.next_named_sibling if node is not None else None
    return text_of(node).strip() if node is not None and node.type == "paragraph" else None


def _file_docstring(root: Node) -> str | None:
    return "\n\n".join(first_paragraphs(text_of(root))) or None


MARKDOWN = Language(
    name="markdown",
    grammar=("tree_sitter_markdown", "language"),
    queries=("markdown",),
    endings=(".md", ".markdown"),
    is_data=True,
    refine=_refine,
    docstring=_first_paragraph,
    file_docstring=_file_docstring,
)
