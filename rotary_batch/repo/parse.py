"""Parse files in worker processes that can be killed.

A grammar can hang without calling back, and parsing holds the GIL.  So each file is parsed in a worker process, which
is killed on timeout and has a memory limit of its own.  A file whose worker is killed or dies is cut at
lines, and its chunks say why.  The time that one repository can waste is limited too: the limit of a file shrinks with
what is left of it.

Ctrl-C, systemd's SIGTERM and the end of a terminal reach the workers too.  They block them: the parent decides.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rotary_batch.core import ParsedFile, SourceFile
from rotary_batch.errors import UnavailableError
from rotary_batch.interrupts import kept_from_new_threads
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.repo.chunks import chunks, cut
from rotary_batch.repo.symbols import extract, parse

TIMEOUT_S = 20.0  # of one file
MAX_WASTED_S = 600.0  # spent on files of one repository that are not parsed in the end
WORKER_MEMORY_NBYTES = 3 * 10**9
START_TIMEOUT_S = 120.0
MAX_STARTS = 3  # of one worker in a row; then something is wrong with the machine
MAX_AHEAD_NBYTES = 4 * 10**6  # of files that are parsed while one before them is not
_ORPHAN_LIMIT_S = 200  # a worker that takes longer ends itself: its parent would have killed it, so it is gone
Unparsed = tuple[SourceFile, bytes]
ParseOne = Callable[[SourceFile, bytes, int, Tokenizer], ParsedFile]


def parse_file(file: SourceFile, source: bytes, budget_tokens: int, tokenizer: Tokenizer) -> ParsedFile:
    """Symbols, references and chunks of one source file."""
    assert file.language is not None, f"{file.path} has no language"
    tree = parse(file.language, source)
    extracted = extract(file.language, source, file.path, tree)
    pieces = cut(source, tree, budget_tokens, tokenizer.count_ranges(source))
    return ParsedFile(
        file=file,
        docstring=extracted.docstring,
        symbols=extracted.symbols,
        references=extracted.references,
        chunks=chunks(file, source, pieces, extracted.symbols, extracted.imports),
        fallback=None,
        imports=extracted.imported,
        value_types=extracted.value_types,
    )


def cut_at_lines(file: SourceFile, source: bytes, budget_tokens: int, tokenizer: Tokenizer, reason: str) -> ParsedFile:
    """The chunks of a file that cannot be parsed, for the given reason."""
    pieces = cut(source, None, budget_tokens, tokenizer.count_ranges(source))
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
    begun: Worker | None = None,
) -> Generator[ParsedFile, None, None]:
    """Parse every file, in the order given; no file can stop the others.

    `begun` is one of the workers, of the same tokenizer and budget.
    Raises UnavailableError when worker processes cannot be started.
    """
    load_tokenizer = cache(Tokenizer.load)  # the workers have their own
    time_budget = _TimeBudget(timeout_s)
    workers = [Worker(tokenizer_dir, budget_tokens, parse_one) for _ in range(num_workers)]
    if begun is not None:
        workers[0] = begun
    for worker in workers:
        worker.time_budget = time_budget
    waiting, tasks = iter(files), deque[_Task]()  # tasks that run, or wait for one before them
    try:
        while True:
            started = _assign(workers, waiting, tasks)
            tasks += started
            if not tasks:
                return
            if not any(task.is_settled for task in started):
                _wait_for_any(workers)
            while tasks and tasks[0].is_settled:
                task = tasks.popleft()
                yield task.parsed or cut_at_lines(*task.file, budget_tokens, load_tokenizer(tokenizer_dir), task.reason)
    finally:
        for worker in workers:
            worker.stop()


class _TimeBudget:
    """How long a file may take: at most an eighth of the time that files without a result may still waste."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._left_s = MAX_WASTED_S

    @property
    def limit_s(self) -> float:
        """Of the next file; 0 when too little is left to try."""
        limit_s = min(self._timeout_s, self._left_s / 8)
        return limit_s if limit_s >= min(self._timeout_s, 1.0) else 0.0

    def charge(self, wasted_s: float) -> None:
        """Count time that gave no result."""
        self._left_s -= wasted_s


@dataclass(eq=False)
class _Task:
    """One file: running until it is parsed or has a reason why not."""

    file: Unparsed
    started: float = 0.0
    deadline: float = 0.0
    parsed: ParsedFile | None = None
    reason: str = ""

    @property
    def is_settled(self) -> bool:
        return self.parsed is not None or bool(self.reason)


