"""Names in a sentence: identifiers, dotted names, calls, and everything in back-ticks."""

from __future__ import annotations

import re
from collections.abc import Callable

from rotary_batch.pages.faithful.language_words import proper_names
from rotary_batch.pages.faithful.literals import ADDRESS

_CODE = re.compile(r"`([^`\n]+)`")
_IDENTIFIER = re.compile(
    r"\b(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*\b|\b\w*[a-z0-9]_\w+\b|\b_\w+\b|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z0-9]+[A-Z]\w*\b"
    r"|\b[A-Za-z_]\w*(?=\(\))"
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_ABBREVIATIONS = {"e.g", "i.e", "etc"}


def unknown_names(sentence: str, is_known: Callable[[str], bool], source: str) -> list[str]:
    """Names in a sentence that neither `is_known` nor the source, as whole words, has."""
    spans = _CODE.findall(sentence)
    rest = _CODE.sub(" ", ADDRESS.sub(" ", sentence))
    names = [*spans, *(name for name in _IDENTIFIER.findall(rest) if name not in _ABBREVIATIONS | proper_names())]
    return [name for name in names if not _exists(name, is_known, source)]


def _exists(name: str, is_known: Callable[[str], bool], source: str) -> bool:
    if is_known(name.strip("/")) or _is_in(name, source):
        return True
    words = _WORD.findall(name)
    return bool(words) and all(is_known(word) or _is_in(word, source) for word in words)


def _is_in(name: str, source: str) -> bool:
    """Whether a source has a name that is not part of a longer word."""
    return name in source and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", source) is not None
