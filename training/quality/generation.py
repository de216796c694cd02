"""Answers of a pack through the real engine, under the limits and the guard of the `summarize-small` job.

Knows requests, completions and the page check; knows nothing of references.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rotary_batch.config import bundled
from rotary_batch.core import Completion, Reason, Request, StopCriteria, Verdict
from rotary_batch.engine import open_engine
from rotary_batch.jobs import UnitSpec, load_jobs
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.pages.check import validate
from rotary_batch.pages.faithful.names import unknown_names
from training.corpus import Example

UNITS = {"file": "file", "directory": "directory"}  # every other task is asked as a chunk is


class Answer(NamedTuple):
    """What a model, or a baseline, wrote for one prompt."""

    text: str
    reason: Reason
    mean_logprob: float
    repeats: bool
    names: tuple[str, ...]  # all that look like identifiers
    invented: tuple[str, ...]  # those of them that the prompt does not have
    stands: bool  # whether the page check would show some of it, whatever its confidence


def answers(pack_dir: Path, examples: Sequence[Example]) -> list[Answer]:
    """Greedy answers to all prompts."""
    tokenizer, engine = Tokenizer.load(pack_dir), open_engine(pack_dir)
    specs = [_spec(example.task) for example in examples]
    waiting = [
        Request(
            request_id=place,
            prompt_ids=tuple(tokenizer.encode_chat(example.prompt)),
            max_new_tokens=spec.new_tokens,
            stop=StopCriteria(spec.sentences, stops_loops=True),
        )
        for place, (example, spec) in enumerate(zip(examples, specs, strict=True))
    ]
    found: dict[int, Completion] = {}
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        report = engine.step()
        if report.failures:
            raise RuntimeError(f"prompt {report.failures[0].request_id}: {report.failures[0].error}")
        found |= {done.request_id: done for done in report.completions}
    engine.close()
    texts = [tokenizer.decode(found[place].token_ids).strip() for place in range(len(examples))]
    return [
        checked(text, example.prompt, found[place].reason, found[place].mean_logprob)
        for place, (text, example) in enumerate(zip(texts, examples, strict=True))
    ]


def _spec(task: str) -> UnitSpec:
    return load_jobs(bundled("jobs"))["summarize-small"].units[UNITS.get(task, "chunk")]


def longest_answer(task: str) -> int:
    """How many tokens the job gives an answer."""
    return _spec(task).new_tokens


def checked(text: str, prompt: str, reason: Reason = "stop", mean_logprob: float = 0.0) -> Answer:
    """Look at a text as the pages do before they show it."""
    verdict = validate(
        text, mean_logprob=mean_logprob, min_mean_logprob=-math.inf, ended=reason, is_known=_never, source=prompt
    )
    repeats = reason == "loop" or "repeats itself" in verdict.reasons
    invented = tuple(unknown_names(text, _never, prompt))
    stands = verdict.verdict is Verdict.SHOWN and not repeats
    return Answer(text, reason, mean_logprob, repeats, names_in(text), invented, stands)


def names_in(text: str) -> tuple[str, ...]:
    """What the page check takes for identifiers, paths and addresses: in no source at all, all are unknown."""
    return tuple(unknown_names(text, _never, ""))


def confirmed(answer: Answer, reference: str) -> int:
    """How many of an answer's identifiers the author's sentence has too."""
    return len(answer.names) - len(unknown_names(answer.text, _never, reference))


def _never(_name: str) -> bool:
    return False
