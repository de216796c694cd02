"""A report in words: the sentences that the terminal and the Markdown file share."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rotary_batch.commands.happened import happened
from rotary_batch.commands.node_words import node_lines
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import state_dir
from rotary_batch.core import Verdict
from rotary_batch.sizes import count, duration_text
from rotary_batch.work.counts import ParkedFile
from rotary_batch.work.runs import ENDED, FAILED, KILLED, RUNNING
from rotary_batch.work.secrets import StoredSecret
from rotary_batch.work.verdicts import ModelScore, PageScore

WITHHELD = {  # why answers are not shown, in short and in full
    Verdict.LOW_CONFIDENCE: ("unsure", "the model was unsure"),
    Verdict.UNFAITHFUL: ("not borne out by the code", "the code does not bear it out"),
    Verdict.EMPTY: ("empty", "nothing is said"),
}
ENDINGS = {  # of answers, by what ended them
    "stop": "ended by themselves",
    "sentences": "ended at the limit of sentences",
    "length": "cut off at the limit of tokens",
    "loop": "cut off because they repeated themselves",
}
SENTENCES = {"sentences": "sentences held against the code", "sentences_shown": "of these, shown"}
_CUT = {"length": "too long", "loop": "repetitive"}  # endings that cost a part of the answer, in short
MAX_NAMED = 3  # repositories in a command


class Section(NamedTuple):
    """A heading and what is listed below it."""

    title: str
    lines: Sequence[str]
    total: int = 0  # of which these lines are the first; 0 = they are all
    are_paths: bool = False

    @property
    def num_more(self) -> int:
        """How many are not listed."""
        return max(0, self.total - len(self.lines))


class Figure(NamedTuple):
    """A figure of the engine and its name."""

    name: str
    value: str


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def about(seconds: float) -> str:
    """A time to wait, as a person says it."""
    if seconds < 90:
        return "about a minute"
    minutes = round(seconds / 60)
    if minutes >= 10:
        minutes = round(minutes / 5) * 5
    hours, minutes = divmod(minutes, 60)
    if hours >= 10:
        hours, minutes = hours + (minutes >= 30), 0
    return f"about {listed([count(hours, 'hour')] * bool(hours) + [count(minutes, 'minute')] * bool(minutes))}"


def clock(moment: str | None) -> str:
    """The local time of day of a moment in ISO 8601."""
    return "?" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%H:%M")


def period(report: RunReport) -> str:
    """When it ran, in local time."""
    begun = datetime.fromisoformat(report.started_at).astimezone()
    if report.ended_at is None:
        return f"since {begun:%a %d %b %H:%M}"
    ended = datetime.fromisoformat(report.ended_at).astimezone()
    return f"{begun:%a %d %b %H:%M} to {ended:{'%H:%M' if ended.date() == begun.date() else '%a %d %b %H:%M'}}"


def headline(report: RunReport) -> str:
    """What happened, and what is left."""
    if report.did_nothing and not report.repositories:
        return "Nothing to do; nothing is indexed yet."
    if report.did_nothing:
        failed = f" {count(report.parked, 'item')} failed earlier." if report.parked else ""
        return f"Nothing to do; {count(report.pages_current, 'page is', 'pages are')} current.{failed}"
    at = clock(report.ended_at)
    how = {
        ENDED: f"Finished at {at}" + (", but not for every repository" if report.failures else ""),
        "deadline": f"Stopped at {at}",
        "limit": f"Stopped at {at}, at the limit of items",
        "interrupted": f"Interrupted at {at}",
        FAILED: f"Failed at {at}",
        KILLED: f"Killed at {at} or later",
        RUNNING: f"Running since {clock(report.started_at)}",
    }[report.outcome]
    return f"{how}. {_answered(report)}".rstrip()


def _answered(report: RunReport) -> str:
    if not report.items:
        return ""
    so_far = " so far" if report.outcome == RUNNING else ""
    left = f"; {about(report.seconds_left)} more" if report.open and report.seconds_left else ""
    return f"{report.answered:,} of {report.items:,} answered{so_far}, {report.parked:,} failed{left}."


def answers(report: RunReport) -> str:
    """How many answers of this run are shown, and why others are not; empty without any."""
    reused = report.stats.get("reused", 0)
    again = f"{count(reused, 'answer')} reused from earlier runs. " if reused else ""
    if not report.new_answers:
        return again.strip()
    verdicts, ended = report.stats.get("verdicts", {}), report.stats.get("ended", {})
    reasons = [(verdicts[name], short) for name, (short, _) in WITHHELD.items() if verdicts.get(name)]
    shown = verdicts.get(Verdict.SHOWN, 0)
    why = reasons[0][1] if len(reasons) == 1 else ", ".join(f"{number:,} {short}" for number, short in reasons)
    withheld = f"{report.new_answers - shown:,} withheld ({why})" if reasons else "none withheld"
    cut = ", ".join(f"{ended[name]:,} {short}" for name, short in _CUT.items() if ended.get(name))
    return f"{again}New answers: {shown:,} shown, {withheld}.{f' Cut short: {cut}.' if cut else ''}"


def forecast(report: RunReport) -> str:
    """What was forecast at the start of the run, and what came of it; empty without a forecast."""
    found = happened(report.stats, is_done=report.outcome == ENDED)
    if found is None:
        return ""
    if found.what == "seconds":
        said = f"{duration_text(found.forecast)} for everything; it took {duration_text(found.actual)}"
        wrong = "too long" if found.error > 0 else "too short"
    else:
        said = f"{count(round(found.forecast), 'item')} in this time; {found.actual:,} ended"
        wrong = "too many" if found.error > 0 else "too few"
    return f"Forecast at the start: {said}, so it was {100 * abs(found.error):.0f} % {wrong}."


def problems(report: RunReport) -> str:
    """What a person must look at; empty when there is nothing."""
    conflicts, failed = report.stats.get("conflicts", ()), report.stats.get("pages_failed", ())
    left = f"{count(len(conflicts), 'page was', 'pages were')} left alone because a person edited them"
    words = [left.replace("them", "it") if len(conflicts) == 1 else left] if conflicts else []
    words += [f"{count(len(failed), 'page')} could not be written"] if failed else []
    return f"{listed(words)}; the report names them." if words else ""


def next_step(report: RunReport) -> str:
    """The command to type next, in backticks; empty when there is nothing to do."""
    database, roots = Path(report.database), report.repositories
    if report.outcome == RUNNING:
        return f"Next: {command('status', database)} shows how far it is."
    if report.crash_file:
        return f"Next: report the bug with {report.crash_file} (read it first: it can quote paths and code)."
    again = command(report.command, database, roots)
    if report.outcome == FAILED:
        return f"Next: once that is fixed, {again} continues from here."
    if report.open or report.outcome == KILLED:
        return f"Next: {again} continues from here."
    if report.parked:
        why, retry = command("report", database), command("retry", database, roots)
        return f"Next: {why} says why they failed, {retry} queues them again."
    if not roots:
        return f"Next: {command('index', database, ['REPO'])} reads a repository."
    site = command("site", database, roots[:1], "--serve")
    return "" if report.did_nothing else f"Next: {site} shows the pages in a browser."


def command(name: str, database: Path, repositories: Sequence[str] = (), *options: str) -> str:
    """A command to type, in backticks; it names the database when that is another one than usual."""
    named = repositories if len(repositories) <= MAX_NAMED else ()
    other = [] if database == state_dir(os.environ) / "work.db" else ["--db", str(database)]
    return f"`{shlex.join(['rotary-batch', name, *named, *options, *other])}`"


def reason(report: RunReport) -> str:
    """Why it did not end by itself; empty when it did."""
    return report.reason or ""


def sections(report: RunReport) -> list[Section]:
    """What a person may want to know besides the sentences, without what is empty."""
    stats = report.stats
    failed = [str(failure) for failure in report.failures if str(failure) != report.reason]
    found = [
        Section("What went wrong", failed),
        Section("Items that failed", [_parked(report, one) for one in report.parked_by_file], report.files_parked),
        Section("Pages left alone because a person edited them", stats.get("conflicts", ())),
        Section("Pages that could not be written", [f"{page}: {why}" for page, why in stats.get("pages_failed", ())]),
        Section("Sentences that are shown", [_score(one) for one in report.scores]),
        Section("Pages of which the least is shown", [_page_score(report, one) for one in report.lowest_pages]),
        Section("Secrets, which no prompt holds", [_secret(report, one) for one in report.secrets], report.num_secrets),
        Section("Nodes of the cluster", node_lines(stats.get("nodes", {}), stats.get("drain_s", 0.0))),
        Section("Pages that changed", report.pages, report.pages_changed, are_paths=True),
        Section("Notes", report.notes),
    ]
    return [section for section in found if section.lines]


def _parked(report: RunReport, parked: ParkedFile) -> str:
    path = parked.path + "/" * (parked.unit == "directory") or "the repository itself"
    return f"{_where(report, parked.root, path)}: {count(parked.num_items, 'item')}: {parked.error}"


def _score(score: ModelScore) -> str:
    """The share of the sentences of a model that is shown, and why others are not."""
    reasons = sorted(score.reasons.items(), key=lambda one: (-one[1], one[0]))
    why = (
        "; answers with each reason: " + ", ".join(f"{kind} {number:,}" for kind, number in reasons) if reasons else ""
    )
    return f"{score.model}: {_share(score)}{why}"


def _share(score: ModelScore | PageScore) -> str:
    return f"{score.shown:,} of {count(score.looked_at, 'sentence')} ({100 * score.shown / score.looked_at:.0f} %)"


def _page_score(report: RunReport, score: PageScore) -> str:
    return f"{_where(report, score.root, score.path or 'the repository itself')}: {_share(score)}"


def _secret(report: RunReport, secret: StoredSecret) -> str:
    return f"{_where(report, secret.root, f'{secret.path}:{secret.line}')}: {secret.kind}"


def _where(report: RunReport, root: str, path: str) -> str:
    return path if len(report.repositories) == 1 else f"{root}: {path}"


def answer_figures(report: RunReport) -> list[Figure]:
    """How many answers of this run were withheld, by reason; and how answers ended."""
    verdicts, ended = report.stats.get("verdicts", {}), report.stats.get("ended", {})
    rows = [(f"withheld: {why}", verdicts.get(name, 0)) for name, (_, why) in WITHHELD.items()]
    rows += [(words, ended.get(name, 0)) for name, words in ENDINGS.items()]
    rows += [(words, report.stats.get(name, 0)) for name, words in SENTENCES.items()]
    rows += [(f"answers with the reason: {kind}", number) for kind, number in report.stats.get("reasons", {}).items()]
    shown = verdicts.get(Verdict.SHOWN, 0)
    return _without_zeros([("shown on pages", shown), *rows])


def _without_zeros(rows: Sequence[tuple[str, int | float]]) -> list[Figure]:
    return [Figure(name, f"{value:,}") for name, value in rows if value]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def engine_figures(report: RunReport) -> list[Figure]:
    """The figures of the engine that are not zero."""
    stats: Mapping[str, float] = report.stats
    if report.did_nothing:
        return []
    whole = [
        ("steps (revolutions)", stats.get("revolutions", 0)),
        ("answers reused from earlier runs", stats.get("reused", 0)),
        ("attempts that were repeated", stats.get("retried", 0)),
        ("prompt tokens read", stats.get("prefill_tokens", 0)),
        ("of these, read again after a stop", stats.get("reprefill_tokens", 0)),
        ("tokens written", stats.get("decode_tokens", 0)),
        ("pages written, each time", stats.get("pages_written", 0)),
        ("tokens left", report.tokens_left),
        ("seconds reading again", round(stats.get("reprefill_s", 0), 1)),
        ("seconds in steps", round(stats.get("step_s", 0), 1)),
        ("seconds in all", round(report.seconds, 1)),
    ]
    rates = []
    if step_s := stats.get("step_s"):
        tokens = stats.get("prefill_tokens", 0) + stats.get("decode_tokens", 0)
        rates = [Figure("tokens a second", f"{tokens / step_s:,.0f}")]
        if stats.get("bound_s"):
            rates.append(Figure("share of the machine's bound", f"{100 * stats['bound_s'] / step_s:.0f} %"))
        if stats.get("rates_raised", 1) > 1:
            rates.append(Figure("its rates were too low, raised by", f"{100 * (stats['rates_raised'] - 1):.0f} %"))
    counters = {name: value for name, value in dict(report.stats.get("engine", {})).items() if value}
    named = {"device": "device", "tier": "where the experts came from"}
    texts = [Figure(name, str(report.stats[key])) for key, name in named.items() if report.stats.get(key)]
    return [
        *_without_zeros(whole),
        *rates,
        *texts,
        *(Figure(name.replace("_", " "), _figure(value)) for name, value in counters.items()),
    ]
