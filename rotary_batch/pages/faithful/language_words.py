"""Names that a language brings with it, which prose may use of any code in it: keywords, built-in types and values."""

from __future__ import annotations

import builtins
import keyword
import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def words_of_language(language: str | None) -> frozenset[str]:
    """The names that every program of a language has."""
    table = _tables().get(language or "", {})
    words = {*_tables()["every"]["words"].split(), *table.get("words", "").split()}
    if "like" in table:
        words |= words_of_language(table["like"])
    if language in {"python", "notebook"}:
        words |= {*dir(builtins), *keyword.kwlist, *keyword.softkwlist, "self", "cls", "args", "kwargs"}
    return frozenset(words)


@cache
def proper_names() -> frozenset[str]:
    """Words that are spelt as identifiers are, without being any: `JavaScript`."""
    return frozenset(_tables()["proper"].split())


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
