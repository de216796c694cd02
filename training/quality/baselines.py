"""Three answers that need no model.

Knows the text of prompts; knows nothing of tokens.  A weak model must beat them all to be worth its bytes.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence

from rotary_batch.model.rouge import rouge_l
from training.corpus import Example

NUM_COMPARED = 200

_DEFINED = re.compile(
    r"^\s*(?:async\s+)?(?:def|class|func|fn|function|struct|interface|enum|trait)\s+(\w+)", re.MULTILINE
)
_TITLE = re.compile(r"what the (?:file|directory) (\S+) is for")
_FENCED = re.compile(r"<text-\w+>\n(.*)\n</text-\w+>", re.DOTALL)
_COMMENT = re.compile(r"^\s*(?:#+|//+)\s*([A-Za-z].*)$", re.MULTILINE)
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def subject(prompt: str) -> str:
    """The name of what a prompt asks about; empty when none is seen."""
    found = _TITLE.search(prompt) or _DEFINED.search(fenced(prompt))
    return found.group(1).partition(".")[0] if found else ""


def fenced(prompt: str) -> str:
    """The code or the notes of a prompt."""
    found = _FENCED.search(prompt)
    return found.group(1) if found else prompt


def split_name(prompt: str) -> str:
    """`get_userName` -> "Get user name."."""
    pieces = [piece.lower() for piece in _PIECE.findall(subject(prompt))]
    return " ".join(pieces).capitalize() + "." if pieces else ""


def first_comment(prompt: str) -> str:
    """The first comment in the code; without one, the split name."""
    found = _COMMENT.search(fenced(prompt))
    return found.group(1).strip() if found else split_name(prompt)


def most_frequent(training: Sequence[Example]) -> Callable[[Example], str]:
    """The commonest answer of the training examples of the same task.

    The corpus keeps an answer a few times at most, so many are equally common: the one nearest to others wins.
    """

    @functools.cache
    def commonest(task: str) -> str:
        return _commonest([one.answer for one in training if one.task == task])

    return lambda example: commonest(example.task)


def _commonest(answers: Sequence[str]) -> str:
    counts = Counter(answers)
    most = max(counts.values(), default=0)
    tied = sorted(answer for answer, count in counts.items() if count == most)
    others = answers[:: max(1, len(answers) // NUM_COMPARED)]
    return max(tied, key=lambda one: sum(rouge_l(one, other) for other in others), default="")