def _assign(workers: Sequence[Worker], waiting: Iterator[Unparsed], tasks: Iterable[_Task]) -> list[_Task]:
    """Give idle workers the next files, unless too much is parsed already; the new tasks, in order."""
    ahead_nbytes = sum(len(task.file[1]) for task in tasks if task.is_settled)
    if ahead_nbytes >= MAX_AHEAD_NBYTES:
        return []
    idle = [worker for worker in workers if worker.task is None]
    return [worker.start(_Task(file)) for worker, file in zip(idle, waiting, strict=False)]


def _wait_for_any(workers: Iterable[Worker]) -> None:
    """Wait until at least one task is settled: its worker answers, dies or runs out of time."""
    busy = [(worker, worker.task) for worker in workers if worker.task is not None]
    timeout_s = max(0.0, min(task.deadline for _, task in busy) - time.monotonic())
    ready = wait([worker.connection for worker, _ in busy], timeout=timeout_s)
    for worker, task in busy:
        if worker.connection in ready:
            worker.receive(task)
        elif time.monotonic() >= task.deadline:
            worker.give_up(task, "parsing took too long")


class Worker:
    """One process, started when it gets its first file, or when it is told to begin."""

    def __init__(self, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne = parse_file) -> None:
        self._arguments = (tokenizer_dir, budget_tokens, parse_one)
        self.time_budget = _TimeBudget(TIMEOUT_S)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._is_ready = False
        self.connection: Connection
        self.task: _Task | None = None
        self._was_killed = False

    def start(self, task: _Task) -> _Task:
        """Send a file to the process; refuse it when too much time was wasted on others."""
        if not self.time_budget.limit_s:
            task.reason = "not parsed, since parsing other files of this repository took too long without a result"
            return task
        for _ in range(MAX_STARTS):
            if not self._is_ready and not self._start_process():
                continue
            try:
                self.connection.send(task.file)
            except OSError:  # the idle process was killed, as by a system that is out of memory
                self.stop()
                continue
            task.started = time.monotonic()
            task.deadline = task.started + self.time_budget.limit_s
            self.task = task
            return task
        raise UnavailableError("the parser processes end before they begin; is there too little memory?")

    def begin(self) -> None:
        """Start the process and do not wait for it: what it imports takes 0.4 s."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        resource_tracker.ensure_running()  # `start` would do so, and unblock signals when it has
        with kept_from_new_threads():
            process.start()
        self._process = process
        theirs.close()

    def _start_process(self) -> bool:
        """Start a process and wait until it is ready, so that its start does not count for its first file."""
        started = time.monotonic()
        if self._process is None:
            self.begin()
        try:
            if self.connection.poll(START_TIMEOUT_S):
                self.connection.recv()
                self._is_ready = True
                return True
        except (EOFError, OSError):
            pass
        finally:
            if self._was_killed:
                self.time_budget.charge(time.monotonic() - started)
        self.stop()
        return False

    def receive(self, task: _Task) -> None:
        """Settle a task with the answer of the process, or with the fact that it died."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.give_up(task, "the parser crashed")
            return
        self.task = None
        if isinstance(answer, ParsedFile):
            task.parsed = answer
        else:
            self._settle_without_result(task, str(answer))

    def give_up(self, task: _Task, reason: str) -> None:
        """Settle a task without a result and kill the process; the next file gets a new one."""
        self.stop()
        self.task = None
        self._was_killed = True
        self._settle_without_result(task, reason)

    def _settle_without_result(self, task: _Task, reason: str) -> None:
        task.reason = reason
        self.time_budget.charge(time.monotonic() - task.started)

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process, self._is_ready = None, False


def _work(connection: Connection, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne) -> None:
    """The main loop of a worker: receives files, sends parsed files or the reason of a failure."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # `ulimit -v` may allow less
    most = WORKER_MEMORY_NBYTES if hard == resource.RLIM_INFINITY else min(WORKER_MEMORY_NBYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    tokenizer = Tokenizer.load(tokenizer_dir)
    with suppress(ConnectionError, EOFError):  # the parent is gone
        connection.send("started")
        while True:
            file, source = connection.recv()
            signal.alarm(_ORPHAN_LIMIT_S)
            try:
                answer: ParsedFile | str = parse_one(file, source, budget_tokens, tokenizer)
            except MemoryError:
                answer = "parsing took too much memory"
            except RecursionError:
                answer = "nested too deep to parse"
            except Exception as error:  # noqa: BLE001 - any failure concerns this file only
                answer = f"the parser failed with {type(error).__name__}"
            signal.alarm(0)
            connection.send(answer)
