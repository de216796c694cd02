"""Tables, progress and the live view; the only module that imports rich, and only when it prints.

All text passes `terminal.shown`, since names and texts of repositories reach it.  What was asked for goes to stdout;
progress, notes and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotary_batch.config import FILE_NAME
from rotary_batch.terminal import shown

if TYPE_CHECKING:
    from rich.table import Table

    from rotary_batch.commands.drain import DrainOutcome
    from rotary_batch.commands.index import IndexOutcome
    from rotary_batch.pages.drift import Drift
    from rotary_batch.pages.files import PageFailure, SyncResult
    from rotary_batch.runner import Progress

DEMONSTRATION = (
    "Model: the embedded demonstration model. It shows the machinery at work; do not rely on its sentences. "
    "Name a real one with --model."
)

# Why answers ended, in words.
ENDED = {
    "stop": "themselves",
    "length": "their limit of tokens",
    "sentences": "their limit of sentences",
    "loop": "repeating themselves",
}


def say(text: str) -> None:
    """One plain line aside."""
    with suppress(OSError):  # a full disk or a reader that left must not end a night
        print(shown(text), file=sys.stderr, flush=True)  # noqa: T201 - this is the printer


def tell(text: str) -> None:
    """One plain line of an answer."""
    print(shown(text))  # noqa: T201 - this is the printer


@contextmanager
def reader() -> Iterator[None]:
    """Write to stdout until whoever reads it has seen enough (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at the end complains


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    # A plain string would be read as markup, in which a folder called `[link=...]` is a link.
    heading = Text(shown(title), style="bold") if title else None
    table = Table(title=heading, title_justify="left", header_style="dim", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    return table


def _print(table: Table, *, aside: bool = False) -> None:
    from rich.console import Console

    Console(stderr=aside, highlight=False).print(table)


def _row(table: Table, *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else shown(str(cell))) for cell in cells))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a known number of things; nothing at all when nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        *Bar.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def indexing() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the files of a repository."""
    with counting("files parsed") as progress:
        yield lambda _root, done, total: progress(done, total)


@contextmanager
def draining() -> Iterator[Callable[[Progress], None]]:
    """A live line after every revolution."""
    if not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.status import Status

    with Status("opening the model", console=Console(stderr=True)) as line:
        yield lambda progress: line.update(shown(live_line(progress)))


def live_line(progress: Progress) -> str:
    """Items, tokens/s, the revolution and the time that is left."""
    stats, seconds = progress.stats, max(progress.elapsed_s, 1e-9)
    finished = stats.done + stats.reused + stats.parked
    share = f" · {stats.roofline_s / stats.step_s:.0%} of the bound" if stats.roofline_s and stats.step_s else ""
    left_s = progress.num_open * seconds / finished if finished else None
    return (
        f"revolution {stats.revolutions:,} · {finished:,} done, {progress.num_open:,} open, {progress.num_live} live · "
        f"in {stats.prefill_tokens / seconds:,.0f} tok/s, out {stats.decode_tokens / seconds:,.0f} tok/s · "
        f"ETA {'?' if left_s is None else _duration(left_s)}{share}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m{rest:02}s"


def show_index(outcomes: Sequence[IndexOutcome], *, aside: bool = False) -> None:
    """What `index` did; aside, when something else is the answer."""
    out = say if aside else tell
    for outcome in outcomes:
        indexed, counts = outcome.indexed, outcome.indexed.counts
        table = _table(f"Indexed {indexed.repository.root}", "", "")
        _row(table, "source files", indexed.files.get("source", 0))
        _row(table, "other files, not documented", sum(indexed.files.values()) - indexed.files.get("source", 0))
        _row(table, "parsed anew", indexed.parsed)
        _row(table, "symbols", indexed.symbols)
        _row(table, "chunks", indexed.chunks)
        _row(table, "items queued", counts.queued)
        _row(table, "items removed", counts.removed)
        _row(table, "pages written", len(outcome.projection.written))
        _print(table, aside=aside)
        for note in outcome.notes:
            out(f"note: {note}")
        _tell_pages(outcome.projection.conflicts, outcome.projection.failed, out)
        if outcome.demonstration:
            out(DEMONSTRATION)
        out(f"docs: {outcome.docs}")


def _tell_pages(conflicts: Sequence[str], failed: Sequence[PageFailure], out: Callable[[str], None] = tell) -> None:
    for page in conflicts:
        out(f"edited by a person, left alone: {page} (the new page is beside it; settle it with render --accept)")
    for page, reason in failed:
        out(f"not written: {page}: {reason}")


def show_drain(outcomes: Sequence[DrainOutcome], reports: Sequence[Path], told: Collection[str] = ()) -> None:
    """What a run did.  `told` = notes that were printed before."""
    for outcome, report in zip(outcomes, reports, strict=True):
        tally = outcome.tally
        table = _table(f"Run ended: {outcome.outcome}", "", "")
        _row(table, "items answered by the model", tally.done)
        _row(table, "answered before, reused", tally.reused)
        for verdict, count in sorted(tally.verdicts.items()):
            _row(table, f"  {verdict}", count)
        for reason, count in sorted(tally.ended.items()):
            _row(table, f"  ended by {ENDED[reason]}", count)
        _row(table, "parked", outcome.num_parked)
        _row(table, "still open", outcome.num_open)
        _row(table, "revolutions", tally.revolutions)
        _row(table, "prompt tokens read", tally.prefill_tokens)
        _row(table, "  of these read again after an interruption", tally.reprefill_tokens)
        _row(table, "  seconds of that", f"{tally.reprefill_s:.1f}")
        _row(table, "tokens written", tally.decode_tokens)
        if tally.roofline_s:
            _row(table, "share of the machine's bound", f"{tally.roofline_s / max(tally.step_s, 1e-9):.0%}")
        if tally.rates_raised > 1:
            _row(table, "  its rates were too low and were raised by", f"{tally.rates_raised - 1:.0%}")
        _row(table, "seconds", f"{outcome.seconds:.1f}")
        _row(table, "pages written", tally.pages_written)
        _print(table)
        if outcome.num_parked:
            tell("parked: `rotary-batch inspect items` says why, `rotary-batch retry` asks again")
        _tell_pages(tally.conflicts, tally.pages_failed)
        for note in [note for note in outcome.notes if note not in told]:
            tell(f"note: {note}")
        for folder in outcome.docs:
            tell(f"docs: {folder / 'index.md'}")
        tell(f"report: {report}")


def show_projection(done: SyncResult) -> None:
    """What `render` did."""
    tell(f"{len(done.written)} pages written, {done.unchanged} unchanged, {len(done.removed)} removed")
    _tell_pages(done.conflicts, done.failed)


def show_drift(drift: Drift) -> None:
    """What `check` found."""
    for kind in ("stale", "missing", "edited", "orphaned", "blocked"):
        for page in getattr(drift, kind):
            tell(f"{kind}: {page}")
    tell(
        "docs are up to date"
        if not drift.num_found
        else f"{drift.num_found} pages drifted; `rotary-batch run` mends them"
        + (", `render --accept ours|theirs PAGE` settles what was edited" if drift.edited else "")
        + (", blocked pages have something else in their place: move it away" if drift.blocked else "")
    )


def show_status(found: Mapping[str, Any]) -> None:
    """Where everything stands."""
    for repository in found["repositories"]:
        states = ("waiting", "ready", "leased", "done", "parked")
        table = _table(f"{repository['root']} ({repository['model']})", "unit", *states)
        for unit, by_state in repository["items"].items():
            _row(table, unit, *(by_state.get(state, 0) for state in states))
        _print(table)
    if not found["repositories"]:
        tell("nothing is indexed yet; run `rotary-batch index REPO`")
    driver = found["driver_pid"]
    place = f"process {driver}" if driver else "a process in another container or on another machine"
    tell("driver: none is running" if driver is None else f"driver: {place} is at work")
    if run := found["last_run"]:
        tell(f"last run: {run['started_at']}, {run['outcome']}")


def show_plan(found: Mapping[str, Any]) -> None:
    """What is left to do."""
    for repository in found["repositories"]:
        title = f"{repository['root']} ({repository['model']})"
        table = _table(title, "unit", "items", "prompt tokens", "prompts not known yet", "most new tokens")
        names = ("items", "prompt_tokens", "unknown", "new_tokens")
        for unit, row in repository["open"].items():
            _row(table, unit, *(row[name] for name in names))
        _row(table, "total", *(sum(row[name] for row in repository["open"].values()) for name in names))
        _print(table)
    for model in found["models"]:
        _show_forecast(model)


def _show_forecast(model: Mapping[str, Any]) -> None:
    if "needs" in model:
        known = "what the machine could do is not known" if "last_run" in model else "hours are not known"
        _tell_last_run(model)
        tell(f"{known}: measure this machine once with `rotary-batch {model['needs']}`")
        return
    table = _table(f"{model['model']} ({model['experts']} experts) on {model['device']}, at the bound", "", "")
    _row(table, "device memory", _nbytes(model["device_memory"]))
    _row(table, "live sequences", model["batch"])
    _row(
        table,
        "keys on the device / in host memory, tokens",
        f"{model['device_kv_tokens']:,} / {model['host_kv_tokens']:,}",
    )
    _row(table, "experts resident / ring slots", f"{model['residents']} / {model['ring_slots']}")
    _row(table, "others in host memory / on disk", f"{model['in_host_memory']} / {model['from_disk']}")
    _row(table, "one revolution", f"{model['revolution_s']:.2f} s ({model['binding']} binds)")
    _row(table, "  moving experts / compute", f"{model['move_s']:.2f} s / {model['compute_s']:.2f} s")
    _row(table, "new tokens a second", f"{model['decode_tokens_per_s']:,.1f}")
    _row(table, "time for everything, at the least", _nights(model["hours"]))
    if model["items_by_deadline"] is not None:
        _row(table, "items done by the deadline", f"{model['items_by_deadline']:,} of {model['items']:,}")
    _row(table, "what would help most", model["best_next"] or "nothing that is known here")
    _row(table, "the machine's rates", model["rates"])
    _print(table)
    _tell_last_run(model)
    if model["numerics"] == "exact":
        tell("these are rates of fast numerics: exact ones, as set here, take longer")


def _tell_last_run(model: Mapping[str, Any]) -> None:
    if "last_run" in model:
        tell(
            f"{model['model']} on {model['device']} at the speed of its last run ({model['last_run']}, "
            f"{model['last_run_tokens_per_s']:,.1f} tokens a second): {_nights(model['hours_as_last_run'])}"
        )


def _nights(hours: float) -> str:
    return f"{hours:.1f} h = {hours / 8:.1f} nights of 8 h" if hours >= 1 else _duration(hours * 3600)


def _nbytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


def show_figures(found: Mapping[str, Any]) -> None:
    """What `bench` measured."""
    show_facts({name: value for name, value in found.items() if name != "weight_s"})


def _short(value: object) -> object:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " to ".join(str(_short(part)) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else round(value)
    return "-" if value is None else value


def show_report(found: Mapping[str, Any]) -> None:
    """The last run."""
    show_facts({name: value for name, value in found.items() if not isinstance(value, dict | list)})
    for name in ("verdicts", "ended", "engine"):
        if found.get(name):
            tell(f"{name}:")
            show_facts(found[name])


def show_trust(root: Path, values: Mapping[str, Any], record: Path) -> None:
    """What `trust` let in."""
    show_facts(values)
    tell(f"these settings of {root} count now, until its {FILE_NAME} changes; to take that back, delete {record}")


def show_facts(found: Mapping[str, Any]) -> None:
    """Names and values."""
    table = _table("", "", "")
    for name, value in found.items():
        _row(table, name.replace("_", " "), _short(value))
    _print(table)


def show_doctor(found: Sequence[tuple[str, bool, str]]) -> None:
    """What is well and what is not."""
    for what, well, fact in found:
        tell(f"{'ok     ' if well else 'MISSING'} {what}: {fact}")
