"""Whether a sentence on a topic is on that topic: it names one of the things that the notes in its prompt are about."""

from __future__ import annotations

import re

from rotary_batch.core import Topic

_LABEL = re.compile(r"^- (?:program )?`([^`\n]+)`", re.MULTILINE)


def names_nothing(sentence: str, topic: str, source: str) -> bool:
    """Whether a sentence on commands, files or folders names none of them; an overview is about the whole."""
    if topic == Topic.OVERVIEW:
        return False
    labels = [label.rstrip("/") for label in _LABEL.findall(source)]
    return not any(_is_named(name, sentence) for label in labels for name in {label, label.rpartition("/")[2]})


def _is_named(name: str, sentence: str) -> bool:
    return name in sentence and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", sentence) is not None
