"""Write docs/modules.md: every module with the first line of its docstring.  `python docs/module_map.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "modules.md"
HEAD = """# Module map

Every module, with the first line of its docstring. Written by `python docs/module_map.py`; a test compares the two.
"""


def text() -> str:
    """The page."""
    return "\n".join([HEAD, *_lines(ROOT / "rotary_batch")]) + "\n"


def _lines(folder: Path) -> Iterator[str]:
    """A table for each package, the outer before the inner."""
    yield f"## `{folder.relative_to(ROOT).as_posix()}/`\n\n{_first_line(folder / '__init__.py')}\n"
    yield "| Module | What it is for |\n| --- | --- |"
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"| `{path.stem}` | {_first_line(path)} |"
    yield ""
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _lines(inner)


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
