"""`export --requests` and `export --answers`: open prompts and stored answers as OpenAI-batch JSONL.

A request holds the token ids of its prompt, so that no runner's chat template or tokenizer can change it, and its
`custom_id` is the key of the result.  The form is that of https://platform.openai.com/docs/api-reference/batch.
"""

from __future__ import annotations

import heapq
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rotary_batch import jsonl
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.errors import InputError, StorageError
from rotary_batch.work.exchange import OpenPrompt, answered_keys, open_prompts, provenance_of
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

_REQUESTS = re.compile(rb'\{"custom_id": "[0-9a-f]{64}", "method": ')  # how a file of ours begins
_ANSWERS = re.compile(rb'\{"id": "answer-')


class _Line(NamedTuple):
    row: dict[str, Any]
    prompt_tokens: int


def export_requests(store: WorkStore, path: Path, roots: Sequence[Path], mode: int, shards: int) -> dict[str, Any]:
    """Write every open prompt, in up to `shards` files of about as many prompt tokens each.

    The prompts of one chunk are in one file, one after the other, for runners that share what prompts begin with.
    Raises InputError when another file has one of the names, StorageError when the disk refuses.
    """
    groups = _by_chunk(store, select_repositories(store, roots))
    first = next(groups, None)
    if first is None:
        return {"files": []}
    with _Files(_names(path, shards), mode, _REQUESTS) as files:
        for group in (first, *groups):
            files.add(group)
        return {"files": files.publish()}


def export_answers(store: WorkStore, path: Path, roots: Sequence[Path], mode: int) -> dict[str, Any]:
    """Write every stored answer of some repositories, as results that `import` takes.  Raises as `export_requests`."""
    rows = select_repositories(store, roots)
    with _Files([path], mode, _ANSWERS) as files:
        for key in answered_keys(store, [row.id for row in rows]):
            files.add([_Line(_answer(store, key), 0)])
        return {"files": [{name: n for name, n in one.items() if name != "prompt_tokens"} for one in files.publish()]}


def _names(path: Path, shards: int) -> list[Path]:
    if shards == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}-of-{shards}{path.suffix}") for number in range(1, shards + 1)]


def _by_chunk(store: WorkStore, rows: Sequence[RepositoryRow]) -> Iterator[list[_Line]]:
    """The requests of each chunk, and each other request alone; equal ones once."""
    seen: set[str] = set()
    group, siblings = list[_Line](), None
    for row in rows:
        for prompt in open_prompts(store, row.id):
            if prompt.key in seen or not (ids := store.prompt_ids(prompt.item_id)):  # or answered meanwhile
                continue
            seen.add(prompt.key)
            if group and (siblings is None or prompt.siblings != siblings):
                yield group
                group = []
            siblings = prompt.siblings
            group.append(_request(prompt, ids, row.model_name))
    if group:
        yield group


def _request(prompt: OpenPrompt, ids: Sequence[int], model: str) -> _Line:
    # Greedy, with the log-probabilities that tell how sure the model is.
    settings = {"max_tokens": prompt.max_new_tokens, "temperature": 0, "logprobs": 1}
    body = {"model": model, "prompt": list(ids), **settings}
    return _Line({"custom_id": prompt.key, "method": "POST", "url": "/v1/completions", "body": body}, len(ids))


def _answer(store: WorkStore, key: str) -> dict[str, Any]:
    result = store.result(key)
    assert result is not None
    completion = result.completion
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": result.text},
        "finish_reason": completion.reason,
        "mean_logprob": completion.mean_logprob if completion.num_scored else None,
    }
    body = {
        "model": provenance_of(store, key).get("model"),
        "choices": [choice],
        "usage": {"completion_tokens": len(completion.token_ids)},
    }
    response = {"status_code": 200, "body": body}
    return {"id": f"answer-{key[:16]}", "custom_id": key, "response": response, "error": None}


class _Files:
    """Files that are written beside their names, and take them together when they are whole."""

    def __init__(self, paths: Sequence[Path], mode: int, beginning: re.Pattern[bytes]) -> None:
        self._paths, self._mode = paths, mode
        for path in paths:
            _require_free(path, beginning)
        self._stack = ExitStack()
        self._parts: list[BinaryIO] = []
        self._num_lines, self._tokens = [0] * len(paths), [0] * len(paths)
        self._least = [(0, place) for place in range(len(paths))]  # a heap: (weight, place)

    def __enter__(self) -> _Files:
        try:
            folder = self._stack.enter_context(
                tempfile.TemporaryDirectory(dir=self._paths[0].parent, prefix=f".{self._paths[0].name}.")
            )
            for place in range(len(self._paths)):
                self._parts.append(self._stack.enter_context(Path(folder, str(place)).open("wb")))
        except OSError as error:
            self._stack.close()
            raise self._refused(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of a full disk, which was reported
            self._stack.close()

    def add(self, lines: Iterable[_Line]) -> None:
        """Append lines to the file that has the fewest prompt tokens.  Raises StorageError."""
        weight, place = heapq.heappop(self._least)
        try:
            for line in lines:
                self._parts[place].write(jsonl.dump_line(line.row))
                self._num_lines[place] += 1
                self._tokens[place] += line.prompt_tokens
                weight += 1 + line.prompt_tokens
        except OSError as error:
            raise self._refused(error) from error
        heapq.heappush(self._least, (weight, place))

    def publish(self) -> list[dict[str, Any]]:
        """Give the files their names; those without a line are left out.  Raises StorageError."""
        used = [place for place, count in enumerate(self._num_lines) if count]
        try:
            for place in used:
                part = self._parts[place]
                part.flush()
                os.fchmod(part.fileno(), self._mode)
                os.fsync(part.fileno())
            for place in used:
                Path(self._parts[place].name).replace(self._paths[place])
        except OSError as error:
            raise self._refused(error) from error
        return [
            {"file": str(self._paths[place]), "lines": self._num_lines[place], "prompt_tokens": self._tokens[place]}
            for place in used
        ]

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._paths[0]}: cannot be written: {error.strerror}; name a file in another folder, or free some space"
        )


def _require_free(path: Path, beginning: re.Pattern[bytes]) -> None:
    if not os.path.lexists(path):
        return
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                head = file.read(256)
            if not head or beginning.match(head):
                return
    raise InputError(f"{path}: exists and is no earlier export of this kind; move it away or name another file")
