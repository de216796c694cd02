"""What the page of a report plots: figures of a run over its time, from samples of its totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import NamedTuple

from rotary_batch.commands.plots import Axes, Part, Series, legend, line_plot, share_bar
from rotary_batch.commands.report_words import WITHHELD
from rotary_batch.commands.run_report import RunReport
from rotary_batch.core import Verdict
from rotary_batch.work.samples import Sample

MAX_BINS = 48  # of a plot
_GB = 1e9
_WITHHELD_STYLES = {Verdict.LOW_CONFIDENCE: "s4", Verdict.UNFAITHFUL: "s5", Verdict.EMPTY: "s6"}


class Figure(NamedTuple):
    """A plot, its title and what is said of it."""

    title: str
    words: str
    svg: str


def outcomes(report: RunReport) -> str:
    """Items by outcome, as a bar."""
    verdicts = report.stats.get("verdicts", {})
    known = sum(verdicts.values())
    earlier = max(0, report.answered - known)
    parts = [
        Part("shown", "s1", verdicts.get(Verdict.SHOWN, 0)),
        *(
            Part(f"withheld, {short}", _WITHHELD_STYLES[name], verdicts.get(name, 0))
            for name, (short, _) in WITHHELD.items()
        ),
        Part("answered earlier, or reused", "s3", earlier),
        Part("failed", "s2", report.parked),
        Part("open", "s0", report.open),
    ]
    return share_bar("Items by outcome", parts)


def figures(report: RunReport, samples: Sequence[Sample]) -> Iterator[Figure]:
    """The plots that have something to show."""
    bins = list(_bins(samples))
    if not bins:
        return
    axes = Axes(_begun(report, samples[-1].at_s), samples[-1].at_s)
    yield from _throughput(axes, bins)
    yield _burn_down(report, axes, samples)
    if samples[-1].bound_s:
        yield _bound(axes, bins, samples)
    if samples[-1].moved_nbytes or samples[-1].read_nbytes:
        yield _moved(axes, bins, samples)
        yield _stall(axes, bins, samples)
    if samples[-1].sentences:
        yield _faithfulness(axes, bins, samples)


def _begun(report: RunReport, seconds: float) -> datetime:
    """When work on the queue began, in local time: of `run` that is after indexing, which may take long."""
    if report.ended_at is None:
        return datetime.fromisoformat(report.started_at).astimezone()
    return datetime.fromisoformat(report.ended_at).astimezone() - timedelta(seconds=seconds)


def _bins(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """Pairs of samples that are at least 1 / MAX_BINS of the run apart, the last pair excepted."""
    if not samples:
        return
    width, before = samples[-1].at_s / MAX_BINS, samples[0]
    for sample in samples[1:]:
        if sample.at_s - before.at_s >= width and sample.at_s > before.at_s:
            yield before, sample
            before = sample


def _rate(bins: Sequence[tuple[Sample, Sample]], value: Callable[[Sample], float]) -> list[tuple[float, float]]:
    """How much a total grew in a second."""
    return [(after.at_s, (value(after) - value(before)) / (after.at_s - before.at_s)) for before, after in bins]


def _share(
    bins: Sequence[tuple[Sample, Sample]], part: Callable[[Sample], float], whole: Callable[[Sample], float]
) -> list[tuple[float, float]]:
    """By how much a total grew, as a percentage of another's growth, where that grew."""
    return [
        (after.at_s, 100 * (part(after) - part(before)) / (whole(after) - whole(before)))
        for before, after in bins
        if whole(after) > whole(before)
    ]


def _throughput(axes: Axes, bins: Sequence[tuple[Sample, Sample]]) -> Iterator[Figure]:
    """Two plots: ten times as many tokens are read as generated, or more."""
    for title, value in (
        ("Generated tokens a second", lambda one: one.generated_tokens),
        ("Prompt tokens a second", lambda one: one.prompt_tokens),
    ):
        line = Series("tokens", "s1", _rate(bins, value), is_filled=True)
        yield Figure(title, "", line_plot(f"{title} over the run", axes, [line]))


def _burn_down(report: RunReport, axes: Axes, samples: Sequence[Sample]) -> Figure:
    """Items that are open, and how many were forecast to be."""
    total = samples[0].num_open + samples[0].ended
    lines = [Series("open items", "s1", [(one.at_s, one.num_open) for one in samples], is_filled=True)]
    told = report.stats.get("forecast", {}).get("curve", ())
    if told:
        points = [(at_s, max(0, total - ended)) for at_s, ended in told if at_s <= axes.seconds]
        lines.append(Series("as forecast", "s2 dashed", points))
    words = legend([(line.name, line.style, "") for line in lines])
    return Figure("The queue", words, line_plot("Open items over the run", axes, lines))


def _bound(axes: Axes, bins: Sequence[tuple[Sample, Sample]], samples: Sequence[Sample]) -> Figure:
    last = samples[-1]
    line = Series("share", "s1", _share(bins, lambda one: one.bound_s, lambda one: one.step_s), is_filled=True)
    words = (
        f"{100 * last.bound_s / last.step_s:.0f} % in all: the least time that the steps could have taken at the "
        f"measured rates of the machine, as a share of the time that they took."
    )
    plot = line_plot("Achieved share of the bound over the run", _percent(axes), [line])
    return Figure("Achieved share of the bound", f"<p>{words}</p>", plot)


def _moved(axes: Axes, bins: Sequence[tuple[Sample, Sample]], samples: Sequence[Sample]) -> Figure:
    last = samples[-1]
    lines = [Series("into device memory", "s1", _rate(bins, lambda one: one.moved_nbytes / _GB))]
    if last.read_nbytes:
        lines.append(Series("from disk", "s2", _rate(bins, lambda one: one.read_nbytes / _GB)))
    totals = (_size(last.moved_nbytes), _size(last.read_nbytes))
    words = legend([(line.name, line.style, total) for line, total in zip(lines, totals, strict=False)])
    plot = line_plot("Expert weights moved, GB a second", axes._replace(write="{:,.3g}".format), lines)
    return Figure("Experts moved, GB a second", words, plot)


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e12:,.1f} TB" if nbytes >= 1e12 else f"{nbytes / _GB:,.1f} GB"


def _stall(axes: Axes, bins: Sequence[tuple[Sample, Sample]], samples: Sequence[Sample]) -> Figure:
    last = samples[-1]
    line = Series("waiting", "s2", _share(bins, lambda one: one.stall_s, lambda one: one.step_s), is_filled=True)
    share = 100 * last.stall_s / max(1e-9, last.step_s)
    words = f"The compute waited {last.stall_s:,.1f} s for experts, {share:.0f} % of the time."
    plot = line_plot("Share of the time that waited", axes._replace(write="{:.3g} %".format), [line])
    return Figure("Stall", f"<p>{escape(words)}</p>", plot)


def _faithfulness(axes: Axes, bins: Sequence[tuple[Sample, Sample]], samples: Sequence[Sample]) -> Figure:
    last = samples[-1]
    line = Series(
        "shown", "s1", _share(bins, lambda one: one.sentences_shown, lambda one: one.sentences), is_filled=True
    )
    share = 100 * last.sentences_shown / last.sentences
    words = f"{last.sentences_shown:,} of {last.sentences:,} sentences were borne out by the code, {share:.0f} %."
    plot = line_plot("Share of sentences that are shown", _percent(axes), [line])
    return Figure("Faithfulness", f"<p>{escape(words)}</p>", plot)


def _percent(axes: Axes) -> Axes:
    return axes._replace(top=100.0, write="{:.0f} %".format)
