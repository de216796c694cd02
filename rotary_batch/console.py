"""Lines, tables and progress; the only module that imports rich, and only when it prints.

Names and texts of repositories reach this module, so all text passes `terminal.shown`.  The answer of a command goes to
stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rotary_batch.interrupts import kept_from_new_threads
from rotary_batch.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

MIN_COLUMNS = 20  # narrower terminals break lines themselves
_quiet = False


def be_quiet(*, wanted: bool) -> None:
    """With `--quiet`, notes are not printed."""
    global _quiet  # noqa: PLW0603 - as the streams, one for the process
    _quiet = wanted


def info(text: str) -> None:
    """Print a line to stderr, but not with `--quiet`."""
    if not _quiet:
        err(text)


def note(text: str) -> None:
    """Print a note to stderr, but not with `--quiet`."""
    info(f"note: {text}")


_live: list[Console] = []  # that with the line that changes in place, while there is one


def out(text: str) -> None:
    """Print a line to stdout."""
    print(shown(text))  # noqa: T201 - this is the printer


def err(text: str) -> None:
    """Print a line to stderr.  A full disk or a closed pipe must not end a run, so that is ignored."""
    with suppress(OSError):
        if _live:
            _live[-1].print(shown(text), markup=False, highlight=False, soft_wrap=True)
            return
        print(shown(text), file=sys.stderr, flush=True)  # noqa: T201 - this is the printer


def clear() -> None:
    """Empty the terminal of stdout."""
    print("\x1b[H\x1b[J", end="", flush=True)  # noqa: T201 - this is the printer


def paragraph(text: str, indent: str = "", *, to_stderr: bool = False) -> None:
    """Print one line to stdout or stderr.  On a terminal it is broken between words, not within a short `command`."""
    line, stream = indent + shown(text).replace("\n", "\\n"), sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        line = _broken(line, max(MIN_COLUMNS, shutil.get_terminal_size().columns), indent)
    with suppress(OSError) if to_stderr else nullcontext():
        print(line, file=stream)


def _broken(line: str, width: int, indent: str) -> str:
    glued = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0") if len(found[0]) < width else found[0], line)
    further = f"{indent}  " if indent else ""
    lines = textwrap.wrap(glued, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=further)
    return "\n".join(lines).replace("\0", " ")


def paths(label: str, targets: Sequence[Path], below: Path | None = None) -> None:
    """Print paths on one line of stdout, as seen from `below`; in a terminal that can, each is a link (OSC 8)."""
    print(label + ", ".join(_link(path, below) for path in targets))  # noqa: T201 - this is the printer


def _link(path: Path, below: Path | None) -> str:
    """The escaped path; the target is an absolute path with everything else percent-encoded."""
    named = path.relative_to(below) if below is not None and path.is_relative_to(below) else path
    text = shown(str(named)).replace("\n", "\\n")
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return f"\033]8;;{path.absolute().as_uri()}\033\\{text}\033]8;;\033\\"


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """End the block quietly when the reader of stdout has closed the pipe (`| head`)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit raises again


class Table:
    """A table with the first column on the left and all others on the right."""

    def __init__(self, title: str, *columns: str) -> None:
        from rich.table import Table as RichTable
        from rich.text import Text

        # A plain string would be read as markup, in which a folder called `[link=...]` is a link.
        heading = Text(shown(title), style="bold") if title else None
        self._table = RichTable(title=heading, title_justify="left", header_style="dim", box=None, pad_edge=False)
        for position, name in enumerate(columns):
            self._table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")

    def row(self, *cells: object) -> None:
        """Add a row; whole numbers get thousands separators."""
        from rich.text import Text

        self._table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else shown(str(cell))) for cell in cells))

    def print(self, *, to_stderr: bool = False) -> None:
        """Print the table to stdout, or to stderr."""
        from rich.console import Console

        Console(stderr=to_stderr, highlight=False).print(self._table)


_STYLES = {"ok": "green", "note": "yellow", "error": "bold red"}


def checklist(rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Print checks: (ok, note or error; what; the fact; what to do)."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, what, fact, advice in rows:
        lines = Text(shown(fact))
        if advice:
            lines.append(f"\n-> {shown(advice)}", style=_STYLES[mark])
        grid.add_row(Text(mark, style=_STYLES[mark]), Text(shown(what), style="bold"), lines)
    Console(highlight=False).print(grid)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one a line.  A long value is not broken, so that it can be copied."""
    rows = {
        name.replace("_", " ").replace("nbytes", "bytes"): _time(value) if name.endswith("_at") else _readable(value)
        for name, value in facts.items()
    }
    column = max(map(len, rows), default=0)
    for name, text in rows.items():
        out(f"{name:{column}}  {text}")


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%a %d %b %Y %H:%M}"


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " to ".join(_readable(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_readable(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def nbytes(count: int) -> str:
    """`1.5 GB`, or `512 MB` below one."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


def time_left(seconds: float) -> str:
    """`6 min left`, rounded up; `1 h 05 min left` from an hour on."""
    minutes = ceil(seconds / 60)
    if minutes <= 1:
        return "1 min left" if seconds > 30 else "under 1 min left"
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min left"


class BarLine(NamedTuple):
    """One line: text, a bar, text."""

    before: str
    share: float | None  # None = no bar can tell; it only moves
    after: str


def has_live_terminal() -> bool:
    """Whether stderr is a terminal on which a line can change in place."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def live_line(line_for: Callable[[int], BarLine]) -> Iterator[Callable[[], None]]:
    """The lowest line of the terminal changes in place until the block ends.  `line_for` gets the width in columns.

    Yields a function that draws it now.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    live = Live(_live_bar(line_for), console=console, refresh_per_second=4, transient=True, redirect_stdout=False)
    with kept_from_new_threads():
        live.start(refresh=True)
    _live.append(console)
    try:
        yield live.refresh
    finally:
        _live.clear()
        live.stop()


def _live_bar(line_for: Callable[[int], BarLine]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    class Bar:
        """Rendered anew at every refresh, in the width that the terminal has then."""

        def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
            # Some terminals wrap when the last column is written, and on Ctrl-C they write `^C` behind the bar.
            width = options.max_width - 3
            line = line_for(width)
            before, after = Text(shown(line.before), end="", no_wrap=True), Text(shown(line.after), end="")
            room = width - before.cell_len - after.cell_len - 2
            if room < 0:
                before.append(f" {after.plain}")
                before.truncate(width)
                yield before
                return
            yield before
            yield Text(" ", end="")
            if room:
                share, pulse = line.share or 0.0, line.share is None
                yield ProgressBar(
                    1.0,
                    share,
                    width=room,
                    style="bright_black",
                    pulse=pulse,
                    complete_style="green",
                    finished_style="green",
                    pulse_style="green",
                )
            yield Text(" ", end="")
            yield after

    return Bar()
