"""Read the JSON of a model, which may be damaged or hostile.

A `Table` returns values by name, type and range.  A value that does not fit raises a ModelError with the file, the key,
the value and what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rotary_batch.errors import ModelError

_Value = TypeVar("_Value")
_SHOWN_CHARACTERS = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextmanager
def open_regular(path: Path, remedy: str) -> Iterator[BinaryIO]:
    """Read a file.  Raises ModelError for one that is missing, unreadable, or a FIFO, device or folder."""
    try:
        # Without O_NONBLOCK the open of a FIFO waits for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelError(f"{path}: not a regular file; {remedy}")
            yield file
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {remedy}") from error


def read_regular(path: Path, max_nbytes: int, remedy: str) -> bytes:
    """The bytes of a file of at most `max_nbytes`.  Raises ModelError."""
    with open_regular(path, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_nbytes:
            raise ModelError(f"{path}: {size:,} bytes; at most {max_nbytes:,} are read; {remedy}")
        return file.read(size)


def read_text(path: Path, max_nbytes: int, remedy: str) -> str:
    """The text of a UTF-8 file.  Raises ModelError."""
    try:
        return read_regular(path, max_nbytes, remedy).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8: {error}; {remedy}") from error


def parse_object(data: bytes, where: object, remedy: str) -> dict[str, Any]:
    """One JSON object.  Raises ModelError for anything else, however deeply it is nested."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not valid JSON: {error}; {remedy}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{where}: not a JSON object; {remedy}")
    return value


def read_object(path: Path, max_nbytes: int, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.  Raises ModelError."""
    return parse_object(read_regular(path, max_nbytes, remedy), path, remedy)


class Table:
    """The values of one JSON object, by name.  Every method raises ModelError when the value does not fit."""

    def __init__(self, values: Mapping[str, Any], where: object, remedy: str) -> None:
        self._values = values
        self._where = where
        self._remedy = remedy

    def names(self) -> Collection[str]:
        """The names of all values."""
        return self._values.keys()

    def has(self, name: str) -> bool:
        """Whether a value exists and is not null."""
        return self._values.get(name) is not None

    def holds(self, name: str, kind: type) -> bool:
        """Whether a value that may have several types has this one."""
        return isinstance(self._values.get(name), kind)

    def whole(self, name: str, most: int, *, least: int = 1) -> int:
        """A whole number."""
        value = self._values.get(name)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least:,} to {most:,}")
        return value

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.finite(name)
        if value <= 0:
            raise self.wrong(name, "a number above 0")
        return value

    def finite(self, name: str) -> float:
        """A finite number."""
        value = self._values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            with suppress(OverflowError):  # an int of 400 digits is valid JSON and no float
                if math.isfinite(value):
                    return float(value)
        raise self.wrong(name, "a finite number")

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._values.get(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str) -> str:
        """A text that can be encoded."""
        value = self._values.get(name)
        if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.wrong(name, "a string")
        return value

    def one_of(self, name: str, choices: Collection[str]) -> str:
        """One of several words."""
        value = self._values.get(name)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}")
        return value

    def sha256(self, name: str) -> str:
        """A digest in hexadecimal."""
        value = self._values.get(name)
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise self.wrong(name, "a SHA-256 digest in hexadecimal")
        return value

    def rows(self, name: str, most: int) -> list[Any]:
        """A list."""
        value = self._values.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, f"a list of at most {most:,} entries")
        return value

    def wholes(self, name: str, most_entries: int, most: int) -> tuple[int, ...]:
        """A list of whole numbers from 0."""
        numbers = self.rows(name, most_entries)
        if any(type(entry) is not int or not 0 <= entry <= most for entry in numbers):
            raise self.wrong(name, f"a list of whole numbers up to {most:,}")
        return tuple(numbers)

    def finites(self, name: str, most_entries: int) -> tuple[float, ...]:
        """A list of finite numbers."""
        entries = self.rows(name, most_entries)
        part = self.part(name, {str(place): entry for place, entry in enumerate(entries)})
        return tuple(part.finite(str(place)) for place in range(len(entries)))

    def texts(self, name: str, most_entries: int) -> tuple[str, ...]:
        """A list of texts."""
        entries = self.rows(name, most_entries)
        part = self.part(name, {str(place): entry for place, entry in enumerate(entries)})
        return tuple(part.text(str(place)) for place in range(len(entries)))

    def mapping(self, name: str) -> dict[str, Any]:
        """An object as a dict; an absent one is empty."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return value or {}

    def table(self, name: str) -> Table:
        """An object as a Table of its own."""
        return self.part(name, self.mapping(name))

    def part(self, name: str, values: Mapping[str, Any]) -> Table:
        """Values below this table, under its file and remedy."""
        return Table(values, f"{self._where}: {name}", self._remedy)

    def explained(self, compute: Callable[[], _Value]) -> _Value:
        """The result of `compute`; a ModelError that it raises gets the name of the file."""
        try:
            return compute()
        except ModelError as error:
            raise self.error(str(error)) from error

    def wrong(self, name: str, wanted: str) -> ModelError:
        """The error for a value that does not fit."""
        if name not in self._values:
            return self.error(f"{name} is missing")
        return self.error(f"{name} is {shown(self._values[name])}, not {wanted}")

    def error(self, fact: str) -> ModelError:
        """The error for any other fact about this object."""
        return ModelError(f"{self._where}: {fact}; {self._remedy}")


def shown(value: object) -> str:
    """A value as JSON, cut short: it may be as long as the file."""
    if isinstance(value, str | list | dict):
        kind = {str: "a string", list: "a list", dict: "an object"}[type(value)]
        is_short = isinstance(value, str) and len(value) <= _SHOWN_CHARACTERS
        return json.dumps(value) if is_short else f"{kind} of {len(value):,}"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_CHARACTERS:
        return f"a number of {value.bit_length():,} bits"
    return json.dumps(value)
