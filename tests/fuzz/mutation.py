"""Seeded damage: the same name and number give the same bytes for ever."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

MAX_NBYTES = 64 * 1024
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2.5,
    10**9,
    -(10**18),
    2**63,
    10**400,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\0",
    "\x1b[2J",
    "\ud800",
    "../../x",
    "a" * 5000,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    [None] * 50,
)
SPICE = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\r\n",
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b'"',
    b"'",
    b"\\",
    b"<script>",
    b"-",
    b"--",
    b"---\n",
    b"$",
    b"${",
    b"%",
    b"=",
    b"#",
    b"/*",
    b"*/",
    b"//",
    b"../",
    b"*",
    b"**/",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b"\\ud800",
    b"null",
    b"<|im_end|>",
    b"</s>",
    b"\xef\xbb\xbf",
    b"\t",
    b" ",
)


def mutated(seeds: Sequence[bytes], name: str, number: int) -> bytes:
    """One damaged file."""
    chance = random.Random(f"{name} {number}")
    data = chance.choice(seeds)
    if chance.random() < 0.5 and (changed := _odd_json(data, chance)) is not None:
        return changed
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        data = _damaged(data, seeds, chance)[:MAX_NBYTES]
    return data


def _damaged(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    match chance.randrange(9):
        case 0:
            return data[:start] + data[end:]
        case 1:
            return data[:start]
        case 2:
            return data[:end] + data[start:end] * chance.choice((1, 2, 100)) + data[end:]
        case 3:
            other = chance.choice(seeds)
            return data[:start] + other[chance.randint(0, len(other)) :]
        case 4:
            return data[:start] + chance.choice(SPICE) * chance.choice((1, 1, 3, 2000)) + data[start:]
        case 5:
            return data[:start] + chance.randbytes(chance.choice((1, 2, 8))) + data[start:]
        case 6:
            return data[:start] + bytes(reversed(data[start:end])) + data[end:]
        case 7:
            return (
                data[:start]
                + bytes(byte ^ (1 << chance.randrange(8)) for byte in data[start : start + 4])
                + data[start + 4 :]
            )
        case _:
            return data[:start] + chance.choice(SPICE) + data[end:]


def _odd_json(data: bytes, chance: random.Random) -> bytes | None:
    """The same JSON with one value, key or entry changed; None for what is no JSON."""
    try:
        tree = json.loads(data)
    except ValueError:
        return None
    places = list(_places(tree))
    if not places:
        return None
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("", "\0", "x", "__metadata__", "a" * 300))] = holder.pop(key)
        case _:
            holder[key] = chance.choice(ODD_VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    if isinstance(tree, dict | list):
        for key in list(tree if isinstance(tree, dict) else range(len(tree))):
            yield tree, key
            yield from _places(tree[key])
