"""A home, a canary and a repository of a stranger; what a command did to them, how long it took and what it printed."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Files = Mapping[
    bytes, tuple[str, bytes]
]  # path -> (git's mode, content; of a link its target, of a gitlink its commit)
REGULAR, LINK, GITLINK = "100644", "120000", "160000"
MAX_SECONDS = 240  # for thousands of files on a busy machine
MAX_RSS_NBYTES = 3 * 10**9
# What a terminal obeys: an escape, a C1 control (as UTF-8), and the marks that turn the direction of text.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Bars and colours of our own, on a terminal that knows them.
_LINK = r"\x1b\]8;;(file:///[!-~]*)?\x1b\\"  # OSC 8, to a file and nothing else
_OWN = re.compile(r"\x1b\[[0-9;]*[mAKJ]|\x1b\[\?25[lh]|\x1b\[[0-9]*[GF]|" + _LINK)
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$|(`+)(?!`).+?(?<!`)\2(?!`)|<!--.*?-->", re.MULTILINE | re.DOTALL)
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_ACTIVE = re.compile(
    r"(?<!\\)<\s*/?(script|img|iframe|svg|style|object|embed|form|a|base|meta|link)\b|(?<!\\)\]\(\s*<?\s*(javascript|data|vbscript):"
    r"|(?<!\\)!\[[^\]]*\]\(\s*<?\s*(https?:)?//",
    re.IGNORECASE,
)


@dataclass
class World:
    """Everything that an attack might reach."""

    folder: Path

    def __post_init__(self) -> None:
        self.home, self.canary, self.repo = (self.folder / name for name in ("home", "canary", "repo"))
        self.tripwires = self.folder / "tripwires"
        for path in (self.home, self.canary, self.tripwires):
            path.mkdir()
        (self.home / ".bashrc").write_text("# mine\n")
        (self.canary / "precious.txt").write_text("precious\n")
        (self.canary / "secret.py").write_text('"""TOP-SECRET-WORDS"""\nPASSWORD = 1\n')
        (self.canary / "held.lock").write_text("held\n")
        self.script = self.folder / "tripwire.sh"
        self.script.write_text(f'#!/bin/sh\necho "$0 $*" >> {self.tripwires}/hit\ncat 2>/dev/null\nexit 0\n')
        self.script.chmod(0o755)

    def commit(self, files: Files) -> None:
        """A repository whose HEAD has these files, whatever their names; nothing is checked out."""
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.repo)], check=True)
        stream = b"commit refs/heads/main\ncommitter A <a@example.org> 0 +0000\ndata 1\nx\n"
        for path, (mode, data) in files.items():
            quoted = b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
            if mode == GITLINK:
                stream += b"M 160000 " + data + b" " + quoted + b"\n"
            else:
                stream += b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), quoted, len(data), data)
        subprocess.run(["git", "-C", str(self.repo), "fast-import", "--quiet"], input=stream, check=True)

    def check_out(self, files: Files) -> None:
        """Put on disk what a file system takes; git's own checkout would run the filters of its configuration."""
        for path, (mode, data) in files.items():
            target = os.fsencode(self.repo) + b"/" + path
            try:
                make_folders(os.path.dirname(target))
                if mode == LINK:
                    os.symlink(data, target)
                elif mode != GITLINK:
                    with open(target, "xb") as file:
                        file.write(data)
            except OSError:
                continue

    def snapshot(self) -> dict[bytes, tuple[object, ...]]:
        """Everything outside the docs folder and our own state: kind, mode, content."""
        ours = {os.fsencode(path) for path in (self.repo / "rotary-docs", self.home / "state", self.home / "cache")}
        return dict(_walk(os.fsencode(self.folder), ours))

    def run(self, *arguments: str, term: str = "dumb", cwd: Path | None = None, **environment: str) -> Outcome:
        """Run the command line on a terminal; answer what it printed and what it took."""
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "TERM": term,
            "COLUMNS": "200",
            **environment,
        }
        master, slave = pty.openpty()
        started = time.monotonic()
        command = [sys.executable, "-P", "-m", "rotary_batch", *arguments]
        process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=cwd or self.folder, close_fds=True
        )
        os.close(slave)
        output, status, usage = _collect(master, process, started + MAX_SECONDS)
        return Outcome(os.waitstatus_to_exitcode(status), output, time.monotonic() - started, usage * 1024)

    def pages(self) -> dict[str, str]:
        """What was written into the docs folder."""
        docs = self.repo / "rotary-docs"
        if docs.is_symlink() or not docs.is_dir():
            return {}
        found = _walk(os.fsencode(docs), set())
        pages = [Path(os.fsdecode(path)) for path, what in found if what[0] not in {"folder", "link", "special"}]
        return {str(path.relative_to(docs)): path.read_text("utf-8", "surrogateescape") for path in pages}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: bytes
    seconds: float
    rss_nbytes: int


