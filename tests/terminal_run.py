"""The program in a real pseudo-terminal: what it prints, how wide its lines are, and Ctrl-C at the keyboard."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

CTRL_C = b"\x03"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_LINE_BREAK = re.compile(r"[\r\n]+|\x1b\[[0-9]*[AK]")  # a new line, or back to the start of this one


class TerminalRun:
    """A command whose standard streams are a terminal of `columns` columns."""

    def __init__(self, *arguments: object, columns: int, cwd: Path | None = None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rotary_batch", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads; Ctrl-C needs it
        )
        os.close(theirs)
        self.output = b""

    def read_until(self, text: str, timeout_s: float = 120) -> None:
        """Read until the output has this text."""
        deadline = time.monotonic() + timeout_s
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            assert self._read(), f"ended without {text!r}: {self.text!r}"

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._ours, key)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)

    def end(self, timeout_s: float = 120) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < deadline, self.text
        os.close(self._ours)
        return self.process.wait(timeout_s)

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the last process with this terminal has ended
            return False
        self.output += data
        return bool(data)

    @property
    def text(self) -> str:
        """All that was printed, without colours."""
        return _CONTROL.sub("", self.output.decode(errors="replace"))

    @property
    def lines(self) -> list[str]:
        """Every line that was ever shown, those that were replaced too."""
        plain = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]", "", self.output.decode(errors="replace"))
        return [line for line in _LINE_BREAK.split(plain) if line.strip()]
