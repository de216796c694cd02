"""Symbols of JavaScript and TypeScript files against the TypeScript compiler's own syntax tree.

    python -m benchmarks.symbols_typescript NODE_MODULES/typescript/lib/typescript.js FOLDER [ENDING ...]

Needs node.  A declaration is found when a symbol of its name has its name on the same line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rotary_batch.repo.languages import language_of
from rotary_batch.repo.symbols import extract, parse

ORACLE = Path(__file__).parent / "oracles" / "typescript.cjs"
MAX_SHOWN = 60


def main(compiler: str, folder: str, *endings: str) -> None:
    """Print how many declarations of each kind are found, and those that are not."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and language_of(path.name))
    files = [path for path in files if path.name.endswith(endings or ("",)) and "node_modules" not in path.parts[-3:]]
    ours = {str(path): _symbols(path) for path in files}
    told = subprocess.run(
        ["node", str(ORACLE), compiler], input="\n".join(map(str, files)), capture_output=True, text=True, check=True
    )
    total, found, misses = Counter[str](), Counter[str](), list[str]()
    for line in told.stdout.splitlines():
        item = json.loads(line)
        total[item["kind"]] += 1
        if any(name == item["name"] and start <= item["line"] <= end for name, start, end in ours[item["path"]]):
            found[item["kind"]] += 1
        else:
            misses.append(f"{item['path']}:{item['line']} {item['kind']} {item['name']}")
    print(f"{len(files)} files, {sum(map(len, ours.values()))} symbols")
    for kind in sorted(total):
        print(f"{kind:10} {found[kind]:6} of {total[kind]:6}  {found[kind] / total[kind]:.2%}")
    print(f"{'all':10} {found.total():6} of {total.total():6}  {found.total() / max(1, total.total()):.2%}")
    print(*misses[:MAX_SHOWN], sep="\n")


def _symbols(path: Path) -> list[tuple[str, int, int]]:
    source, language = path.read_bytes(), language_of(path.name)
    assert language is not None
    symbols = extract(language, source, path.name, parse(language, source)).symbols
    return [(symbol.name, symbol.start_line, symbol.end_line) for symbol in symbols]


if __name__ == "__main__":
    main(*sys.argv[1:])
