"""Jupyter notebooks as the Python that their cells are; outputs are left out.

The format is nbformat 4 (https://nbformat.readthedocs.io/en/latest/format_description.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

ENDING = ".ipynb"
_MAGIC = ("%", "!", "?")  # of IPython, at the start of a line; no Python


def python_of(notebook: bytes) -> bytes:
    """Code cells as they are, all else as comments; nothing when this is not a notebook."""
    try:
        table = json.loads(notebook)
    except (ValueError, RecursionError):
        return b""
    found = table.get("cells") if isinstance(table, dict) else None
    is_python = bool(found) and _language(table).lower() in {"python", "ipython"}
    cells = [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else []
    return "\n".join(line for cell in cells for line in _lines(cell, is_python=is_python)).encode("utf-8", "replace")


def _language(table: dict[str, Any]) -> str:
    metadata = table.get("metadata")
    about = metadata.get("language_info") if isinstance(metadata, dict) else None
    name = about.get("name") if isinstance(about, dict) else None
    return name if isinstance(name, str) else "python"


def _lines(cell: dict[str, Any], *, is_python: bool) -> Iterator[str]:
    """The lines of a cell, and an empty one."""
    source = cell.get("source", "")
    parts = source if isinstance(source, list) else [source]
    is_code = is_python and cell.get("cell_type") == "code"
    for line in "".join(part for part in parts if isinstance(part, str)).splitlines():
        yield line if is_code and not line.lstrip().startswith(_MAGIC) else f"# {line}".rstrip()
    yield ""
