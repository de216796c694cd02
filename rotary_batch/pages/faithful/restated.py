"""A sentence that only says the name again: "Gets the name." of `get_name`."""

from __future__ import annotations

import re

from rotary_batch.pages.faithful.openings import KINDS, LANGUAGES

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_SAYS_NOTHING = re.compile(
    r"(?:an?|the|this|that|these|those|of|for|to|in|on|is|are|be|its?|and|or|with|by|from|as|given|new|current|specified|"
    r"provided|defined|used|which)$",
    re.IGNORECASE,
)
_KINDS = re.compile(
    rf"(?:{KINDS}|{LANGUAGES}|variables?|constants?|values?|fields?|parameters?|attributes?|names?)$", re.IGNORECASE
)
_SAME = dict.fromkeys(["return", "retriev", "obtain", "fetch"], "get")
_ENDINGS = ("ing", "ies", "ied", "es", "ed", "er", "or", "s", "e", "y")


def only_says_the_name(sentence: str, name: str) -> bool:
    """Whether every word of a sentence is in the name of the thing, or says nothing of it."""
    words = [piece for word in _WORD.findall(sentence) for piece in _PIECE.findall(word)]
    pieces = {_stem(piece) for piece in _PIECE.findall(name)}
    left = [word for word in words if not _SAYS_NOTHING.match(word) and _stem(word) not in pieces]
    return bool(words) and all(_KINDS.match(word) or _stem(word) == "get" for word in left)


def _stem(word: str) -> str:
    """A word without its ending; rough, but the same for the forms of most words."""
    stem = word.lower()
    for ending in _ENDINGS:
        if stem.endswith(ending) and len(stem) - len(ending) >= 3:
            stem = stem.removesuffix(ending)
            break
    if len(stem) > 3 and stem[-1] == stem[-2]:  # getting, mapped
        stem = stem[:-1]
    return _SAME.get(stem, stem)
