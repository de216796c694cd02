"""Parse files in worker processes that can be killed.

A grammar can hang without calling back, and parsing holds the GIL, so a wall-clock limit on a process of its
own is the only guard; a memory limit holds inside it.  A file whose worker dies is cut at lines, and says why.
One repository can waste so much time and no more: the limit of a file shrinks with what is left of it.

Ctrl-C and systemd's SIGTERM reach the workers too.  They have both blocked: who started them decides when they end.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rotary_batch.core import ParsedFile, SourceFile
from rotary_batch.errors import UnavailableError
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.repo.chunks import CountTokens, chunks, cut
from rotary_batch.repo.symbols import extract, parse

TIMEOUT_S = 20.0  # of one file
WASTE_S = 600.0  # of all files of a repository that are not parsed in the end
WORKER_MEMORY_NBYTES = 3 * 10**9
START_TIMEOUT_S = 120.0
_ALONE_S = 200  # after which a worker ends itself: who started it would have killed it after TIMEOUT_S, so is gone
STARTS = 3  # of one worker in a row, before there is something wrong with the machine
AHEAD_NBYTES = 4 * 10**6  # of sources that are parsed, while one before them is not
Unparsed = tuple[SourceFile, bytes]
ParseOne = Callable[[SourceFile, bytes, int, CountTokens], ParsedFile]


def parse_file(file: SourceFile, source: bytes, budget_tokens: int, count_tokens: CountTokens) -> ParsedFile:
    """Symbols, references and chunks of one source file."""
    assert file.language is not None, f"{file.path} has no language"
    tree = parse(file.language, source)
    found = extract(file.language, source, file.path, tree)
    pieces = cut(source, tree, budget_tokens, count_tokens)
    return ParsedFile(
        file=file,
        docstring=found.docstring,
        symbols=found.symbols,
        references=found.references,
        chunks=chunks(file, source, pieces, found.symbols, found.imports),
        fallback=None,
    )


def cut_at_lines(
    file: SourceFile, source: bytes, budget_tokens: int, count_tokens: CountTokens, reason: str
) -> ParsedFile:
    """What is left of a file that cannot be parsed."""
    pieces = cut(source, None, budget_tokens, count_tokens)
    return ParsedFile(
        file=file,
        docstring=None,
        symbols=(),
        references=(),
        chunks=chunks(file, source, pieces, (), ()),
        fallback=reason,
    )


def parse_files(
    files: Iterable[Unparsed],
    *,
    tokenizer_dir: Path,
    budget_tokens: int,
    num_workers: int = 2,
    timeout_s: float = TIMEOUT_S,
    parse_one: ParseOne = parse_file,
) -> Generator[ParsedFile, None, None]:
    """Parse every file, in the order given; nothing a file holds can stop the others."""
    count_tokens = Tokenizer.load(tokenizer_dir).count
    patience = _Patience(timeout_s)
    workers = [_Worker(tokenizer_dir, budget_tokens, parse_one, patience) for _ in range(num_workers)]
    waiting, running, done = iter(files), deque[_Task](), dict[int, _Task]()
    number = given = 0
    try:
        while True:
            for worker in [w for w in workers if w.task is None]:
                ahead = sum(len(task.file[1]) for task in done.values())
                if ahead < AHEAD_NBYTES and (file := next(waiting, None)) is not None:
                    running.append(worker.start(_Task(given, file)))
                    given += 1
            if not running:
                return
            for task in _settled(workers, running, patience):
                running.remove(task)
                if task.parsed is None:
                    task.parsed = cut_at_lines(*task.file, budget_tokens, count_tokens, task.reason)
                done[task.number] = task
            while number in done:
                if (parsed := done.pop(number).parsed) is not None:
                    yield parsed
                number += 1
    finally:
        for worker in workers:
            worker.stop()


class _Patience:
    """How long a file may take: an eighth of the time that files without a result may still waste, at most."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._left_s = WASTE_S

    @property
    def limit_s(self) -> float:
        """0 when nothing is left worth a try."""
        limit = min(self._timeout_s, self._left_s / 8)
        return limit if limit >= min(self._timeout_s, 1.0) else 0.0

    def waste(self, seconds: float) -> None:
        """Count time that gave no result."""
        self._left_s -= seconds


