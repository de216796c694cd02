"""Titles of sections: comments that head a part of a file, and that no symbol below them is about.

In plain comments a title looks like this, and it has a blank line after it, mostly:

    /*
     * Memory management
     */
"""

from __future__ import annotations

import re

_MIN_ALONE = 2  # titles with a blank line after them, before one without is taken for another
_MAX_WORDS = 6
# Three lines: marks, words between them, marks.  `/**` and the like document what follows.
_FRAMED = re.compile(
    rb"^(?P<indent>[ \t]*)(?P<open>/\*|//|#|--)[ \t]*\r?\n"
    rb"[ \t]*(?:\*|//|#|--)?[ \t]*(?P<words>[^\W\d_][^\n]{0,60}?)[ \t]*\r?\n"
    rb"[ \t]*(?:\*/|//|#|--)[ \t]*\r?\n(?P<after>[ \t]*(?:\r?\n|\Z))?",
    re.MULTILINE,
)
_SENTENCE = re.compile(rb"[.:;!?,]$|^(?:the|this|these|returns?|an?|if|when|it|we|you)\b", re.IGNORECASE)


def titles_above(source: bytes) -> dict[int, str]:
    """Row, from 0 on -> the title right above it, in a file that has more of them with a blank line below."""
    found = [match for match in _FRAMED.finditer(source) if _is_title(match["words"])]
    alone = sum(match["after"] is not None for match in found)
    if alone < _MIN_ALONE or 2 * alone < len(found):
        return {}
    titles: dict[int, str] = {}
    place = row = 0
    for match in found:
        row += source.count(b"\n", place, match.end())
        place = match.end()
        if match["after"] is None:
            titles[row] = match["words"].decode("utf-8", "replace")
    return titles


def _is_title(words: bytes) -> bool:
    return len(words.split()) <= _MAX_WORDS and not _SENTENCE.search(words)
