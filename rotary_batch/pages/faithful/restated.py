"""A sentence that only says the name again: "Gets the name." of `get_name`, "Initializes a pager." of a constructor."""

from __future__ import annotations

import re

from rotary_batch.pages.faithful.openings import LANGUAGES

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_SAYS_NOTHING = re.compile(
    r"(?:an?|the|this|that|these|those|of|for|to|in|on|is|are|be|its?|and|or|with|by|from|as|given|new|current|specified|"
    r"provided|defined|used|which|represents?)$",
    re.IGNORECASE,
)
_KINDS = re.compile(  # not files and folders: "Loads the table from a file." says something
    r"(?:functions?|methods?|class|classes|structs?|structures?|interfaces?|traits?|types?|macros?|enums?|enumerations?|"
    r"constructors?|objects?|instances?|routines?|property|fixtures?|definitions?|implementations?|variables?|constants?|"
    rf"values?|fields?|parameters?|attributes?|names?|{LANGUAGES})$",
    re.IGNORECASE,
)
_SAME = dict.fromkeys(["return", "retriev", "obtain", "fetch"], "get")
_CONSTRUCTORS = {"__init__", "__new__", "constructor", "initialize", "init", "__construct", "new"}
_CONSTRUCTS = {"initializ", "initialis", "construct", "creat", "instantiat", "build", "mak", "set", "up", "self"}
_ENDINGS = ("ing", "ies", "ied", "es", "ed", "er", "or", "s", "e", "y")


def only_says_the_name(sentence: str, name: str) -> bool:
    """Whether every word of a sentence is in the name of the thing, or says nothing of it.

    `name` is qualified. That of its class counts for a constructor alone: "Pushes a style on to the stack." of
    `StyleStack.push` says something.
    """
    words = [piece for word in _WORD.findall(sentence) for piece in _PIECE.findall(word)]
    known = _known(name)
    left = [word for word in words if not _SAYS_NOTHING.match(word) and _stem(word) not in known]
    return bool(words) and all(_KINDS.match(word) or _stem(word) == "get" for word in left)


def _known(name: str) -> set[str]:
    """The stems of what a name says."""
    *around, own = name.split(".")
    if around and (own in _CONSTRUCTORS or own == around[-1]):  # by that of its class in Java and C++
        return _CONSTRUCTS | {_stem(piece) for piece in _PIECE.findall(around[-1])}
    return {_stem(piece) for piece in _PIECE.findall(own)}


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
