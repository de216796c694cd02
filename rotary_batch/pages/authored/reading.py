"""Read what an author wrote, by the markup that the language's community writes; never raises, linear in the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from rotary_batch.pages.authored import flavours
from rotary_batch.pages.authored.blocks import Authored, Block, authored
from rotary_batch.pages.authored.commonmark import markdown_blocks
from rotary_batch.pages.authored.plain import go_blocks, plain_blocks
from rotary_batch.pages.authored.prose import BLANK_LINES, is_prose, prose_blocks
from rotary_batch.pages.authored.python import python_blocks, without_result_type

MAX_CHARACTERS = 50_000  # of a text whose markup is read; parsers of strangers' making need seconds for longer ones
_MAX_HEAD_CHARACTERS = 4_000  # of a text in which its summary is sought
_READERS: Mapping[str, Callable[[str], list[Block]]] = {
    **dict.fromkeys(("python", "notebook"), python_blocks),
    "rust": flavours.rust_blocks,
    "go": go_blocks,
    "javascript": flavours.javascript_blocks,
    **dict.fromkeys(("typescript", "tsx", "vue", "svelte"), flavours.typescript_blocks),
    "java": flavours.java_blocks,
    "kotlin": flavours.kotlin_blocks,
    "scala": flavours.scala_blocks,
    **dict.fromkeys(("c", "cpp"), flavours.c_blocks),
    "c_sharp": flavours.csharp_blocks,
    "php": flavours.php_blocks,
    "ruby": flavours.ruby_blocks,
    "lua": flavours.lua_blocks,
    "swift": flavours.swift_blocks,
    "markdown": markdown_blocks,
}


def read_authored(text: str, language: str | None) -> Authored:
    """What a docstring or a comment says; text that no parser reads is read as plain text."""
    return authored(_blocks(_said(text, language), language))


@lru_cache(maxsize=4096)  # the summary of a symbol is shown in several tables
def authored_summary(text: str, language: str | None) -> str:
    """The first paragraph of a docstring or a comment, on one line with its `code spans`; "" when it has none."""
    said = _said(text, language)
    head = BLANK_LINES.split(said, maxsplit=1)[0]
    if is_prose(head) and len(head) <= _MAX_HEAD_CHARACTERS:
        return " ".join(head.split())
    return authored(_blocks(_head(said), language)).summary


def _said(text: str, language: str | None) -> str:
    said = text.strip("\n").rstrip()
    return without_result_type(said) if language == "python" else said


def _head(text: str) -> str:
    """The first lines of a text, to the end of a paragraph."""
    if len(text) <= _MAX_HEAD_CHARACTERS:
        return text
    end = BLANK_LINES.search(text, _MAX_HEAD_CHARACTERS // 2, _MAX_HEAD_CHARACTERS)
    return text[: end.start() if end else _MAX_HEAD_CHARACTERS]


def _blocks(text: str, language: str | None) -> list[Block]:
    if (blocks := prose_blocks(text)) is not None:
        return blocks
    reader = _READERS.get(language or "", plain_blocks)
    if len(text) > MAX_CHARACTERS:
        return plain_blocks(text)
    try:
        return reader(text)
    except Exception:  # noqa: BLE001 (parsers that were not written for strangers' input: any error means plain text)
        return plain_blocks(text)
