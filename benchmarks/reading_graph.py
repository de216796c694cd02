"""Are the links of the call graph true?  Measured against jedi and against the TypeScript compiler.

python -m benchmarks.reading_graph python FOLDER ...        needs the package `jedi`
python -m benchmarks.reading_graph typescript FOLDER        needs node and the npm package `typescript` in it

Every name that is called in the sources below a folder is resolved by us and by the other.  Precision: of the calls that
we link, and that the other resolves, how many it resolves to the same definition.  Recall: of the calls that the other
resolves to a function or a class of the folder, how many we link.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import FileClass, ParsedFile, Reference, SourceFile, Symbol
from rotary_batch.repo.languages import language_of
from rotary_batch.repo.manifests import NAMES
from rotary_batch.repo.parse import parse_file
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.repo.symbols import parse
from rotary_batch.testing import MemoryNames

SAMPLE = 3000  # call sites of one folder, chosen by a fixed seed
MAX_SHOWN = 40  # disagreements


class Site(NamedTuple):
    """One name that is called."""

    path: str
    name: str
    line: int
    column: int  # characters, from 0


class Place(NamedTuple):
    """Where a definition begins."""

    path: str
    line: int
    name: str


def read(root: Path, folder: Path, languages: set[str]) -> tuple[list[ParsedFile], dict[str, bytes]]:
    """All sources below a folder, parsed; and its manifests.  Paths are relative to the root."""
    files, manifests = [], {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(root).as_posix()
        if "node_modules" in path.parts or not path.is_file():
            continue
        if path.name in NAMES:
            manifests[name] = path.read_bytes()
        language = language_of(name)
        if language in languages:
            file = SourceFile(path=name, blob="", nbytes=1, language=language, file_class=FileClass.SOURCE, reason="")
            files.append(parse_file(file, path.read_bytes(), 10**6, len))
    return files, manifests


def ours(files: Sequence[ParsedFile], manifests: dict[str, bytes], root: Path) -> dict[Site, Symbol]:
    """What we link each call site to; those that link to nothing are left out."""
    resolver = Resolver(MemoryNames(files, manifests))
    links = {}
    for one in files:
        source = (root / one.file.path).read_bytes()
        for reference in one.references:
            if (target := resolver.target(reference)) is not None:
                links[_site(reference, source)] = target
    return links


def _site(reference: Reference, source: bytes) -> Site:
    start = source.rfind(b"\n", 0, reference.start_byte) + 1
    column = len(source[start : reference.start_byte].decode("utf-8", "replace"))
    return Site(reference.path, reference.name, reference.line, column)


def python_sites(path: str, source: bytes) -> Iterator[Site]:
    """Every name that is called within a function or a class, which is where a call has a caller."""
    waiting = [(parse("python", source).root_node, False)]
    while waiting:
        node, inside = waiting.pop()
        if node.type == "call" and inside:
            function = node.child_by_field_name("function")
            name = function.child_by_field_name("attribute") if function and function.type == "attribute" else function
            if name is not None and name.type == "identifier":
                start = source.rfind(b"\n", 0, name.start_byte) + 1
                column = len(source[start : name.start_byte].decode("utf-8", "replace"))
                yield Site(path, (name.text or b"").decode(), name.start_point.row + 1, column)
        inside = inside or node.type in {"function_definition", "class_definition"}
        waiting += [(child, inside) for child in node.children]


def by_jedi(root: Path, folder: Path, sites: Iterable[Site]) -> Iterator[tuple[Site, set[Place] | None]]:
    """Where jedi says that names are defined, within the folder; None = it does not know, empty = elsewhere."""
    import jedi

    project = jedi.Project(str(root))
    scripts: dict[str, jedi.Script] = {}
    for site in sites:
        if site.path not in scripts:
            scripts[site.path] = jedi.Script(path=str(root / site.path), project=project)
        try:
            defined = scripts[site.path].goto(site.line, site.column, follow_imports=True)
            known = [one for one in defined if one.type in {"function", "class"}]
            if not known:
                inferred = scripts[site.path].infer(site.line, site.column)
                known = [*_of_file(defined), *(one for one in inferred if one.type in {"function", "class"})]
        except Exception:  # noqa: BLE001 - jedi has faults of its own
            known = []
        places = {
            Place(one.module_path.relative_to(root).as_posix(), one.line, one.name)
            for one in known
            if one.module_path and one.module_path.is_relative_to(folder)
        }
        yield site, places if known else None


def _of_file(names: Sequence[Any]) -> list[Any]:
    """Variables of a file or a class, not of a function."""
    return [one for one in names if one.type == "statement" and one.parent().type in {"module", "class"}]


def by_typescript(root: Path) -> Iterator[tuple[Site, set[Place] | None]]:
    """Where the TypeScript compiler says that names are defined."""
    script = Path(__file__).with_name("reading_graph.cjs")
    done = subprocess.run(["node", str(script), str(root)], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        yield Site(*row["site"]), None if row["places"] is None else {Place(*place) for place in row["places"]}


def compare(links: dict[Site, Symbol], others: Iterable[tuple[Site, set[Place] | None]]) -> Counter[str]:
    """How the answers to each call site relate; shows where they differ."""
    counts: Counter[str] = Counter()
    for site, places in others:
        link = links.get(site)
        if places is None:
            counts["only we say" if link else "nobody says"] += 1
        elif not places:
            counts["elsewhere, and we link" if link else "elsewhere"] += 1
        elif link is None:
            counts["missed"] += 1
        else:
            counts["agree" if any(_is_at(link, place) for place in places) else "differ"] += 1
        is_shown = places is not None and (
            bool(places) != bool(link) or (link and not any(_is_at(link, p) for p in places))
        )
        if is_shown and "-v" in sys.argv:
            print(site, "ours:", link and (link.path, link.qualified_name), "theirs:", places)
    return counts


def _is_at(symbol: Symbol, place: Place) -> bool:
    return (
        symbol.path == place.path
        and symbol.start_line <= place.line <= symbol.end_line
        and (place.name in {symbol.name, "__init__", "constructor"})
    )


def figures(counts: Counter[str]) -> str:
    """Cells of a table."""
    wrong = counts["differ"] + counts["elsewhere, and we link"]
    linked, theirs = counts["agree"] + wrong, counts["agree"] + counts["differ"] + counts["missed"]
    precision, recall = counts["agree"] / max(1, linked), counts["agree"] / max(1, theirs)
    return f"{counts.total():,} | {linked:,} | {precision:.1%} | {theirs:,} | {recall:.1%} | {counts['only we say']:,}"


def main() -> None:
    kind, *folders = [argument for argument in sys.argv[1:] if argument != "-v"]
    print(
        "| Sources | Call sites | Linked, and known to the other | Precision | In the folder | Recall | Only we link |"
    )
    print("|---|---|---|---|---|---|---|")
    for folder in map(Path, folders):
        folder = folder.resolve()  # noqa: PLW2901
        root = folder.parent if kind == "python" else folder  # a package is imported by its name
        if kind == "python":
            files, manifests = read(root, folder, {"python"})
            sites = [site for one in files for site in python_sites(one.file.path, (root / one.file.path).read_bytes())]
            chosen = random.Random(0).sample(sites, min(SAMPLE, len(sites)))
            others = by_jedi(root, folder, sorted(chosen))
        else:
            files, manifests = read(root, folder, {"typescript", "tsx", "javascript"})
            others = by_typescript(root)
        print(f"| {folder.name} | {figures(compare(ours(files, manifests, root), others))} |", flush=True)


if __name__ == "__main__":
    main()
