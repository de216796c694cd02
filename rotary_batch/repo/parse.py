"""Parse files in worker processes that can be killed.

A grammar can hang without calling back, and parsing holds the GIL, so a wall-clock limit on a process of its
own is the only guard; a memory limit holds inside it.  A file whose worker dies is cut at lines, and says why.
Knows processes; the work itself is in `symbols.py` and `chunks.py`.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rotary_batch.core import ParsedFile, SourceFile
from rotary_batch.errors import UnavailableError
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.repo.chunks import CountTokens, chunks, cut
from rotary_batch.repo.symbols import extract, parse

TIMEOUT_S = 20.0
WORKER_MEMORY_NBYTES = 3 * 10**9
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
) -> Iterator[ParsedFile]:
    """Parse every file, in the order given; nothing a file holds can stop the others."""
    count_tokens = Tokenizer.load(tokenizer_dir).count
    workers = [_Worker(tokenizer_dir, budget_tokens, parse_one) for _ in range(num_workers)]
    waiting, running, done = iter(files), deque[_Task](), dict[int, ParsedFile]()
    number = given = 0
    try:
        while True:
            for worker in [w for w in workers if w.task is None]:
                if (file := next(waiting, None)) is not None:
                    running.append(worker.start(given, file, timeout_s))
                    given += 1
            if not running:
                return
            for task in _settled(workers, running, budget_tokens, count_tokens):
                running.remove(task)
                assert task.parsed is not None
                done[task.number] = task.parsed
            while number in done:
                yield done.pop(number)
                number += 1
    finally:
        for worker in workers:
            worker.stop()


@dataclass(eq=False)
class _Task:
    number: int
    file: Unparsed
    deadline: float
    parsed: ParsedFile | None = None


def _settled(
    workers: list[_Worker], running: Iterable[_Task], budget_tokens: int, count_tokens: CountTokens
) -> list[_Task]:
    """Wait until at least one task has an answer, or lost its worker."""
    busy = [worker for worker in workers if worker.task is not None]
    first = min(task.deadline for task in running)
    ready = wait([worker.connection for worker in busy], timeout=max(0.0, first - time.monotonic()))
    found = []
    for worker in busy:
        assert worker.task is not None
        task, reason = worker.task, None
        if worker.connection in ready:
            task.parsed, reason = worker.take()
        elif time.monotonic() >= task.deadline:
            reason = "parsing took too long"
            worker.restart()
        if reason is not None:
            task.parsed = cut_at_lines(*task.file, budget_tokens, count_tokens, reason)
        if task.parsed is not None:
            found.append(task)
    return found


class _Worker:
    """One process; started when it gets its first file."""

    def __init__(self, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne) -> None:
        self._arguments = (tokenizer_dir, budget_tokens, parse_one)
        self._process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection
        self.task: _Task | None = None

    def start(self, number: int, file: Unparsed, timeout_s: float) -> _Task:
        """Give it a file."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
            self._process.start()
            theirs.close()
            self._await_start()  # the clock of a file starts when its worker does
        self.task = _Task(number, file, time.monotonic() + timeout_s)
        self.connection.send(file)
        return self.task

    def _await_start(self) -> None:
        try:
            self.connection.recv()
        except EOFError as error:
            self.stop()
            raise UnavailableError("the parser processes end before they begin; is there too little memory?") from error

    def take(self) -> tuple[ParsedFile | None, str | None]:
        """The answer, or why there is none."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.restart()
            return None, "the parser crashed"
        self.task = None
        return (answer, None) if isinstance(answer, ParsedFile) else (None, str(answer))

    def restart(self) -> None:
        """Kill the process; the next file gets a new one."""
        self.stop()
        self.task = None

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None


def _work(connection: Connection, tokenizer_dir: Path, budget_tokens: int, parse_one: ParseOne) -> None:
    """A worker's whole life: files in, parsed files or the reason of a failure out."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # `ulimit -v` may allow less
    most = WORKER_MEMORY_NBYTES if hard == resource.RLIM_INFINITY else min(WORKER_MEMORY_NBYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    count_tokens = Tokenizer.load(tokenizer_dir).count
    with suppress(ConnectionError, EOFError, KeyboardInterrupt):  # who asks is gone, or goes
        connection.send("started")
        while True:
            file, source = connection.recv()
            try:
                connection.send(parse_one(file, source, budget_tokens, count_tokens))
            except MemoryError:
                connection.send("parsing took too much memory")
            except RecursionError:
                connection.send("nested too deep to parse")
