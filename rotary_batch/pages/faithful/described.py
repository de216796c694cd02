"""What an answer is about, as far as the rules look at it: of a symbol its signature and its own code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

FUNCTIONS = frozenset({"function", "method", "constructor"})  # kinds of symbols that take parameters
_OPEN, _CLOSE = "([{<", ")]}>"
_NO_PARAMETERS = {"", "void", "/", "*"}
_RECEIVERS = re.compile(r"(?:mut\s+)?&?(?:'\w+\s+)?(?:mut\s+)?(?:self|cls|this)\b(?!\s*:\s*\w+\s*\.)")


@dataclass(frozen=True)
class Described:
    """A symbol and its code, or a file or folder.  `code` is None when it is not known, or not all of it."""

    name: str
    qualified_name: str
    kind: str
    language: str
    signature: str
    code: str | None = None
    topic: str = ""  # of the page for people who are new, instead of a symbol
    detail: str = ""  # the parameter or the exception of the symbol that the answer is about

    @cached_property
    def parameters(self) -> tuple[str, ...] | None:
        """The parameters as written, without the receiver; None when they are not known."""
        listed = self._listed
        if listed is None:
            return None
        return tuple(part for part in listed if part not in _NO_PARAMETERS and not _RECEIVERS.match(part))

    @cached_property
    def result(self) -> str | None:
        """What the signature has behind the parameters; None when these are not known."""
        place = self._parameters_at
        end = None if place is None else _closing(self.signature, place)
        return None if end is None else self.signature[end + 1 :].strip(" {=;:").strip()

    @property
    def _parameters_at(self) -> int | None:
        """Where the bracket of the parameters opens."""
        if self.kind not in FUNCTIONS:
            return None
        found = re.search(rf"(?<!\w){re.escape(self.name)}\s*(?:<[^()]*>|\[[^()]*\])?\s*\(", self.signature)
        return None if found is None else found.end() - 1

    @property
    def _listed(self) -> list[str] | None:
        place = self._parameters_at
        end = None if place is None else _closing(self.signature, place)
        if place is None or end is None:
            return None
        return _split(self.signature[place + 1 : end])


def _closing(text: str, place: int) -> int | None:
    """Where the round bracket at `place` is closed."""
    depth = 0
    for position in range(place, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return None


def _split(text: str) -> list[str]:
    """At the commas that are in no bracket; the `>` of an arrow closes none."""
    parts, depth, start = list[str](), 0, 0
    for place, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE and text[place - 1 : place] not in {"-", "="})
        if letter == "," and depth <= 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [part for part in [*parts, text[start:].strip()] if part]
