"""JSON lines from untrusted files: one object a line, in bounded memory.

Only a newline ends a line: `str.splitlines` also splits at U+2028, U+0085 and others, which JSON allows in a string.
Some values that the module `json` accepts are refused: NaN, which is not JSON, and what readers disagree on, a repeated
key and half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

_PIECE_NBYTES = 2**20
_MAX_DIGITS = 30
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Escaped in output, because other readers may split lines at them.
_LINE_ENDS = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"})


class Line(NamedTuple):
    """One line of a file without its newline."""

    number: int  # from 1
    data: bytes | None  # None when it is longer than the limit
    has_newline: bool


def lines(file: BinaryIO, max_nbytes: int) -> Iterator[Line]:
    """All lines.  A line over the limit is skipped without being held in memory."""
    number = 0
    while data := file.readline(max_nbytes + 1):
        number += 1
        if len(data) <= max_nbytes or data.endswith(b"\n"):
            yield Line(number, data.removesuffix(b"\n"), data.endswith(b"\n"))
            continue
        while data and not data.endswith(b"\n"):
            data = file.readline(_PIECE_NBYTES)
        yield Line(number, None, data.endswith(b"\n"))


def parse_object(data: bytes) -> dict[str, Any]:
    """The object in a line.  Raises ValueError with a message for the user."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_number,
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at letter {error.pos + 1}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair, which is not valid text") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one type for everything that is wrong with a line
    return value


def dump_line(row: dict[str, Any]) -> bytes:
    """A row as a line with its newline, and without any other line end."""
    return json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS).encode() + b"\n"


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {ascii(counts.most_common(1)[0][0])[:60]} appears twice")
    return table


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:30]} is too large")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")
