"""The figures as Markdown: what was asked, what was found, the bad included.

Knows figures and how to say them; measures nothing.
"""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.shapes import machine
from training.quality.confidence import GOOD_ROUGE
from training.quality.figures import BenchResult, PackFigures, Scores
from training.quality.plots import LOSS, ROUTING, THRESHOLD
from training.quality.samples import NUM_SAMPLES, samples

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "matplotlib")
MAY_LOSE = {"int8": 0.005, "int4": 0.03}
WIDTH = 118


def render(figures: BenchResult) -> str:
    """The whole page."""
    parts = [_head(figures), _asked(figures), _loss(figures), _answers(figures), _formats(figures)]
    parts += [_routing(figures), _confidence(figures), _samples(figures)]
    return "\n".join(line for part in parts for line in [*part, ""]).rstrip() + "\n"


def _head(figures: BenchResult) -> list[str]:
    shipped, sizes = figures.shipped.pack, figures.sizes
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    training = ", ".join(f"{count:,} {task}" for task, count in sorted(figures.num_training.items()))
    held_out = ", ".join(f"{name} {count:,}" for name, count in sorted(figures.num_held_out.items()))
    return [
        "# Quality of the embedded model",
        "",
        *prose(f"Command: `make quality`.  Machine: {machine()}.  Libraries: {versions}."),
        *prose(f"Shipped pack: weights `{shipped.digest[:16]}`, {shipped.name}, {shipped.nbytes:,} bytes."),
        *(
            ["**It was not made of the exported checkpoint that the other packs were made of.**"]
            if figures.stale
            else []
        ),
        "",
        *prose(f"Trained on {training}.  Held-out examples, of whole packages never trained on: {held_out}."),
        *prose(
            f"Looked at: {figures.shipped.loss.num_answers:,} for the loss, {len(figures.judged):,} symbols for "
            f"answers, {sizes.routing:,} for routing, {figures.parity.prompts:,} for parity; the first that fit the "
            "context, in the order of a digest."
        ),
    ]


def _asked(figures: BenchResult) -> list[str]:
    loss, scores = figures.shipped.loss.per_byte, figures.shipped.scores
    best = min(bits.per_byte for bits in figures.ngrams.values())
    floor = max(others.rouge for others in figures.baselines.values())
    same, prompts = figures.parity.same, figures.parity.prompts
    rows = [
        ("loss below the best n-gram's, bits per byte", f"{loss:.3f} to {best:.3f}", loss < best),
        ("ROUGE-L above all three baselines", f"{scores.rouge:.3f} to {floor:.3f}", scores.rouge > floor),
        ("at least 90 % of answers end by themselves", f"{scores.by_itself:.1%}", scores.by_itself >= 0.9),
        ("under 2 % contain a loop", f"{scores.repeats:.1%}", scores.repeats < 0.02),
        *_formats_asked(figures),
        (
            "`transformers` on the first pack below gives the engine's greedy tokens",
            f"{same} of {prompts} prompts",
            same == prompts,
        ),
    ]
    cells = [(asked, found, "yes" if holds else "**no**") for asked, found, holds in rows]
    return ["## EncodedPrompt and found", "", *table(("EncodedPrompt", "Found", "Holds"), cells)]


def _formats_asked(figures: BenchResult) -> Iterator[tuple[str, str, bool]]:
    for one in figures.packs:
        most = MAY_LOSE.get(one.pack.manifest.experts)
        if most is not None and figures.bf16:
            change = _change(one, figures.bf16)
            yield f"{one.pack.name} within {most:.1%} of the bf16 loss", f"{change:+.2%}", change <= most


def _loss(figures: BenchResult) -> list[str]:
    bits = figures.shipped.loss
    rows = {"the model": bits, **{f"of it, {task}": one for task, one in figures.shipped.by_task.items()}}
    cells = [
        (name, f"{one.per_byte:.3f}", f"{one.nats_per_token:.3f}") for name, one in (rows | figures.ngrams).items()
    ]
    return [
        "## Held-out loss",
        "",
        *prose(
            f"Teacher-forced over the authors' first sentences, the stop token after each included: {bits.num_bytes:,} "
            f"bytes, {bits.num_tokens:,} tokens.  The baselines are interpolated modified Kneser-Ney over the model's "
            "own tokens, counted on all training examples.  The last two also hear the prompt: how often a token "
            "stands in it, and what followed there after the same one to three tokens; the weights of the mixtures "
            "were fitted on whole training packages that were kept out of the counts for that."
        ),
        "",
        *table(("What predicts", "Bits per byte", "Nats per token"), cells),
        "",
        f"![loss and ROUGE-L]({LOSS})",
    ]


def _answers(figures: BenchResult) -> list[str]:
    rows = {"the model": figures.shipped.scores, **figures.baselines}
    cells = [
        (name, f"{one.rouge:.3f}", f"{one.good:.1%}", _precision(one), f"{one.invented:.1%}")
        for name, one in rows.items()
    ]
    return [
        "## Answers beside the author's sentence",
        "",
        *prose(
            "Greedy, under the limits and the guard of the `summarize` job.  ROUGE-L is the F1 of the longest common "
            "subsequence of words.  Identifiers are what the page check takes for names; their precision is the share "
            "that the author's sentence has too.  The last column is the share of answers with a name that the prompt "
            "lacks."
        ),
        "",
        *table(
            ("Who wrote", "ROUGE-L", f"ROUGE-L >= {GOOD_ROUGE}", "Identifier precision", "Not in the prompt"), cells
        ),
    ]


