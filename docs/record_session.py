"""Record docs/session.cast (asciicast 2), and show it in docs/first-night.md: the program in a real pseudo-terminal.

pip install pyte; python docs/record_session.py --home /home/you --clone REPOSITORY PACKAGE
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
CAST, PAGE = DOCS / "session.cast", DOCS / "first-night.md"
URL = "https://git.example.org/rotary-batch"
PAGE_SHOWN = "src/click/_termui_impl.py.md"
COLUMNS, ROWS = 100, 30
PROMPT_MARK = b"\x1b]133;A\x1b\\"  # where a prompt begins; terminals show nothing
REDRAW = b"\r\x1b[2K"  # the bar is drawn over the one before
KEPT_EVERY_S, LONGEST_GAP_S = 5.0, 1.0  # of a bar; of silence


class Step(NamedTuple):
    """A command; with `until`, Ctrl-C as soon as the output has it."""

    name: str
    command: str
    until: bytes = b""


class Event(NamedTuple):
    """What the terminal got at a time, in seconds since the start."""

    at_s: float
    data: bytes


def steps(package: str) -> list[Step]:
    """The session.  The names are those of the blocks in the page."""
    source = f"~/src/{package}"
    return [
        Step("clone", f"git clone {URL} && cd rotary-batch"),
        Step("run", f"make run REPO={source}", b"The first page with text"),
        Step("activate", ". .venv/bin/activate"),
        Step("status", "rotary-batch status"),
        Step("again", f"rotary-batch run {source} --until 07:00"),
        Step("report", "rotary-batch report"),
        Step("page", f"sed -n '/^## .*render_progress/,/^Lines/p' {source}/rotary-docs/{PAGE_SHOWN} | cut -c -99"),
        Step("check", f"rotary-batch check {source}"),
        Step("nothing", f"rotary-batch run {source}"),
        Step("timer", "tail -n 1 deploy/crontab.example"),
    ]


class Terminal:
    """A shell in a terminal, and all that it printed."""

    def __init__(self, home: Path) -> None:
        self.events: list[Event] = []
        self._start_s = time.monotonic()
        self._child, self._ours = pty.fork()
        if not self._child:
            os.chdir(home)
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile"], _environment(home))
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._read_to(PROMPT_MARK, 0)

    def run(self, step: Step) -> tuple[int, int, int]:
        """Type the command, and Ctrl-C when it is time.  Positions in `events`: the start, Ctrl-C, the end."""
        start = len(self.events)
        os.write(self._ours, step.command.encode() + b"\n")
        pressed = start
        if step.until:
            self._read_to(step.until, start)
            self._read_to(REDRAW, len(self.events))  # the bar below that line
            time.sleep(3)
            self._read()
            pressed = len(self.events)
            os.write(self._ours, b"\x03")
        self._read_to(PROMPT_MARK, start)
        return start, pressed, len(self.events)

    def close(self) -> None:
        """End the shell."""
        os.write(self._ours, b"exit\n")
        os.waitpid(self._child, 0)
        os.close(self._ours)

    def _read_to(self, text: bytes, start: int) -> None:
        while text not in b"".join(event.data for event in self.events[start:]):
            self._read()

    def _read(self) -> None:
        """What comes within a moment is one event, so that a redrawn bar is not torn."""
        select.select([self._ours], [], [])
        data = b""
        while select.select([self._ours], [], [], 0.02)[0]:
            data += os.read(self._ours, 65536)
        self.events.append(Event(time.monotonic() - self._start_s, data))


def _environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PS1": "$ ",
        "PROMPT_COMMAND": r"printf '\e]133;A\e\\'",
        "PIP_QUIET": "2",
        "VIRTUAL_ENV_DISABLE_PROMPT": "1",
    }


def prepare(home: Path, clone: Path, package: Path) -> None:
    """A home folder with the package in a repository, where the URL leads to the clone."""
    home.mkdir()
    (home / ".inputrc").write_text("set enable-bracketed-paste off\n")
    user = "[user]\nname = You\nemail = you@example.org\n[init]\ndefaultBranch = main\n"
    (home / ".gitconfig").write_text(f'{user}[url "{clone}"]\ninsteadOf = {URL}\n')
    source = home / "src" / package.name
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(package, source / "src" / package.name, ignore=ignored)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", package.name)):
        subprocess.run(["git", *command], cwd=source, env=_environment(home), check=True)


def shortened(events: Sequence[Event]) -> Iterator[Event]:
    """Without most of the redrawn bars, and without long waits."""
    now_s = last_s = kept_s = 0.0
    for event, following in zip(events, [*events[1:], Event(0, b"")], strict=True):
        if all(is_redraw(each.data) for each in (event, following)) and event.at_s - kept_s < KEPT_EVERY_S:
            continue
        kept_s = event.at_s
        now_s, last_s = now_s + min(event.at_s - last_s, LONGEST_GAP_S), event.at_s
        yield Event(now_s, event.data.replace(PROMPT_MARK, b""))


def is_redraw(data: bytes) -> bool:
    """Whether this does nothing but to draw the bar again."""
    return data.startswith(REDRAW) and b"\n" not in data


def lines_of(events: Sequence[Event]) -> list[str]:
    """What a terminal shows in the end, if it is so wide and high that it breaks no line and scrolls none away."""
    import pyte

    screen = pyte.Screen(300, 500)
    stream = pyte.ByteStream(screen)
    for event in events:
        stream.feed(event.data.replace(PROMPT_MARK, b""))
    return "\n".join(line.rstrip() for line in screen.display).strip().splitlines()


def write_cast(events: Sequence[Event]) -> None:
    """asciicast 2: a header, and a line of JSON for each event."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "From clone to pages"}
    rows = [[round(event.at_s, 2), "o", event.data.decode(errors="replace")] for event in events]
    CAST.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (header, *rows)), encoding="utf-8")


