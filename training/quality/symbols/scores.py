"""What answers about symbols are worth beside their authors' sentences: plain arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rotary_batch.model.rouge import rouge_l
from rotary_batch.model.threshold import choose_and_check
from training.quality.confidence import GOOD_ROUGE
from training.quality.symbols.asking import Answered, ticked

TARGET = 0.5  # of what is shown, the share that is like the author's sentence
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_COMMENT = re.compile(r"(?:^|\s)(?:#+|//+|\*)\s*([A-Za-z][^\n]*)")


class Score(NamedTuple):
    """Of one writer over some symbols."""

    num: int
    rouge: float  # mean ROUGE-L
    good: float  # share with a ROUGE-L of GOOD_ROUGE
    named: int  # identifiers between backticks
    confirmed: float  # share of those that the author's sentence has too
    exist: float  # share of those that the package has


def score(answers: Sequence[Answered], text_of: Callable[[Answered], str]) -> Score:
    """Score what a writer says of each symbol."""
    rouges = [rouge_l(text_of(one), one.author) for one in answers]
    names = [(name, one) for one in answers for name in ticked(text_of(one))]
    return Score(
        num=len(answers),
        rouge=_share(rouges),
        good=_share(rouge >= GOOD_ROUGE for rouge in rouges),
        named=len(names),
        confirmed=_share(re.search(rf"\b{re.escape(name)}\b", one.author) is not None for name, one in names),
        exist=_share(name not in one.unknown for name, one in names),
    )


def _share(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def said(one: Answered) -> str:
    """What a model says: what of it passes the checks, or all of it when nothing does."""
    return one.shown_text or one.text


def split_name(one: Answered) -> str:
    """`get_userName` -> "Get user name."."""
    pieces = [piece.lower() for piece in _PIECE.findall(one.name.rsplit(".", 1)[-1])]
    return " ".join(pieces).capitalize() + "." if pieces else ""


def first_comment(one: Answered) -> str:
    """The first comment in the code of the symbol; without one, its split name."""
    found = _COMMENT.search(one.code)
    return found.group(1).strip() if found else split_name(one)


def threshold_of(answers: Sequence[Answered]) -> float:
    """The confidence that is asked for, chosen on every second symbol; minus infinity when none reaches the target."""
    chosen = choose_and_check(*_confidences(answers), target=TARGET)
    return -math.inf if chosen.threshold is None else chosen.threshold


def _confidences(answers: Sequence[Answered]) -> tuple[list[float], list[float]]:
    means = [one.mean_logprob if one.shown_text else -math.inf for one in answers]
    return means, [float(rouge_l(said(one), one.author) >= GOOD_ROUGE) for one in answers]


def shown(answers: Sequence[Answered], threshold: float) -> list[Answered]:
    """What a page would show."""
    return [one for one in answers if one.shown_text and one.mean_logprob >= threshold]


def loops(answers: Sequence[Answered]) -> float:
    """The share of answers that repeat themselves."""
    return _share(one.ended == "loop" or any("repeat" in reason for reason in one.reasons) for one in answers)
