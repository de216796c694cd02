"""The best n-gram baseline: Kneser-Ney twice, mixed with what the prompt itself says.

Knows token ids of prompts and answers; knows nothing of the model.  Four voices: Kneser-Ney over answers, over whole
sequences, the tokens of the prompt, and what followed in the prompt after the same tokens.  Their weights depend on
how many of the last tokens the prompt holds in a row, and are fitted by EM on packages left out of the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.quality.ngram import Floats, Ints, KneserNey

LONGEST_MATCH = 3
ROUNDS = 30
VOICES = (
    "Kneser-Ney of answers",
    "Kneser-Ney of prompts and answers",
    "tokens of the prompt",
    "followers in the prompt",
)


class Row(NamedTuple):
    """One example; the answer's stop token is part of it.  A `text` has no prompt."""

    task: str
    prompt: NDArray[np.int32]
    answer: NDArray[np.int32]

    @property
    def whole(self) -> NDArray[np.int32]:
        """Prompt and answer."""
        return np.concatenate([self.prompt, self.answer])


class Voices(NamedTuple):
    """What each voice gives every answer token of some rows, and how long a match was found in the prompt."""

    probabilities: Floats  # [voices, T]
    matches: Ints  # [T], 0 to LONGEST_MATCH


class Counted(NamedTuple):
    """The two Kneser-Ney models of some rows."""

    answers: KneserNey
    whole: KneserNey

    @classmethod
    def of(cls, rows: Sequence[Row], vocab_size: int) -> Counted:
        """Count them.  A `name` has the answer of its `symbol`: each sequence is counted once, or nothing is rare."""
        return cls(
            KneserNey([row.answer for row in rows if row.task not in {"symbol", "text"}], vocab_size),
            KneserNey([row.whole for row in rows if row.task != "name"], vocab_size),
        )

    def listen(self, rows: Sequence[Row]) -> Voices:
        """Ask all voices."""
        whole = self.whole.probabilities([row.whole for row in rows])
        of_answer = np.concatenate([np.arange(len(r.prompt) + len(r.answer)) >= len(r.prompt) for r in rows])
        cached = [prompt_voices(row) for row in rows]
        unigram, follower, matches = (np.concatenate([one[part] for one in cached]) for part in range(3))
        answers = self.answers.probabilities([row.answer for row in rows])
        return Voices(np.stack([answers, whole[of_answer], unigram, follower]), matches.astype(np.int64))


def prompt_voices(row: Row) -> tuple[Floats, Floats, Ints]:
    """For each answer token: its share of the prompt, its share of what followed the longest match, that length."""
    prompt = row.prompt
    shares = np.array([(prompt == token).mean() for token in row.answer])
    followers, matches = shares.copy(), np.zeros(len(row.answer), dtype=np.int64)
    for place, token in enumerate(row.answer):
        for length in range(min(LONGEST_MATCH, place), 0, -1):
            ends = _ends(prompt, row.answer[place - length : place])
            if len(ends):
                followers[place], matches[place] = (prompt[ends + 1] == token).mean(), length
                break
    return shares, followers, matches


def _ends(prompt: NDArray[np.int32], run: NDArray[np.int32]) -> Ints:
    """Where in the prompt a run of tokens ends with at least one token after it."""
    room = len(prompt) - len(run)
    hit = np.ones(max(0, room), dtype=bool)
    for offset, token in enumerate(run):
        hit &= prompt[offset : offset + room] == token
    return np.flatnonzero(hit) + len(run) - 1


def fit_weights(voices: Voices) -> Floats:
    """The weights [matches, voices] under which held-aside answers are likeliest (expectation maximisation)."""
    num_voices = len(voices.probabilities)
    weights = np.full((LONGEST_MATCH + 1, num_voices), 1 / num_voices)
    for _ in range(ROUNDS):
        parts = weights[voices.matches].T * voices.probabilities  # [voices, T]
        shares = parts / parts.sum(0)
        sums = np.stack([np.bincount(voices.matches, one, LONGEST_MATCH + 1) for one in shares], 1) + 1e-3
        weights = sums / sums.sum(1, keepdims=True)
    return weights


def mixed(voices: Voices, weights: Floats) -> Floats:
    """Probability of every answer token, [T]."""
    return (weights[voices.matches].T * voices.probabilities).sum(0)


def ladder(
    train: Sequence[Row], aside: Sequence[Row], judged: Sequence[Row], *, vocab_size: int, num_fitted: int
) -> dict[str, float]:
    """Bits of all judged answers under each baseline, from the plainest to the best.

    Weights are fitted on `aside` with the counts of `train` alone; the judged figures count both.
    """
    targets = [row for row in aside if row.task not in {"name", "text"}]
    fitted = Counted.of(train, vocab_size).listen(targets[:: max(1, len(targets) // num_fitted)])
    heard = Counted.of([*train, *aside], vocab_size).listen(judged)
    some: dict[str, Callable[[Voices], Voices]] = {
        "5-gram of answers": lambda v: _only(v, [0]),
        "5-gram of prompts and answers": lambda v: _only(v, [1]),
        "5-gram of answers, prompt unigrams": lambda v: _only(v, [0, 2])._replace(matches=v.matches * 0),
        "both 5-grams, prompt unigrams, prompt followers": lambda v: v,
    }
    return {name: float(-np.log2(mixed(pick(heard), fit_weights(pick(fitted)))).sum()) for name, pick in some.items()}


def _only(voices: Voices, kept: Sequence[int]) -> Voices:
    return voices._replace(probabilities=voices.probabilities[kept])
