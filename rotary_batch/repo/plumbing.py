"""Run git on an untrusted repository.

Every call has the same environment, the same options, no shell, no network and a time limit.  What the caller's
environment says of another repository (`GIT_DIR` in a hook) does not reach git, and no program that a repository's own
config names is run: no monitor, hook, filter or transport.

Ctrl-C in a terminal reaches a whole process group, so git has a session of its own and ends when we end it.  When a
signal ends git all the same, the result is unknown: neither "no" nor "damaged".
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rotary_batch.errors import RepositoryError, RotaryError, StoppedError, UnavailableError

TIMEOUT_S = 120.0  # without a byte of output; a pipe in the place of a file would stop git for ever
_OPTIONS = (
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.quotePath=false",
    "-c",
    "protocol.allow=never",
)
# Which settings are the user's own, and which repositories the user trusts: a repository cannot set these.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")
_BLOCK_NBYTES = 1 << 16
_STOPPING = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}  # sent to end the run, as by systemd to all its processes


def clean_environment() -> dict[str, str]:
    """The environment of every git process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return own | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",  # git before 2.45 knows no GIT_NO_LAZY_FETCH, and a config may allow a transport
    }


def run_git(root: Path, *arguments: str, stdin: bytes = b"", check: bool = True) -> bytes:
    """Run one plumbing command.  Raises RepositoryError with git's own words, StoppedError when git was stopped."""
    try:
        done = subprocess.run(
            _command(root, arguments),
            input=stdin,
            capture_output=True,
            env=clean_environment(),
            timeout=TIMEOUT_S,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise _not_installed() from error
    except subprocess.TimeoutExpired as error:
        raise _silent(root, arguments) from error
    if done.returncode < 0:
        raise _ended(root, -done.returncode)
    if check and done.returncode:
        raise _explained(root, done.stderr)
    return done.stdout


def git_records(root: Path, *arguments: str) -> Iterator[bytes]:
    """What a command prints, cut at its zero bytes, without holding all of it.  Raises RepositoryError."""
    with tempfile.TemporaryFile() as errors, GitProcess(root, *arguments, stderr=errors.fileno()) as process:
        rest = b""
        while block := process.read_some():
            *records, rest = (rest + block).split(b"\0")
            yield from records
        if process.wait():
            errors.seek(0)
            raise _explained(root, errors.read(10_000))
        if rest:  # behind the last zero byte
            yield rest


class GitProcess:
    """A git process that answers requests; leaving the `with` ends it."""

    def __init__(self, root: Path, *arguments: str, stderr: int = subprocess.DEVNULL) -> None:
        self._root = root
        self._arguments = arguments
        try:
            self._process = subprocess.Popen(
                _command(root, arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=clean_environment(),
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise _not_installed() from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._buffer = bytearray()

    def __enter__(self) -> GitProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()

    def write(self, data: bytes) -> None:
        """Send a short request; if git has ended, reading the answer says so."""
        with suppress(BrokenPipeError):
            self._input.write(data)

    def end_input(self) -> None:
        """Say that no request follows."""
        self._input.close()

    def wait(self) -> int:
        """The exit code of a process whose output has ended.

        Raises RepositoryError when it does not end or a signal ended it, StoppedError when that was meant to stop us.
        """
        try:
            code = self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise _silent(self._root, self._arguments) from error
        if code < 0:
            raise _ended(self._root, -code)
        return code

    def read_some(self) -> bytes:
        """The next bytes; empty at the end.  Raises as `wait` does, and RepositoryError when nothing comes."""
        if not select.select([self._output], [], [], TIMEOUT_S)[0]:
            raise _silent(self._root, self._arguments)
        block = os.read(self._output.fileno(), _BLOCK_NBYTES)
        if not block:
            self.wait()
        return block

    def read_line(self) -> bytes:
        """The next line without its line end; at the end of the output, the rest."""
        while (end := self._buffer.find(b"\n")) < 0:
            if not (block := self.read_some()):
                end = len(self._buffer)
                break
            self._buffer += block
        return self._take(end + 1).rstrip(b"\n")

    def read_exactly(self, nbytes: int) -> bytes | None:
        """Exactly `nbytes` bytes; None when the output ended before."""
        while len(self._buffer) < nbytes:
            if not (block := self.read_some()):
                return None
            self._buffer += block
        return self._take(nbytes)

    def _take(self, nbytes: int) -> bytes:
        taken = bytes(self._buffer[:nbytes])
        del self._buffer[:nbytes]
        return taken


def _command(root: Path, arguments: Sequence[str]) -> list[str]:
    return ["git", *_OPTIONS, "-C", str(root), *arguments]


def _not_installed() -> UnavailableError:
    return UnavailableError("git is not installed; install it to read git repositories")


def _silent(root: Path, arguments: Sequence[str]) -> RepositoryError:
    return RepositoryError(f"{root}: `git {arguments[0]}` gave no answer in {TIMEOUT_S:.0f} s; look for a pipe")


def _ended(root: Path, number: int) -> RotaryError:
    words = f"{root}: git was ended by signal {number} ({signal.strsignal(number)}); run the same command again"
    return StoppedError(words) if number in _STOPPING else RepositoryError(words)


def _explained(root: Path, words: bytes) -> RepositoryError:
    text = words.decode("utf-8", "replace").strip()
    if "dubious ownership" in text:
        return RepositoryError(
            f"{root}: owned by another user, so git refuses to read it; if you trust it, run "
            f"`git config --global --add safe.directory {root}`"
        )
    return RepositoryError(f"{root}: git: {text.splitlines()[0] if text else 'failed'}")
