"""JSON lines from anywhere: one object a line, whatever the lines hold, in bounded memory.

A line ends at a newline alone: `str.splitlines` also cuts at U+2028, U+0085 and others, which JSON allows in a text.
What `json` lets through though JSON has no such thing (NaN), or though two readers would differ on it (a key twice,
half of a surrogate pair), is refused.
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
# Line ends for readers that split a text into lines before they parse it.
_LINE_ENDS = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"})


class Line(NamedTuple):
    """One line of a file without its newline."""

    number: int  # from 1
    data: bytes | None  # None when it is longer than the limit
    has_newline: bool


def lines(file: BinaryIO, max_nbytes: int) -> Iterator[Line]:
    """All lines; of one that is longer than the limit no more than that is ever in memory."""
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
    """The object in a line.  Raises ValueError that says what is wrong in plain words."""
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_number,
        )
        if _SURROGATE.search(data):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at letter {error.pos + 1}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair, which is not valid text") from error
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for all that is wrong with a line
    return found


def dump_line(row: dict[str, Any]) -> bytes:
    """A row as a line with its newline; nothing in it ends a line earlier, for any reader."""
    return json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS).encode() + b"\n"


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {ascii(counts.most_common(1)[0][0])[:60]} appears twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"the number {text[:30]} is too large")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")
