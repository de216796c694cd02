"""What a command does when its runs have ended: metrics in a file, and the user's own command with the report.

Neither changes the exit code: the work is done, whoever hears of it.  Both come from the user's own settings only.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rotary_batch.commands import prometheus
from rotary_batch.commands.run_report import RunReport
from rotary_batch.log import event
from rotary_batch.window import Window
from rotary_batch.work.runs import last_success
from rotary_batch.work.store import WorkStore

TIMEOUT_S = 60.0  # of the user's command


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where the end of a command is told; `say` gets what went wrong with that, and nothing else comes of it."""

    prometheus: Path | None = None
    on_finish: str | None = None
    say: Callable[[str], None] = lambda _text: None
    _ended: list[RunReport] = field(default_factory=list)

    def tell(self, store: WorkStore, reports: Sequence[RunReport]) -> None:
        """Write the metrics of the runs of a command, and keep their reports for the user's command."""
        self._ended.extend(reports)
        if self.prometheus is not None:
            try:
                prometheus.write(self.prometheus, prometheus.text(reports, last_success(store)))
            except Exception as error:  # noqa: BLE001 - the database or the disk may be what ended the run
                self._failed(f"--prometheus: {self.prometheus}: {getattr(error, 'strerror', None) or error}")

    @contextmanager
    def telling(self, window: Window) -> Iterator[None]:
        """However the block ends, which has the lock of the database, the user's command runs after it."""
        try:
            yield
        finally:
            with window.finishing(""):
                self._run_command()

    def _run_command(self) -> None:
        for report in self._ended if self.on_finish is not None else ():
            if why := _run(shlex.split(self.on_finish or ""), report.as_json()):
                self._failed(f"--on-finish: {self.on_finish}: {why}; the run itself is not changed by that")

    def _failed(self, why: str) -> None:
        event("not told", why=why)
        self.say(why)


def _run(argv: Sequence[str], report: str) -> str | None:
    """Run a command, without a shell, with a report on stdin; returns what went wrong.

    What it prints goes to stderr: stdout may be read by a program.  It gets a session of its own, so that a Ctrl-C in
    the terminal does not end it, and is ended with all that it started when its time is over.
    """
    try:
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, start_new_session=True)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    try:
        child.communicate(report + "\n", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"ended after {TIMEOUT_S:.0f} s, which is the most it may take"
    finally:
        _end(child)
    if child.returncode < 0:
        return f"ended by signal {-child.returncode}"
    return f"exit code {child.returncode}" if child.returncode else None


def _end(child: subprocess.Popen[str]) -> None:
    """End a command that goes on, and what it started."""
    if child.poll() is None:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
