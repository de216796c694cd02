"""`generate`: the engine alone, OpenAI-batch JSONL in and out, resumable by `custom_id`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rotary_batch.commands.requests import Accepted, Refused, read_requests
from rotary_batch.commands.results import ResultFile, open_results
from rotary_batch.core import Completion, Engine, StepReport
from rotary_batch.errors import InputError, PromptError
from rotary_batch.model.tokens import Tokenizer


def generate(
    source: Path,
    target: Path,
    tokenizer: Tokenizer,
    open_engine: Callable[[], Engine],
    progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Answer every request that `target` does not hold yet: (results written, errors among all of this file).

    A line that is not a request is an error of its own.  Raises InputError, BusyError or StorageError for the files.
    """
    with _open(source) as file, open_results(target, os.fstat(file.fileno())) as results:
        work = _Work(source, file, tokenizer, results, progress)
        work.answer_all(open_engine)
    return work.num_written, work.num_failed


def _open(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; name a readable JSONL file") from error


class _Work:
    """Requests in the order of the file, and what became of them."""

    def __init__(
        self,
        source: Path,
        file: BinaryIO,
        tokenizer: Tokenizer,
        results: ResultFile,
        progress: Callable[[int, int], None],
    ) -> None:
        self._source, self._tokenizer, self._results, self._progress = source, tokenizer, results, progress
        self._total = _num_lines(file)
        known = dict(results.answered)
        self._unread = self._requests(read_requests(source, file, tokenizer, known.__contains__), known)
        self._waiting: deque[Accepted] = deque()  # the next of the file, or what an engine lost
        self._live: dict[int, Accepted] = {}
        self.num_written = self.num_failed = self._num_known = 0

    def answer_all(self, open_engine: Callable[[], Engine]) -> None:
        """Take every request through the engine; without any, none is opened."""
        if self._first() is not None:
            engine = open_engine()
            try:
                while self._first() is not None or engine.num_live:
                    self._admit(engine)
                    if engine.num_live:
                        self._take(engine.step())
                    self._results.sync()
            finally:
                engine.close()
        self._results.sync()

    def _requests(self, lines: Iterator[Accepted | Refused | str], known: dict[str, bool]) -> Iterator[Accepted]:
        """The requests among the lines; errors are written on the way."""
        refused = set(self._results.refused)
        for line in lines:
            if isinstance(line, Accepted):
                yield line
            elif isinstance(line, str) or line.message in refused:
                self._num_known += 1
                self.num_failed += not isinstance(line, str) or known[line]
            else:
                self._add_error(line.custom_id, "invalid_request", line.message)

    def _first(self) -> Accepted | None:
        if not self._waiting:
            self._waiting.extend(request for request in [next(self._unread, None)] if request is not None)
        return self._waiting[0] if self._waiting else None

    def _admit(self, engine: Engine) -> None:
        while (asked := self._first()) is not None and (engine.has_room(asked.request) or not engine.num_live):
            self._waiting.popleft()
            try:
                engine.admit(asked.request)
                self._live[asked.request.request_id] = asked
            except PromptError as error:
                self._add_error(asked.custom_id, "too_long", f"{self._source}:{asked.request.request_id}: {error}")

    def _take(self, report: StepReport) -> None:
        for done in report.completions:
            asked = self._live.pop(done.request_id)
            self._add(asked.custom_id, response=_response(done, self._tokenizer), error=None)
        for lost in report.failures:
            asked = self._live.pop(lost.request_id)
            if lost.retry:
                self._waiting.append(asked)
            else:
                self._add_error(asked.custom_id, "failed", lost.error)

    def _add_error(self, custom_id: str | None, code: str, message: str) -> None:
        self.num_failed += 1
        self._add(custom_id, response=None, error={"code": code, "message": message})

    def _add(self, custom_id: str | None, **row: Any) -> None:  # noqa: ANN401 - JSON
        self._results.add({"custom_id": custom_id, **row})
        self.num_written += 1
        done = self._num_known + self.num_written
        self._progress(done, max(self._total, done))


def _response(done: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": tokenizer.decode(done.token_ids)},
        "finish_reason": done.reason,
        "mean_logprob": done.mean_logprob,
    }
    return {"status_code": 200, "body": {"choices": [choice], "usage": {"completion_tokens": len(done.token_ids)}}}


def _num_lines(file: BinaryIO) -> int:
    """How many there are at most, for the progress bar; 0 for a pipe."""
    if not file.seekable():
        return 0
    count = sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
    file.seek(0)
    return count
