"""The first paragraphs of a README, as plain text: what the project says it is."""

from __future__ import annotations

import re
from collections.abc import Collection

MAX_PARAGRAPHS = 3
MAX_CHARACTERS = 1200  # of all of them
MAX_READ_CHARACTERS = 64_000  # of the file
_ENDINGS = (".md", ".markdown", ".rst", ".adoc", ".txt", "")
_NAMES = tuple(f"readme{ending}" for ending in _ENDINGS)
SPELLINGS = tuple(  # the best first
    f"{name}{ending}" for ending in (*_ENDINGS, ".MD", ".TXT") for name in ("README", "Readme", "readme", "ReadMe")
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TITLE = re.compile(r"(?:#{1,6}[ \t].*(?:\n|\Z))+")
_IMAGE = re.compile(r"!\[[^\[\]\n]{0,300}\](?:\([^()\n]{0,1000}\)|\[[^\[\]\n]{0,300}\])")
_LINK = re.compile(r"\[([^\[\]]{0,300})\](?:\([^()\n]{0,1000}\)|\[[^\[\]\n]{0,300}\])")
_LABEL = re.compile(r"^ {0,3}\[([^\[\]\n]{1,300})\]:", re.MULTILINE)
_SHORTCUT = re.compile(r"\[([^\[\]\n]{1,300})\](?!\()")  # a link whose text is its label
_REST_LINK = re.compile(r"`([^`<>\n]{1,300}?) ?<[^<>`\n]{0,1000}>`__?")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
_STRONG = re.compile(r"(\*{1,3}|__)(?=\S)([^*_\n]{1,300}?)(?<=\S)\1")
# Headings, rulers, lists, tables, quotations, directives, definitions of links, code.
_NOT_PROSE = re.compile(r"#|[-*+]\s|[=~|>:]|\d+[.)]\s|\.\. |\[[^\]\n]{1,300}\]:|_{2,}| {4}|\t|`{3}")
_UNDERLINE = re.compile(r"\n([=\-~^*\"'#+])\1{2,}\s*(\n|\Z)")


def readme_of(paths: Collection[str]) -> str | None:
    """The README of the top folder."""
    top = {path.casefold(): path for path in paths if "/" not in path}
    return next((top[name] for name in _NAMES if name in top), None)


def is_readme(path: str) -> bool:
    """Whether a file is the README of its folder."""
    return path.rpartition("/")[2].casefold() in _NAMES


def first_paragraphs(text: str) -> list[str]:
    """The first paragraphs of running text, without markup but `code`; none of badges, headings and lists."""
    text = _without_code(_without_comments(text[:MAX_READ_CHARACTERS].replace("\r\n", "\n")))
    labels = {label.casefold() for label in _LABEL.findall(text)}
    shown: list[str] = []
    for whole in re.split(r"\n[ \t]*\n", text):
        if shown and _is_heading(whole):
            break
        block = _TITLE.sub("", whole.strip("\n"), count=1)
        if not block or _is_heading(block) or _NOT_PROSE.match(block):
            continue
        prose = _without_markup(block, labels)
        if _is_prose(prose):
            shown.append(prose[:MAX_CHARACTERS])
        if len(shown) == MAX_PARAGRAPHS or sum(map(len, shown)) >= MAX_CHARACTERS:
            break
    return shown


def _is_heading(block: str) -> bool:
    return block.lstrip().startswith("#") or _UNDERLINE.search("\n" + block.strip("\n")) is not None


def _without_comments(text: str) -> str:
    first, *rest = text.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in rest)


def _without_code(text: str) -> str:
    """Without fenced blocks."""
    kept, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            kept.append("")
        elif not fence:
            kept.append(line)
    return "\n".join(kept)


def _without_markup(block: str, labels: Collection[str]) -> str:
    plain = _TAG.sub(" ", _LINK.sub(r"\1", _IMAGE.sub(" ", _REST_LINK.sub(r"\1", block))))
    plain = _SHORTCUT.sub(lambda link: link[1] if link[1].casefold() in labels else link[0], plain)
    return " ".join(_STRONG.sub(r"\2", plain).split())


def _is_prose(text: str) -> bool:
    """A sentence: some words, not links alone."""
    return len(re.findall(r"[^\W\d_]{2,}", text)) >= 3 and text.rstrip("`*_)\"'”»").endswith((".", ":", "!", "?", "。"))
