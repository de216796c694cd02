"""Openings that say nothing: "This is a Python function that returns X" says "Returns X".

A table of patterns, each applied until none fits, so what is left is left as it is by a second time.  A cut that would
leave fewer than two words is not made.
"""

from __future__ import annotations

import re
from functools import cache

LANGUAGES = (
    r"python|java|javascript|js|typescript|go|golang|rust|c|c\+\+|c#|ruby|php|kotlin|swift|scala|lua|bash|shell|sql"
)
KINDS = (
    r"functions?|methods?|class|classes|structs?|structures?|interfaces?|traits?|types?|modules?|macros?|enums?|"
    r"enumerations?|constructors?|objects?|routines?|subroutines?|scripts?|files?|components?|hooks?|decorators?|"
    r"code|snippets?|code snippets?|code blocks?|blocks? of code|pieces? of code|definitions?|implementations?|"
    r"function definitions?|class definitions?|property|fixtures?|packages?|director(?:y|ies)|folders?"
)
_MODIFIERS = (
    rf"{LANGUAGES}|given|above|following|provided|simple|small|single|basic|helper|utility|static|abstract|private|"
    r"public|protected|internal|async|asynchronous|generic|base|data|convenience|async|global|exported|source|test|new"
)
_NAME = rf"`(?P<name>[^`]+)`(?:\(\))?|(?!(?:{_MODIFIERS}|{KINDS})\s)(?P<bare>[A-Za-z_]\w*(?:\.\w+)*(?:\(\))?)"
_THING = rf"(?:(?:{_MODIFIERS})\s+){{0,4}}(?:{KINDS})"
# What an answer is about: `this function`, `the foo method`, `foo`, `it`.
_SUBJECT = (
    rf"(?:(?:this|the|that)\s+(?:(?:{_NAME})\s+)?{_THING}"
    r"(?:\s+(?:(?:named|called)\s+)?(?:`(?P<after>[^`]+)`(?:\(\))?|(?P<call>[A-Za-z_]\w*\(\)|[\w-]+\.\w+)))?"
    rf"|`(?P<alone>[^`]+)`(?:\(\))?(?:\s+(?:{KINDS}))?|it|this)"
)
_THAT = r"\s*,?\s*(?:that|which)\s+(?:will\s+)?"
_USED = (
    r"(?:(?:is|are)\s+)?(?:(?:mainly|primarily|typically|simply|just|also)\s+)?"
    r"(?:(?:can\s+be\s+|be\s+)?used|designed|intended|meant|supposed|written|created)\s+to\s+"
)
_VERB = r"(?=(?!(?:is|was|has|does|its|this|as|us|plus|thus|always|less|class|process|access|pass)\b)[a-z]+s\b)"

# Each with what stays of it, "" = nothing.
_PATTERNS = (
    r"(?:sure|certainly|of course|okay|ok|absolutely|great|yes)\s*[!,.:]\s+",
    r"here(?:'s|\s+is|\s+are)\s+[^.:`]{0,80}:\s+",
    r"(?:here(?:'s|\s+is)|below\s+is)\s+(?=(?:a|an|the)\s)",
    r"(?:in\s+summary|in\s+short|overall|basically|summary|description|answer|output)\s*[,:]\s+",
    r"(?:[-*]\s+)?`(?P<label>[^`]+)`\s*:\s+",
    rf"{_SUBJECT}\s+(?:is|are)\s+(?:an?|the)\s+{_THING}{_THAT}{_VERB}",
    rf"{_SUBJECT}\s+(?:is|are)\s+(?:an?|the)\s+{_THING}\s+{_USED}",
    rf"{_SUBJECT}\s+(?:is|are)\s+(?:an?|the)\s+{_THING}\s+(?=for\s+\w+ing\b)",
    rf"{_SUBJECT}\s+{_USED}",
    rf"{_SUBJECT}\s+(?:is|are)\s+(?=responsible\s+for\b)",
    rf"{_SUBJECT}\s+(?:serves|aims|attempts|allows\s+you|lets\s+you|allows\s+users)\s+to\s+",
    rf"{_SUBJECT}\s+will\s+(?=[a-z])",
    rf"{_SUBJECT}\s+(?:simply\s+|just\s+)?{_VERB}",
    rf"(?:an?|the)\s+{_THING}{_THAT}{_VERB}",
    rf"(?:an?|the)\s+{_THING}\s+{_USED}",
    rf"{_USED}(?=[a-z])",
)


@cache
def _table() -> tuple[re.Pattern[str], ...]:
    """Compiled when the first answer comes: it takes 0.03 s, and most commands read none."""
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in _PATTERNS)


_WORDS = re.compile(r"[^\W\d_]{2,}")
MIN_WORDS = 2  # that must be left


def cut_opening(text: str, names: frozenset[str] = frozenset()) -> str:
    """Without its opening.  A name in the opening must be one of `names`: of another thing, the words stay."""
    while (shorter := _cut_once(text, names)) is not None:
        text = shorter
    return text


def _cut_once(text: str, names: frozenset[str]) -> str | None:
    for pattern in _table():
        found = pattern.match(text)
        if found is None or not _is_own(found, names):
            continue
        rest = text[found.end() :].lstrip()
        first = re.split(r"[.!?](?:\s|$)", rest, maxsplit=1)[0]
        if len(_WORDS.findall(first)) >= MIN_WORDS:
            return rest[:1].upper() + rest[1:]
    return None


def _is_own(found: re.Match[str], names: frozenset[str]) -> bool:
    said = (name for name in found.groupdict().values() if name)
    return all(name.removesuffix("()") in names for name in said)
