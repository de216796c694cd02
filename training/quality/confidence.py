"""The threshold of the shipped pack: chosen on half of the judged held-out symbols, checked on the other half.

Knows examples and answers; the choice itself is a pure function of threshold.py.  "Right" is a proxy: an
answer counts as right when its ROUGE-L with the author's sentence is at least GOOD_ROUGE.  Of the 100 most confident
answers of 2026-11-26, read next to their code by hand, 70 were right and 47 reached it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rotary_batch.model.rouge import rouge_l
from rotary_batch.model.threshold import Chosen, choose_and_check
from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example, held_out_examples
from training.quality.generation import Answer, answers
from training.quality.picking import pick

GOOD_ROUGE = 0.4
TARGET = 0.5  # share of right answers among those that pass
NUM_JUDGED = 2000  # all that fit the context


def held_out_threshold(pack_dir: Path, count: int = NUM_JUDGED) -> Chosen:
    """Answer held-out symbols with a pack and choose its threshold; what `training.export` writes down."""
    examples = judged_symbols(Tokenizer.load(pack_dir), count)
    return confidence(answers(pack_dir, examples), examples)


def judged_symbols(tokenizer: Tokenizer, count: int = NUM_JUDGED) -> list[Example]:
    """The held-out symbols whose answers are looked at, here and in the report."""
    return pick((one for one in held_out_examples() if one.task == "symbol"), count, "generation", tokenizer)


def confidence(found: Sequence[Answer], examples: Sequence[Example]) -> Chosen:
    """Choose and check."""
    return choose_and_check(*confidences(found, examples), target=TARGET)


def confidences(found: Sequence[Answer], examples: Sequence[Example]) -> tuple[list[float], list[float]]:
    """Mean log-probabilities and scores; what the page check refuses anyway has no confidence."""
    means = [one.mean_logprob if one.stands else -math.inf for one in found]
    scores = [float(is_good(rouge_l(one.text, example.answer))) for one, example in zip(found, examples, strict=True)]
    return means, scores


def is_good(rouge: float) -> bool:
    """Whether an answer counts as right."""
    return rouge >= GOOD_ROUGE