def write_page(blocks: dict[str, str]) -> None:
    """Each block of the page is what its comment names."""
    text = PAGE.read_text(encoding="utf-8")
    for name, block in blocks.items():
        fence = "````" if "```" in block else "```"
        before, begin, rest = text.partition(f"<!-- session: {name} -->\n{fence}text\n")
        text = "".join((before, begin, block, "\n", rest[rest.index(f"{fence}\n") :]))
    PAGE.write_text(text, encoding="utf-8")


def record(home: Path, package: str) -> tuple[list[Event], dict[str, str]]:
    """All events, and the text of every block."""
    terminal, blocks = Terminal(home), {}
    for step in steps(package):
        start, pressed, end = terminal.run(step)
        first = [line for line in lines_of(terminal.events[start:pressed]) if line != "$"]
        whole = [line for line in lines_of(terminal.events[start:end]) if line != "$"]
        if step.until:
            blocks[step.name] = "\n".join(["$ " + first[0], *first[1:]])
            same = next((i for i, pair in enumerate(zip(first, whole, strict=False)) if pair[0] != pair[1]), len(whole))
            blocks[f"{step.name}-end"] = "\n".join(whole[same:])
        else:
            blocks[step.name] = "\n".join(["$ " + whole[0], *whole[1:]])
    terminal.close()
    return terminal.events, blocks


def main() -> None:
    """Prepare, record, shorten, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--home", type=Path, required=True, help="a folder to be made")
    parser.add_argument("--clone", type=Path, required=True, help="the repository that is cloned")
    options = parser.parse_args()
    prepare(options.home, options.clone.resolve(), options.package)
    events, blocks = record(options.home, options.package.name)
    kept = list(shortened(events))
    assert lines_of(kept) == lines_of(events)
    write_cast(kept)
    write_page(blocks)


if __name__ == "__main__":
    main()
