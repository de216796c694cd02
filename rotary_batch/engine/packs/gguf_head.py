"""The head of a GGUF file, number by number and string by string.

A length or count that the file claims is compared with what the file has left before anything is allocated.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from rotary_batch.errors import ModelError

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

REMEDY = "fetch the file again"
_AHEAD_NBYTES = 2**20
_MAX_HEAD_NBYTES = 2**27  # the largest vocabularies take 20 MB
_MAX_ENTRIES = 2**22  # in all arrays of a file; 200,000 tokens with types, scores and merges are 1,200,000
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}  # as in struct
_BOOL, _STRING, _ARRAY = 7, 8, 9
_LENGTH = struct.Struct("<Q")


class Head:
    """The bytes at the beginning of a file, read ahead as they are needed, and a position in them.

    Every method that reads raises ModelError when the file ends first.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._data = bytearray()
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0
        self.where = "the header"  # what is being read
        self._entries_left = _MAX_ENTRIES

    def error(self, fact: str) -> ModelError:
        """The error for a fact about what is being read."""
        return ModelError(f"{self._path}: {self.where} {fact}; {REMEDY}")

    def require(self, nbytes: int) -> None:
        """Have the next bytes in memory.  Raises ModelError when the file ends before them."""
        end = self.at + nbytes
        if end <= len(self._data):
            return
        if end > self.size:
            raise self.error(f"needs {nbytes:,} bytes at byte {self.at:,} of {self.size:,}: the file is truncated")
        if end > _MAX_HEAD_NBYTES:
            raise self.error(f"ends at byte {end:,}; keys and names may take {_MAX_HEAD_NBYTES:,}")
        ahead = min(self.size, max(end, 2 * len(self._data), _AHEAD_NBYTES))
        self._data += self._file.read(ahead - len(self._data))
        if end > len(self._data):
            raise self.error("ends early: the file became shorter while it was read")

    def numbers(self, code: str, count: int) -> tuple[int | float, ...]:
        """Some numbers, by their code in `struct`."""
        layout = f"<{count}{code}"
        nbytes = struct.calcsize(layout)
        self.require(nbytes)
        values = struct.unpack_from(layout, self._data, self.at)
        self.at += nbytes
        return values

    def whole(self, code: str = "Q") -> int:
        """One whole number."""
        return int(self.numbers(code, 1)[0])

    def strings(self, count: int) -> list[str]:
        """Some strings.  One loop without calls: a vocabulary has 300,000 of them with its merges."""
        texts = []
        at, data, length_of = self.at, self._data, _LENGTH.unpack_from
        try:
            for _ in range(count):
                if at + 8 > len(data):
                    self._require_at(at, 8)
                begin = at + 8
                at = begin + length_of(data, at)[0]
                if at > len(data):
                    self._require_at(begin, at - begin)
                texts.append(data[begin:at].decode())
        except UnicodeDecodeError as error:
            raise self.error(f"holds a string that is not UTF-8, in the bytes before {at:,}: {error.reason}") from error
        self.at = at
        return texts

    def _require_at(self, at: int, nbytes: int) -> None:
        self.at = at
        self.require(nbytes)

    def claim(self, count: int, least_nbytes: int, noun: str) -> int:
        """A count that the rest of the file has room for, at least some bytes each."""
        if count * least_nbytes > self.size - self.at:
            raise self.error(f"claims {count:,} {noun}, more than the file has room for")
        return count

    def value(self) -> Value:
        """A typed value."""
        kind = self.whole("I")
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self.strings(1)[0]
        return self._scalars(kind, 1)[0]

    def _array(self) -> Value:
        kind, count = self.whole("I"), self.whole()
        if kind == _ARRAY:
            raise self.error("is an array of arrays, which no model needs")
        if count > self._entries_left:
            raise self.error(f"is an array of {count:,}; {_MAX_ENTRIES:,} entries are read of a file")
        self._entries_left -= count
        if kind == _STRING:
            return self.strings(self.claim(count, 8, "strings"))
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> list[int] | list[float] | list[bool]:
        if kind not in _NUMBERS:
            raise self.error(f"is of type {kind}, which does not exist")
        numbers = self.numbers(_NUMBERS[kind], count)
        if kind != _BOOL:
            return list(numbers)
        if not set(numbers) <= {0, 1}:
            raise self.error(f"is {max(numbers)}, not true or false")
        return [number == 1 for number in numbers]
