"""Results of a batch from other runners: the rows of JSONL files, checked as a whole before any of them is used.

The form is that of OpenAI's batch API: `custom_id`, `response.body.choices[0]` and `error`.  Completions have `text`,
which is all that the model wrote, thinking included; chats have `message.content`, which is meant for the reader.
"""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args

from rotary_batch import jsonl
from rotary_batch.config import excerpt
from rotary_batch.core import Reason
from rotary_batch.errors import InputError

MAX_LINE_NBYTES = 8 * 2**20
_MAX_ID_CHARACTERS = 512
_MAX_NAMED = 5  # of what is wrong
_REASONS: tuple[Reason, ...] = get_args(Reason)


class AnswerRow(NamedTuple):
    """An answer as another runner gave it."""

    text: str
    is_raw: bool  # all that the model wrote; else what is meant for the reader
    reason: Reason
    mean_logprob: float | None
    model: str | None  # as the runner calls it


class NoAnswer(NamedTuple):
    """A row that says why there is no answer."""

    why: str


class Place(NamedTuple):
    """Where a row is."""

    path: Path
    line: int
    offset: int


@dataclass(slots=True)
class AnswerFiles:
    """The rows of some files by their `custom_id`."""

    places: dict[str, Place] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def read(self, custom_id: str) -> AnswerRow | NoAnswer:
        """The row of an id.  Raises InputError when the file is another one now."""
        place = self.places[custom_id]
        try:
            with place.path.open("rb") as file:
                file.seek(place.offset)
                found, row = read_row(file.readline(MAX_LINE_NBYTES + 1).removesuffix(b"\n"))
        except (OSError, ValueError) as error:
            raise _changed(place) from error
        if found != custom_id:
            raise _changed(place)
        return row


def _changed(place: Place) -> InputError:
    return InputError(f"{place.path}:{place.line}: the file changed while it was read; import it again")


def open_answers(paths: Sequence[Path]) -> AnswerFiles:
    """Check every row of every file.  Raises InputError, which names what is wrong, and then nothing is used.

    A last line that was cut short, by a runner that was killed, is left out with a note.
    """
    answers, faults = AnswerFiles(), list[str]()
    for path in paths:
        try:
            with _open(path) as file:
                faults += islice(_add_file(answers, path, file), _MAX_NAMED + 1)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; name a readable JSONL file of results") from error
    if faults:
        more = "; and more" if len(faults) > _MAX_NAMED else ""
        raise InputError(f"{'; '.join(faults[:_MAX_NAMED])}{more}; nothing was imported")
    if not answers.places:
        raise InputError(f"{', '.join(map(str, paths))}: no results in it; nothing was imported")
    return answers


def _open(path: Path) -> BinaryIO:
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - follows links, as opening does
        raise InputError(f"{path}: not a plain file; it is read twice, so store the results in one")
    return path.open("rb")


def _add_file(answers: AnswerFiles, path: Path, file: BinaryIO) -> Iterator[str]:
    """Add the rows of one file; yields what is wrong with it."""
    offset = 0
    for number, line, has_newline in jsonl.lines(file, MAX_LINE_NBYTES):
        place = Place(path, number, offset)
        if line is None:
            yield f"{path}:{number}: a line of over {MAX_LINE_NBYTES:,} bytes"
            continue
        offset += len(line) + 1
        data = line.removeprefix(BOM_UTF8) if number == 1 else line
        place = place._replace(offset=place.offset + len(line) - len(data))
        if not data.strip():
            continue
        try:
            custom_id, _ = read_row(data)
        except ValueError as error:
            if not has_newline and data.startswith(b"{") and not data.rstrip().endswith(b"}"):
                answers.notes.append(f"{path}:{number}: the last line was cut short, and is left out")
            else:
                yield f"{path}:{number}: {error}"
            continue
        if (first := answers.places.setdefault(custom_id, place)) is not place:
            yield f"{path}:{number}: custom_id {excerpt(custom_id)} is in {first.path}:{first.line} too"


def read_row(data: bytes) -> tuple[str, AnswerRow | NoAnswer]:
    """The `custom_id` of a row, and what it says.  Raises ValueError for what is no result."""
    try:
        row = jsonl.parse_object(data)
        custom_id = row.get("custom_id")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MAX_ID_CHARACTERS:
            raise ValueError(f"needs a custom_id: a string of 1 to {_MAX_ID_CHARACTERS} characters")
        if row.get("error") is not None:
            return custom_id, NoAnswer(f"error: {_said(row['error'])}")
        return custom_id, _response(row.get("response"))
    except RecursionError as error:  # JSON that was parsed may still be too deep for repr()
        raise ValueError("nested too deeply") from error


def _response(response: object) -> AnswerRow | NoAnswer:
    if not isinstance(response, dict):
        raise ValueError("needs a response with a body, or an error")  # noqa: TRY004 - one type for every fault
    body = response.get("body")
    if (status := response.get("status_code", 200)) != 200:
        return NoAnswer(f"status {excerpt(status)}: {_said(body)}")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(choices, list):
        raise ValueError("response.body: needs choices")  # noqa: TRY004 - as above
    if not choices or not isinstance(choice := choices[0], dict):
        return NoAnswer("no choices")
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        return NoAnswer("no text")
    finish = choice.get("finish_reason")
    reason = next((one for one in _REASONS if one == finish), None)
    if reason is None:
        return NoAnswer(f"finish_reason: {excerpt(finish)}")
    model = body.get("model")
    return AnswerRow(
        text=text,
        is_raw=not isinstance(message, dict),
        reason=reason,
        mean_logprob=_mean_logprob(choice),
        model=model if isinstance(model, str) else None,
    )


def _said(value: object) -> str:
    """The message of an error, in the form of OpenAI or as it is."""
    if isinstance(value, dict):
        value = value.get("error", value)
    message = value.get("message") if isinstance(value, dict) else value
    return excerpt(message)


def _mean_logprob(choice: dict[str, Any]) -> float | None:
    """Of `generate`, of chats, or of completions; None when the runner did not say."""
    if "mean_logprob" in choice:
        return _mean([choice["mean_logprob"]])
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    if isinstance(tokens := logprobs.get("content"), list):
        return _mean([one.get("logprob") for one in tokens if isinstance(one, dict)])
    return _mean(values) if isinstance(values := logprobs.get("token_logprobs"), list) else None


def _mean(values: Sequence[object]) -> float | None:
    """Of the numbers among some values, at most 0."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return min(0.0, sum(numbers) / len(numbers)) if numbers else None
