"""Read TOML, JSON and INI of strangers: what is malformed, or not of the expected type, is as if it were not there."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Mapping
from typing import Any

_MAX_DOTS = 100  # of a line: tomllib's time grows with the square of the parts of a key, 0.3 s for 6,000


def toml(text: str) -> dict[str, Any]:
    """The tables of a TOML file; none of one with a key of very many parts."""
    if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
        return {}
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def json_object(text: str) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def ini(text: str) -> dict[str, dict[str, str]]:
    """The sections of an INI file."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {name: dict(parser[name]) for name in parser.sections()}


def inner(tables: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A table within tables; empty when one of them is none."""
    for name in names:
        found = tables.get(name)
        if not isinstance(found, dict):
            return {}
        tables = found
    return dict(tables)


def texts(table: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a table that are text."""
    return {name: value for name, value in table.items() if isinstance(value, str)}


def words(value: object) -> str:
    """Text as it is, several texts one after the other; "" for anything else."""
    if isinstance(value, list):
        return "; ".join(one for one in value if isinstance(one, str))
    return value if isinstance(value, str) else ""


def lines(text: str) -> str:
    """The lines of a text behind each other."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
