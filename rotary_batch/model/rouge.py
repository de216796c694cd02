"""ROUGE-L: how long a sequence of words two sentences share, in order (Lin 2004).

No stemming, one reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9_]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; an identifier is one word, backticks and stops are none."""
    return _WORD.findall(text.lower())


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1."""
    found, wanted = words(answer), words(reference)
    common = longest_common(found, wanted)
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above_left = 0
        for place, candidate in enumerate(other, 1):
            above_left, row[place] = (
                row[place],
                above_left + 1 if word == candidate else max(row[place], row[place - 1]),
            )
    return row[-1]