@dataclass(eq=False)
class _Task:
    number: int
    file: Unparsed
    started: float = 0.0
    deadline: float = 0.0
    parsed: ParsedFile | None = None
    reason: str = ""  # why there is no result


def _settled(workers: list[_Worker], running: Iterable[_Task], patience: _Patience) -> list[_Task]:
    """Wait until at least one task has an answer, or lost its worker."""
    if refused := [task for task in running if task.reason]:
        return refused
    busy = [worker for worker in workers if worker.task is not None]
    first = min(task.deadline for task in running)
    ready = wait([worker.connection for worker in busy], timeout=max(0.0, first - time.monotonic()))
    found = []
    for worker in busy:
        task = worker.task
        assert task is not None
        if worker.connection in ready:
            task.parsed, task.reason = worker.take()
        elif time.monotonic() >= task.deadline:
            task.reason = "parsing took too long"
            worker.restart()
        if task.reason:
            patience.waste(time.monotonic() - task.started)
        if task.reason or task.parsed is not None:
            found.append(task)
    return found


class _Worker:
    """One process; started when it gets its first file."""

    def __init__(self, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne, patience: _Patience) -> None:
        self._arguments = (tokenizer_dir, budget_tokens, parse_one)
        self._patience = patience
        self._process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection
        self.task: _Task | None = None
        self._was_killed = False

    def start(self, task: _Task) -> _Task:
        """Give it a file; refuse the file when too much time was wasted on others."""
        if not self._patience.limit_s:
            task.reason = "not parsed, since parsing other files of this repository took too long without a result"
            return task
        for _ in range(STARTS):
            if self._process is None and not self._began():
                continue
            try:
                self.connection.send(task.file)
            except OSError:  # killed while it had nothing to do, as by a system that is out of memory
                self.stop()
                continue
            task.started = time.monotonic()
            task.deadline = task.started + self._patience.limit_s
            self.task = task
            return task
        raise UnavailableError("the parser processes end before they begin; is there too little memory?")

    def _began(self) -> bool:
        """Start a process; the clock of its first file starts when it says that it is there."""
        began = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        with _signals_blocked():
            self._process.start()
        theirs.close()
        try:
            if self.connection.poll(START_TIMEOUT_S):
                self.connection.recv()
                return True
        except (EOFError, OSError):
            pass
        finally:
            if self._was_killed:
                self._patience.waste(time.monotonic() - began)
        self.stop()
        return False

    def take(self) -> tuple[ParsedFile | None, str]:
        """The answer, or why there is none."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.restart()
            return None, "the parser crashed"
        self.task = None
        return (answer, "") if isinstance(answer, ParsedFile) else (None, str(answer))

    def restart(self) -> None:
        """Kill the process; the next file gets a new one."""
        self.stop()
        self.task = None
        self._was_killed = True

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started here has SIGINT and SIGTERM blocked for all its life; here they wait until it is started."""
    resource_tracker.ensure_running()  # `start` would do so, and unblock both when it has
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne) -> None:
    """A worker's whole life: files in, parsed files or the reason of a failure out."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # `ulimit -v` may allow less
    most = WORKER_MEMORY_NBYTES if hard == resource.RLIM_INFINITY else min(WORKER_MEMORY_NBYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    count_tokens = Tokenizer.load(tokenizer_dir).count
    with suppress(ConnectionError, EOFError):  # who asks is gone
        connection.send("started")
        while True:
            file, source = connection.recv()
            signal.alarm(_ALONE_S)
            try:
                answer: ParsedFile | str = parse_one(file, source, budget_tokens, count_tokens)
            except MemoryError:
                answer = "parsing took too much memory"
            except RecursionError:
                answer = "nested too deep to parse"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is of this file, and the others go on
                answer = f"the parser failed with {type(error).__name__}"
            signal.alarm(0)
            connection.send(answer)