def _collect(master: int, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, int, int]:
    parts, peak_kib = [], 0
    while True:
        if time.monotonic() > deadline:
            process.kill()
        peak_kib = max(peak_kib, _peak_kib(process.pid))
        if select.select([master], [], [], 0.1)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            parts.append(data)
        elif process.poll() is not None:
            break
    os.close(master)
    if process.returncode is not None:
        status = process.returncode << 8 if process.returncode >= 0 else -process.returncode
        return b"".join(parts), status, peak_kib
    _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return b"".join(parts), status, peak_kib


def _peak_kib(pid: int) -> int:
    """Since it became this program: what wait4 tells includes the peak of the process that started it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _walk(top: bytes, ours: set[bytes]) -> Iterable[tuple[bytes, tuple[object, ...]]]:
    """Everything below a folder.  A list, not recursion: folders may be nested deep."""
    waiting = [top]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if entry.path in ours and not entry.is_symlink():
                    continue
                if stat.S_ISDIR(info.st_mode):
                    yield entry.path, ("folder", stat.S_IMODE(info.st_mode))
                    waiting.append(entry.path)
                elif stat.S_ISLNK(info.st_mode):
                    yield entry.path, ("link", os.readlink(entry.path))
                elif stat.S_ISREG(info.st_mode):
                    with open(entry.path, "rb") as file:
                        yield entry.path, (hashlib.file_digest(file, "sha256").hexdigest(), stat.S_IMODE(info.st_mode))
                else:
                    yield entry.path, ("special", info.st_mode)


def check(world: World, before: Mapping[bytes, tuple[object, ...]], outcome: Outcome) -> list[str]:
    """Every promise that the command broke."""
    after = world.snapshot()
    broken = [
        f"changed outside the docs: {path!r}"
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    ]
    if hits := list(world.tripwires.iterdir()):
        broken.append(f"ran a stranger's program: {hits[0].read_text()[:200]}")
    text = _OWN.sub("", outcome.output.decode("utf-8", "surrogateescape"))
    if found := _CONTROLS.search(text.replace("\r", "").replace("\n", "")):
        place = max(0, found.start() - 40)
        broken.append(f"on the terminal: {text.replace(chr(13), '').replace(chr(10), '')[place : place + 80]!r}")
    if "Traceback" in text:
        broken.append(f"traceback: {text[text.index('Traceback') :][:3000]}")
    if outcome.code not in {0, 2, 3, 4, 5, 74, 75}:
        broken.append(f"exit code {outcome.code}: {text[-500:]}")
    if outcome.seconds > MAX_SECONDS or outcome.rss_nbytes > MAX_RSS_NBYTES:
        broken.append(f"took {outcome.seconds:.0f} s and {outcome.rss_nbytes:,} bytes")
    for name, page in world.pages().items():
        broken += [f"{name}: {fact}" for fact in _page_faults(name, page)]
    return broken


def _page_faults(name: str, page: str) -> Iterable[str]:
    if found := _CONTROLS.search(page):
        yield f"control character {found[0]!r} near {page[max(0, found.start() - 40) : found.start() + 20]!r}"
    if "TOP-SECRET-WORDS" in page:
        yield "shows a file outside the repository"
    prose = _CODE.sub("", _FRONT.sub("", page))  # front matter is data, each value a quoted text
    is_text = name.endswith((".md", ".txt"))  # mkdocs.yml names files as they are called, as data
    if is_text and (found := _ACTIVE.search(prose)):
        yield f"active content {prose[max(0, found.start() - 30) : found.end() + 40]!r}"


def make_folders(path: bytes) -> None:
    """As `os.makedirs`, which calls itself for each of 1,000 nested folders."""
    names = path.split(b"/")
    for depth in range(2, len(names) + 1):
        folder = b"/".join(names[:depth])
        if not os.path.isdir(folder):
            os.mkdir(folder)
