"""Where sentences end."""

from __future__ import annotations

import re

# Not after `e.g.`, `i.e.`, `vs.`, `cf.` or the number of a list.
_STOP = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!^\d)[.!?][\"'`)]*"
_END = re.compile(rf"{_STOP}$")
_BETWEEN = re.compile(rf"({_STOP})\s+")
_BEGUN = re.compile(rf"{_STOP}\s+[^\sa-z]")


def num_sentences(text: str) -> int:
    """The number of sentences that have begun; an end counts once something follows that can begin a sentence."""
    return bool(text.strip()) + len(_BEGUN.findall(text.strip()))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text of one line."""
    parts = _BETWEEN.split(text)  # text, stop, text, stop, ..., text
    sentences = [text + stop for text, stop in zip(parts[::2], [*parts[1::2], ""], strict=True)]
    return [sentence for sentence in sentences if sentence]


def is_whole(sentence: str) -> bool:
    """Whether a sentence has an end."""
    return bool(_END.search(sentence))
