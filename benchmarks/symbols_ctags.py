"""Symbols against Universal Ctags 6, which shares no code with this project.

    python -m benchmarks.symbols_ctags CTAGS FOLDER LANGUAGE

A tag is found when a symbol of its name is defined on its line.  Prints how many tags of each kind are found, and the
misses.  Tags of locals, parameters, packages, imports and anonymous types are not compared, nor are include guards and
functions of C and C++ whose name is in capitals, since those are macros such as `TEST(suite, name)`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from rotary_batch.repo.headers import is_cpp, language_beside
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.symbols import extract, parse

MAX_SHOWN = 40
_C = {"function", "prototype", "struct", "union", "enum", "enumerator", "member", "macro", "typedef", "externvar"}
COMPARED = {
    "c": _C,
    "cpp": _C | {"class", "namespace"},
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
    name = {"c": "C", "cpp": "C++"}.get(language, language)
    mapped = [f"--map-{name}=+.h"] if language in {"c", "cpp"} else []
    command = [ctags, "-x", form, "--kinds-all=*", "-R", *mapped, f"--languages={name}", str(folder)]
    output = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    for tag in output.splitlines():
        path, line, kind, name, scope, scope_kind = tag.split("\t")
        if kind in COMPARED[language] and not _is_local(kind, name, scope, scope_kind):
            yield path, int(line), kind, _spelt(name)


def _is_local(kind: str, name: str, scope: str, scope_kind: str) -> bool:
    is_data = kind in {"variable", "var", "const", "constant", "type", "talias"}
    in_function = is_data and scope_kind in {"func", "function", "method", "member"}
    is_anonymous = name.startswith(("__anon", "anonymous")) or "AnonymousFunction" in name
    return is_anonymous or "__anon" in scope or in_function


def _spelt(name: str) -> str:
    """The name of an operator without spaces and scopes."""
    return name.replace(" ", "").rpartition("::")[2] if name.startswith("operator") else name


def symbols(path: Path, language: str) -> set[tuple[int, str]]:
    """(line, name) of every symbol, on each line from that of its decorators to that of its body."""
    source = path.read_bytes()
    found = extract(language, source, path.name, parse(language, source)).symbols
    lines = source.split(b"\n")
    result = set()
    for symbol in found:
        name = re.compile(rb"(?<!\w)" + re.escape(symbol.name.encode()) + rb"(?!\w)")
        first = next((n for n in range(symbol.start_line, symbol.end_line + 1) if name.search(lines[n - 1])), 0)
        result |= {(n, symbol.name) for n in range(symbol.start_line, max(first, symbol.start_line) + 1)}
        result.add((symbol.start_line, symbol.name))
        if symbol.kind in {"struct", "union", "enum"}:  # a `typedef` has its name behind the body
            result.add((symbol.end_line, symbol.name))
    return {(line, _spelt(name)) for line, name in result}


def _chosen(folder: Path, language: str) -> Callable[[str], bool]:
    """A function that says whether a file is compared: by its ending, or as a header of that language."""
    beside = language_beside(str(path) for path in folder.rglob("*"))

    @cache
    def is_in_language(path: str) -> bool:
        if not path.endswith(".h"):
            return path.endswith(LANGUAGES[language].endings)
        return ("cpp" if beside(path) == "cpp" or is_cpp(Path(path).read_bytes()) else "c") == language

    return is_in_language


def _is_macro_of_c(path: str, line: int, kind: str, name: str) -> bool:
    """Whether a tag is an include guard, or what looks like a function but is a macro."""
    before = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")[max(0, line - 4) : line - 1]
    is_guard = kind == "macro" and any(re.match(rf"\s*#\s*if.*\b{re.escape(name)}\b", text) for text in before)
    return is_guard or (kind in {"function", "prototype"} and name.isupper())


def main(ctags: str, folder: str, language: str) -> None:
    """Print how many tags of each kind are found, and those that are not."""
    total, found, misses = Counter[str](), Counter[str](), list[str]()
    ours: dict[str, set[tuple[int, str]]] = {}
    is_in_language = _chosen(Path(folder), language)
    for path, line, kind, name in tags(ctags, Path(folder), language):
        if not is_in_language(path) or (language in {"c", "cpp"} and _is_macro_of_c(path, line, kind, name)):
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
