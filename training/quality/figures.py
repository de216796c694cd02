"""All that is measured, in one place: runs the parts and keeps their figures.

Knows the order of things and the sizes of samples; knows nothing of Markdown or of pictures.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rotary_batch.model.rouge import rouge_l
from rotary_batch.model.threshold import Chosen
from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example, held_out_examples, training_examples
from training.quality.baselines import first_comment, most_frequent, split_name
from training.quality.confidence import NUM_JUDGED, confidence, is_good, judged_symbols
from training.quality.generation import Answer, answers, checked, confirmed
from training.quality.loss import Bits, answer_bits, encode, total
from training.quality.mixture import Row, ladder
from training.quality.packs import FORMATS, Judged, judged_packs, load, reference
from training.quality.parity import Parity, parity
from training.quality.picking import pick, set_aside
from training.quality.routing import Routing, routing


class Sizes(NamedTuple):
    """How many held-out examples each part looks at."""

    loss: int = 1000
    generation: int = NUM_JUDGED
    routing: int = 60
    parity: int = 50
    aside: int = 3000


class Scores(NamedTuple):
    """What some answers are worth beside the authors' sentences."""

    rouges: list[float]  # of each answer
    named: int
    confirmed: int
    invented: float  # share of answers that name what the prompt does not have
    repeats: float
    ended: dict[str, float]

    @classmethod
    def of(cls, examples: Sequence[Example], found: Sequence[Answer]) -> Scores:
        """Score them."""
        pairs = list(zip(examples, found, strict=True))
        rouges, count = [rouge_l(one.text, example.answer) for example, one in pairs], len(pairs)
        reasons = Counter(one.reason for one in found)
        return cls(
            rouges=rouges,
            named=sum(len(one.names) for one in found),
            confirmed=sum(confirmed(one, example.answer) for example, one in pairs),
            invented=sum(bool(one.invented) for one in found) / count,
            repeats=sum(one.repeats for one in found) / count,
            ended={reason: reasons[reason] / count for reason in ("stop", "sentences", "length", "loop")},
        )

    @property
    def rouge(self) -> float:
        """Mean ROUGE-L."""
        return sum(self.rouges) / len(self.rouges)

    @property
    def good(self) -> float:
        """Share of answers that say much of what the author said."""
        return sum(map(is_good, self.rouges)) / len(self.rouges)

    @property
    def by_itself(self) -> float:
        """Share that ended by its stop token, or by beginning one sentence too many."""
        return self.ended["stop"] + self.ended["sentences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFigures:
    """One pack."""

    pack: Judged
    loss: Bits
    by_task: dict[str, Bits]
    answers: list[Answer]
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """The whole report in numbers."""

    stale: bool  # whether an exported checkpoint was there and is not what the shipped pack was made of
    sizes: Sizes
    num_training: Counter[str]
    num_held_out: Counter[str]
    packs: list[PackFigures]
    shipped: PackFigures  # one of them
    bf16: PackFigures | None  # one of them when there was an exported checkpoint
    ngrams: dict[str, Bits]
    judged: list[Example]  # the prompts of `answers`
    baselines: dict[str, Scores]
    chosen: Chosen
    routing: Routing
    parity: Parity


def measure(shipped: Path, exported: Path | None, sizes: Sizes, folder: Path) -> BenchResult:
    """Run everything; `folder` is for the packs that are made meanwhile."""
    packs, tokenizer = judged_packs(shipped, exported, folder), Tokenizer.load(shipped)
    held_out, training = held_out_examples(), training_examples()
    symbols = [example for example in held_out if example.task == "symbol"]
    judged = judged_symbols(tokenizer, sizes.generation)
    scored = pick(held_out, sizes.loss, "loss", tokenizer)
    rows = list(encode(scored, tokenizer))
    found = [_pack_figures(pack, scored, rows, judged, folder) for pack in packs]
    mine = next(one for one in found if one.pack.folder == shipped)
    bf16 = found[0] if exported or mine.pack.manifest.experts == "bf16" else None
    note("n-grams, routing, parity")
    model = load(exported) if exported else reference(shipped, folder / "float32")
    return BenchResult(
        stale=exported is not None and len(packs) > len(FORMATS),
        sizes=sizes,
        num_training=Counter(example.task for example in training),
        num_held_out=Counter(f"{example.package} {example.task}" for example in held_out),
        packs=found,
        shipped=mine,
        bf16=bf16,
        ngrams=_ngrams(training, scored, rows, tokenizer, sizes.aside),
        judged=judged,
        baselines=_baselines(training, judged),
        chosen=confidence(mine.answers, judged),
        routing=routing(shipped, pick(symbols, sizes.routing, "routing", tokenizer)),
        parity=parity(model, packs[0].folder, pick(held_out, sizes.parity, "parity", tokenizer)),
    )


def _pack_figures(
    pack: Judged, scored: Sequence[Example], rows: Sequence[Row], judged: Sequence[Example], folder: Path
) -> PackFigures:
    note(f"{pack.name}: loss of {len(scored)}")
    bits = answer_bits(reference(pack.folder, folder / "float32"), rows)
    by_task = {}
    for task in sorted({example.task for example in scored}):
        mine = [place for place, example in enumerate(scored) if example.task == task]
        by_task[task] = total([scored[n] for n in mine], [rows[n] for n in mine], [bits[n] for n in mine])
    note(f"{pack.name}: {len(judged)} answers")
    found = answers(pack.folder, judged)
    return PackFigures(
        pack=pack,
        loss=total(scored, rows, bits),
        by_task=by_task,
        answers=found,
        scores=Scores.of(judged, found),
    )


def _ngrams(
    training: Sequence[Example], scored: Sequence[Example], rows: Sequence[Row], tokenizer: Tokenizer, num_aside: int
) -> dict[str, Bits]:
    counted, aside = ([*encode(examples, tokenizer)] for examples in set_aside(training))
    found = ladder(counted, aside, rows, vocab_size=len(tokenizer.pieces()), num_fitted=num_aside)
    return {name: total(scored, rows, [bits]) for name, bits in found.items()}


def _baselines(training: Sequence[Example], judged: Sequence[Example]) -> dict[str, Scores]:
    commonest = most_frequent(training)
    ways: dict[str, Callable[[Example], str]] = {
        "name, split into words": lambda example: split_name(example.prompt),
        "first comment, else the split name": lambda example: first_comment(example.prompt),
        "most frequent sentence": commonest,
    }
    return {
        name: Scores.of(judged, [checked(way(example), example.prompt) for example in judged])
        for name, way in ways.items()
    }


def note(text: str) -> None:
    """Say where it is, and when."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
