"""Answers as they are, for a reader.

Knows Markdown; picks and judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rotary_batch.model.rouge import rouge_l
from training.corpus import Example
from training.quality.baselines import subject
from training.quality.generation import Answer

NUM_SAMPLES = 20
_ESCAPED = re.compile(r"[<>*_\[\]]")


def samples(pairs: Sequence[tuple[Example, Answer]]) -> list[str]:
    """A table of answers beside what the authors say."""
    lines = [
        "| Of | The author | The model | ROUGE-L | Mean log-probability | Ended by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for example, answer in pairs:
        notes = [
            *(["repeats"] if answer.repeats else []),
            *(f"invents {cell(f'`{name}`')}" for name in answer.invented),
        ]
        cells = [
            f"{example.package}: {cell(subject(example.prompt))}",
            cell(example.answer),
            cell(answer.text),
            f"{rouge_l(answer.text, example.answer):.2f}",
            f"{answer.mean_logprob:.2f}",
            ", ".join([answer.reason, *notes]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cell(text: str) -> str:
    """A text of one line that breaks no table and commands no Markdown but code spans."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    if len(parts) % 2 == 0:  # one backtick too many: none of them is a span
        return _ESCAPED.sub(r"\\\g<0>", "\\`".join(parts))
    return "`".join(part if n % 2 else _ESCAPED.sub(r"\\\g<0>", part) for n, part in enumerate(parts))
