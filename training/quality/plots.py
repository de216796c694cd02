"""Three pictures of the report; their bytes depend on the figures and the version of matplotlib alone.

Knows figures and matplotlib; knows nothing of how they were measured.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rotary_batch.model.threshold import MIN_PASSING, curve
from training.quality.confidence import confidences
from training.quality.figures import BenchResult

LOSS, THRESHOLD, ROUTING = "quality_loss.png", "quality_threshold.png", "quality_routing.png"
OURS, OTHERS = "tab:blue", "tab:gray"
WRITERS = (OURS, "tab:orange", "tab:green", "tab:red")


def draw(figures: BenchResult, folder: Path) -> None:
    """Write all three."""
    with plt.rc_context({"font.size": 9}):
        for name, picture in ((LOSS, _loss(figures)), (THRESHOLD, _threshold(figures)), (ROUTING, _routing(figures))):
            picture.tight_layout()
            picture.savefig(folder / name, dpi=110)
            plt.close(picture)


def _loss(figures: BenchResult) -> Figure:
    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    bars = {name: (bits.per_byte, OTHERS) for name, bits in figures.ngrams.items()}
    bars |= {one.pack.name: (one.loss.per_byte, OURS) for one in figures.packs}
    left.barh(list(bars), [value for value, _ in bars.values()], color=[colour for _, colour in bars.values()])
    left.bar_label(left.containers[0], fmt="%.3f", padding=2)
    left.invert_yaxis()
    left.margins(x=0.2)
    left.set_xlabel("bits per byte of held-out docstring")
    writers = {"the model": figures.shipped.scores, **figures.baselines}
    for (name, scores), colour in zip(writers.items(), WRITERS, strict=True):
        ordered = sorted(scores.rouges, reverse=True)
        shares = [100 * place / len(ordered) for place in range(1, len(ordered) + 1)]
        right.plot(shares, ordered, label=name, color=colour)
    right.set_xlabel("% of answers, best first")
    right.set_ylabel("ROUGE-L at least")
    right.set_ylim(-0.02, 1.02)
    right.legend()
    return picture


def _threshold(figures: BenchResult) -> Figure:
    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
    means, scores = confidences(figures.shipped.answers, figures.judged)
    for name, first in (("half that chooses", 0), ("half that checks", 1)):
        points = [point for point in curve(means[first::2], scores[first::2]) if point.num_passing >= MIN_PASSING]
        left.plot([100 * point.share for point in points], [100 * point.precision for point in points], label=name)
        right.plot([point.threshold for point in points], [100 * point.precision for point in points], label=name)
    left.set_xlabel("% of answers that pass")
    right.set_xlabel("threshold: mean log-probability of a token")
    left.set_ylabel("% of them that count as right")
    chosen = figures.chosen
    _mark(left, 100 * chosen.here.share if chosen.here else None, 100 * chosen.target)
    _mark(right, chosen.threshold, 100 * chosen.target)
    left.legend()
    return picture


def _mark(axis: Axes, x: float | None, y: float) -> None:
    """The target, and where the chosen threshold stands."""
    axis.axhline(y, color=OTHERS, linestyle=":", linewidth=1)
    if x is not None:
        axis.axvline(x, color=OTHERS, linestyle="--", linewidth=1)


def _routing(figures: BenchResult) -> Figure:
    loads = [[100 * share for share in layer] for layer in figures.routing.loads]
    picture, axis = plt.subplots(figsize=(1.5 + 0.55 * len(loads[0]), 1.3 + 0.38 * len(loads)))
    image = axis.imshow(loads, cmap="Blues", vmin=0, aspect="auto")
    most = max(map(max, loads))
    for layer, row in enumerate(loads):
        for expert, share in enumerate(row):
            axis.text(
                expert, layer, f"{share:.0f}", ha="center", va="center", color="white" if share > most / 2 else "k"
            )
    axis.set_xlabel("expert")
    axis.set_ylabel("layer")
    axis.set_xticks(range(len(loads[0])))
    axis.set_yticks(range(len(loads)))
    picture.colorbar(image, label="% of assignments")
    return picture
