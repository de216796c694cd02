"""Functions and classes of Python files against Python's own parser, with the lines that each is on.

    python -m benchmarks.symbols_python [FOLDER]     default: the standard library

Decorators count, and comments behind the last statement do not.  The setter of a property is a part of it.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterable
from pathlib import Path

from rotary_batch.repo.symbols import extract, parse

Definition = tuple[str, int, int]  # qualified name, first line, last line
_HEADS = ("def ", "async def ", "class ")


def standard_library() -> list[Path]:
    """Its files, without what is installed beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)


def told_by_ast(source: bytes) -> set[Definition] | None:
    """Every function and class, or None when Python cannot parse the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            waiting: list[tuple[ast.AST, str]] = [(ast.parse(source), "")]
        except (SyntaxError, ValueError):
            return None
    definitions = set()
    while waiting:
        node, outer = waiting.pop()
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}" if outer else child.name
                decorators = {ast.unparse(one) for one in child.decorator_list}
                if not decorators & {f"{child.name}.setter", f"{child.name}.deleter"}:
                    start = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                    definitions.add((name, start, child.end_lineno or start))
            waiting.append((child, name))
    return definitions


def told_by_us(source: bytes) -> set[Definition]:
    """Every function and class among our symbols."""
    symbols = extract("python", source, "a.py", parse("python", source)).symbols
    return {(s.qualified_name, s.start_line, s.end_line) for s in symbols if s.signature.startswith(_HEADS)}


def compare(paths: Iterable[Path]) -> tuple[int, list[str]]:
    """How many definitions Python finds, and each that only one of both finds."""
    total, differences = 0, []
    for path in paths:
        source = path.read_bytes()
        told = told_by_ast(source)
        if told is not None:
            total += len(told)
            ours = told_by_us(source)
            differences += [f"{path}: missed {one}" for one in sorted(told - ours)]
            differences += [f"{path}: invented {one}" for one in sorted(ours - told)]
    return total, differences


def main(folder: str | None = None) -> None:
    """Print how many there are, and the differences."""
    total, differences = compare(sorted(Path(folder).rglob("*.py")) if folder else standard_library())
    print(f"{total} functions and classes, {len(differences)} differences")
    for difference in differences:
        print(difference)


if __name__ == "__main__":
    main(*sys.argv[1:])
