"""`generate`: the engine alone, OpenAI-batch JSONL in and out, resumed by `custom_id`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
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
    """Answer every request whose result is not in `target` yet; returns (results written, errors of the whole file).

    A line that is not a request gets an error as its result.  Raises InputError, BusyError, StorageError.
    """
    with _open(source) as file, open_results(target, os.fstat(file.fileno())) as results:
        batch = _Batch(source, file, tokenizer, results, progress)
        batch.answer_all(open_engine)
    return batch.num_written, batch.num_failed


def _open(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; name a readable JSONL file") from error


class _Batch:
    """The requests in the order of the file, and their results."""

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
        known = dict(results.answered)  # as it was before this run
        self._unread = self._requests(read_requests(source, file, tokenizer, known.__contains__), known)
        self._waiting: deque[Accepted] = deque()  # the next one of the file, or those that an engine lost
        self._live: dict[int, Accepted] = {}
        self.num_written = self.num_failed = self._num_known = 0

    def answer_all(self, open_engine: Callable[[], Engine]) -> None:
        """Take every request through the engine; without requests none is opened."""
        self._read_ahead()
        if self._waiting:
            engine = open_engine()
            try:
                while self._waiting or engine.num_live:
                    self._admit(engine)
                    if engine.num_live:
                        self._add_results(engine.step())
                    self._results.sync()
                    self._read_ahead()
            finally:
                engine.close()
        self._results.sync()

    def _requests(self, lines: Iterator[Accepted | Refused | str], known: dict[str, bool]) -> Iterator[Accepted]:
        """The requests among the lines; for the other lines errors are written."""
        refused = set(self._results.refused)
        for line in lines:
            if isinstance(line, Accepted):
                yield line
            elif isinstance(line, str) or line.message in refused:
                self._num_known += 1
                self.num_failed += not isinstance(line, str) or known[line]
            else:
                self._add_error(line.custom_id, "invalid_request", line.message)

    def _read_ahead(self) -> None:
        """Read one request unless some are waiting: the file may be larger than memory."""
        if not self._waiting:
            self._waiting.extend(islice(self._unread, 1))

    def _admit(self, engine: Engine) -> None:
        """Admit while the engine has room.  An idle engine gets a request in any case, so that it can refuse it."""
        while self._waiting and (engine.has_room(self._waiting[0].request) or not engine.num_live):
            custom_id, request = self._waiting.popleft()
            try:
                engine.admit(request)
                self._live[request.request_id] = Accepted(custom_id, request)
            except PromptError as error:
                self._add_error(custom_id, "too_long", f"{self._source}:{request.request_id}: {error}")
            self._read_ahead()

    def _add_results(self, report: StepReport) -> None:
        for completion in report.completions:
            accepted = self._live.pop(completion.request_id)
            shown = self._tokenizer.answers.shown(completion.token_ids, accepted.request.prompt_ids)
            if shown.fault is None:
                text = self._tokenizer.decode(shown.token_ids)
                self._add(accepted.custom_id, response=_response(completion, text), error=None)
            else:
                self._add_error(accepted.custom_id, "no_answer", f"no answer: {shown.fault}; raise max_tokens")
        for failure in report.failures:
            accepted = self._live.pop(failure.request_id)
            if failure.retry:
                self._waiting.append(accepted)
            else:
                self._add_error(accepted.custom_id, "failed", failure.error)

    def _add_error(self, custom_id: str | None, code: str, message: str) -> None:
        self.num_failed += 1
        self._add(custom_id, response=None, error={"code": code, "message": message})

    def _add(self, custom_id: str | None, **row: Any) -> None:  # noqa: ANN401 - JSON
        self._results.add({"custom_id": custom_id, **row})
        self.num_written += 1
        done = self._num_known + self.num_written
        self._progress(done, max(self._total, done))


def _response(completion: Completion, text: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": completion.reason,
        "mean_logprob": completion.mean_logprob,
    }
    return {
        "status_code": 200,
        "body": {"choices": [choice], "usage": {"completion_tokens": len(completion.token_ids)}},
    }


def _num_lines(file: BinaryIO) -> int:
    """An upper limit for the progress bar; 0 for a pipe."""
    if not file.seekable():
        return 0
    count = sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
    file.seek(0)
    return count