def _formats(figures: BenchResult) -> list[str]:
    base = figures.bf16 or figures.shipped
    stored = [
        (
            one.pack.name,
            f"{one.pack.nbytes:,}",
            f"`{one.pack.digest[:12]}`",
            f"{one.loss.per_byte:.4f}",
            f"{_change(one, base):+.2%}",
            f"{one.scores.rouge:.3f}",
            _precision(one.scores),
            f"{_same(one, base):.1%}",
        )
        for one in figures.packs
    ]
    ends = [
        (
            one.pack.name,
            *(f"{share:.1%}" for share in one.scores.ended.values()),
            f"{one.scores.repeats:.1%}",
            f"{one.scores.invented:.1%}",
        )
        for one in figures.packs
    ]
    columns = ("Pack", "Bytes", "Digest", "Bits per byte", "Change", "ROUGE-L", "Identifier precision", "Same answer")
    lacking = "" if figures.bf16 else "  There was no exported checkpoint, so only the shipped pack is here."
    return [
        "## Formats",
        "",
        *prose(
            "Judged by what they store: weights decoded to float32 for the loss, the engine itself for the answers."
            + lacking
        ),
        "",
        *table(columns, stored),
        "",
        *prose(
            "What ended the answers.  `stop` is the stop token, `sentences` the job's limit of sentences (one more "
            "began); both are endings of their own, the other two are not."
        ),
        "",
        *table(("Pack", *base.scores.ended, "Contains a loop", "Name not in the prompt"), ends),
    ]


def _routing(figures: BenchResult) -> list[str]:
    found = figures.routing
    loads = "; ".join(f"layer {n} {min(loads):.1%} to {max(loads):.1%}" for n, loads in enumerate(found.loads))
    return [
        "## Routing",
        "",
        *prose(
            f"{figures.sizes.routing:,} held-out prompts, one at a time.  Load of an expert over prompts and answers "
            f"(even: {1 / len(found.loads[0]):.1%}): {loads}."
        ),
        *prose(
            f"Over {found.num_steps:,} decode steps of a layer, a later layer's router on the hidden state of this one "
            f"finds {found.recall_1:.1%} of what is asked for one layer ahead and {found.recall_2:.1%} two ahead; the "
            f"token before asked the same layer for {found.reuse:.1%} of it.  Chance is {found.chance:.1%}."
        ),
        "",
        f"![load of each expert]({ROUTING})",
    ]


def _confidence(figures: BenchResult) -> list[str]:
    chosen, lines = figures.chosen, ["No threshold reaches the target."]
    if chosen.here and chosen.elsewhere:
        points = (("half that chose it", chosen.here), ("other half", chosen.elsewhere))
        cells = [
            (name, f"{point.num_passing:,}, {point.share:.1%}", f"{point.precision:.1%}") for name, point in points
        ]
        lines = [f"Chosen: {chosen.threshold:.3f} mean log-probability of a token.", ""]
        lines += table(("Symbols", "Pass", "Right among them, by the proxy"), cells)
    return [
        "## Confidence",
        "",
        *prose(
            "As a proxy, an answer counts as right when its ROUGE-L with the author's sentence is at least "
            f"{GOOD_ROUGE}: a true sentence in other words counts as wrong, a false one in the author's words as right "
            "(of the 100 most confident of one model, read by hand, 70 were right and 47 counted so).  The threshold "
            f"is the lowest at which {chosen.target:.0%} of what passes counts as right, one standard error allowed "
            "for, chosen on every second answer.  What repeats itself, says a word twice in a sentence, or names only "
            "what does not exist, never passes."
        ),
        "",
        *lines,
        "",
        f"The shipped pack has {figures.shipped.pack.manifest.min_mean_logprob}.",
        "",
        f"![what passes]({THRESHOLD})",
    ]


def _samples(figures: BenchResult) -> list[str]:
    pairs, threshold = list(zip(figures.judged, figures.shipped.answers, strict=True)), figures.chosen.threshold
    lines = ["## Samples", "", "The first in the order of the digest; none was chosen by its looks.", ""]
    lines += samples(pairs[:NUM_SAMPLES])
    if threshold is not None:
        shown = [pair for pair in pairs if pair[1].stands and pair[1].mean_logprob >= threshold]
        lines += ["", "The first that pass the threshold.", "", *samples(shown[: NUM_SAMPLES // 2])]
    return lines


def _precision(scores: Scores) -> str:
    return f"{scores.confirmed / scores.named:.1%} of {scores.named:,}" if scores.named else "names none"


def _change(one: PackFigures, base: PackFigures) -> float:
    return one.loss.bits / base.loss.bits - 1


def _same(one: PackFigures, base: PackFigures) -> float:
    pairs = list(zip(one.answers, base.answers, strict=True))
    return sum(a.text == b.text for a, b in pairs) / len(pairs)


def prose(text: str) -> list[str]:
    """A paragraph in lines of a width that diffs well."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
