"""Symbols against Universal Ctags 6, which shares no code with this project.

    python -m benchmarks.symbols_ctags CTAGS FOLDER LANGUAGE

A tag is found when a symbol of its name is defined on its line.  Prints how many tags of each kind are found, and the
misses.  Tags of locals, parameters, packages, imports and anonymous types are not compared.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.symbols import extract, parse

MAX_SHOWN = 40
COMPARED = {
    "go": {"func", "methodSpec", "struct", "interface", "type", "talias", "const", "var", "member"},
    "rust": {
        "struct",
        "interface",
        "typedef",
        "function",
        "method",
        "enum",
        "enumerator",
        "field",
        "macro",
        "constant",
        "variable",
    },
    "java": {"annotation", "class", "enumConstant", "field", "enum", "interface", "method"},
    "javascript": {"class", "function", "generator", "getter", "method", "setter"},
    "python": {"class", "function", "member", "variable"},
    "typescript": {"class", "enum", "enumerator", "function", "generator", "interface", "method", "namespace"},
}


def tags(ctags: str, folder: Path, language: str) -> Iterator[tuple[str, int, str, str]]:
    """(path, line, kind, name) of every tag that is compared."""
    # The JSON of ctags needs a library that it is often built without.
    form = "--_xformat=%F\t%n\t%K\t%N\t%s\t%p"
    command = [ctags, "-x", form, "--kinds-all=*", "-R", f"--languages={language}", str(folder)]
    output = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    for tag in output.splitlines():
        path, line, kind, name, scope, scope_kind = tag.split("\t")
        if kind in COMPARED[language] and not _is_local(kind, name, scope, scope_kind):
            yield path, int(line), kind, name


def _is_local(kind: str, name: str, scope: str, scope_kind: str) -> bool:
    is_data = kind in {"variable", "var", "const", "constant", "type", "talias"}
    in_function = is_data and scope_kind in {"func", "function", "method", "member"}
    is_anonymous = name.startswith(("__anon", "anonymous")) or "AnonymousFunction" in name
    return is_anonymous or "__anon" in scope or in_function


def symbols(path: Path, language: str) -> set[tuple[int, str]]:
    """(line, name) of every symbol, on each line from that of its decorators to that of its body."""
    source = path.read_bytes()
    found = extract(language, source, path.name, parse(language, source)).symbols
    lines = source.split(b"\n")
    result = set()
    for symbol in found:
        name = symbol.name.encode()
        first = next((n for n in range(symbol.start_line, symbol.end_line + 1) if name in lines[n - 1]), 0)
        result |= {(n, symbol.name) for n in range(symbol.start_line, max(first, symbol.start_line) + 1)}
        result.add((symbol.start_line, symbol.name))
    return result


def main(ctags: str, folder: str, language: str) -> None:
    """Print how many tags of each kind are found, and those that are not."""
    total, found, misses = Counter[str](), Counter[str](), list[str]()
    ours: dict[str, set[tuple[int, str]]] = {}
    endings = LANGUAGES[language].endings
    for path, line, kind, name in tags(ctags, Path(folder), language):
        if not path.endswith(endings):
            continue
        if path not in ours:
            ours[path] = symbols(Path(path), language)
        total[kind] += 1
        if (line, name) in ours[path]:
            found[kind] += 1
        else:
            misses.append(f"{path}:{line} {kind} {name}")
    for kind in sorted(total):
        print(f"{kind:14} {found[kind]:7} of {total[kind]:7}  {found[kind] / total[kind]:.2%}")
    print(f"{'all':14} {found.total():7} of {total.total():7}  {found.total() / max(1, total.total()):.2%}")
    for miss in misses[:: max(1, len(misses) // MAX_SHOWN)]:
        print("missed:", miss)


if __name__ == "__main__":
    main(*sys.argv[1:])
