"""What pages are made from, where each page lies, and what structure alone says of a thing.

Knows the index and paths of pages; knows nothing of Markdown syntax or of files on disk.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rotary_batch.core import Chunk, FileClass, SourceFile, Symbol, SymbolId, Verdict, main_definitions

_RULER = re.compile(r"\s*([=\-~*^#])\1{2,}\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """What the model said of one thing, when it may be shown."""

    text: str | None
    verdict: Verdict | None  # None = not answered yet


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexView:
    """Everything that pages need to know of a repository."""

    name: str
    files: tuple[SourceFile, ...]
    docstrings: Mapping[str, str]  # by path
    fallbacks: Mapping[str, str]  # path -> why it was cut by lines
    symbols: Mapping[str, Sequence[Symbol]]  # by path, in file order
    chunks: Mapping[str, Sequence[Chunk]]  # by path, in file order
    callers: Mapping[SymbolId, Sequence[SymbolId]]
    callees: Mapping[SymbolId, Sequence[SymbolId]]
    model_name: str
    demonstration: bool
    docs_dir: str
    link_template: str | None = None
    by_id: Mapping[SymbolId, Symbol] = field(default_factory=dict)

    @property
    def sources(self) -> list[SourceFile]:
        """The files that have a page."""
        return [file for file in self.files if file.file_class is FileClass.SOURCE]

    @property
    def folders(self) -> list[str]:
        """Folders that hold sources, at any depth; the root, "", is not one of them."""
        return folders_of(file.path for file in self.sources)


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder above the paths but the root, sorted."""
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(found - {"."})


def parent_of(path: str) -> str:
    """The folder of a file or folder; "" is the root."""
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def page_paths(sources: Iterable[str]) -> dict[str, str]:
    """Source path -> page path, folder + "/" -> page path; the repository is "/".

    Paths that a file system could confuse (case, Unicode forms, a source called `index`) get a hash.
    """
    paths = sorted(sources)
    wanted = {"/": "index.md"}
    wanted |= {f"{folder}/": f"{folder}/index.md" for folder in folders_of(paths)}
    wanted |= {path: f"{path}.md" for path in paths}
    taken: set[str] = set()
    found = {}
    for thing, plain_page in wanted.items():
        page = plain_page
        folded = unicodedata.normalize("NFC", page).casefold()
        if folded in taken:
            mark = hashlib.sha256(thing.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            page = f"{page.removesuffix('.md')}-{mark}.md"
            folded = unicodedata.normalize("NFC", page).casefold()
        taken.add(folded)
        found[thing] = page
    return found


def folder_blob(folder: str, blobs: Mapping[str, str]) -> str:
    """One id for the files that lie directly in a folder; "" is the root."""
    prefix = f"{folder}/" if folder else ""
    inside = [f"{path} {blobs[path]}" for path in sorted(blobs) if path.startswith(prefix)]
    here = [line for line in inside if "/" not in line[len(prefix) :].split(" ")[0]]
    return hashlib.sha256("\n".join(here).encode("utf-8", "surrogateescape")).hexdigest()


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring on one line, without the rulers of headings."""
    lines = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split("\n")
    return " ".join(" ".join(line for line in lines if not _RULER.fullmatch(line)).split())


def after_first_paragraph(text: str) -> str:
    """What follows the first paragraph."""
    parts = re.split(r"\n\s*\n", text.strip(), maxsplit=1)
    return parts[1].strip("\n") if len(parts) > 1 else ""


def symbol_summary(symbol: Symbol) -> str:
    """What the author says of a symbol, else its signature."""
    return first_paragraph(symbol.docstring) if symbol.docstring else symbol.signature


def chunk_summary(chunk: Chunk, symbols: Sequence[Symbol]) -> str:
    """What structure says of a chunk."""
    inside = [symbol for symbol in symbols if chunk.start_byte <= symbol.start_byte < chunk.end_byte]
    return "; ".join(symbol_summary(symbol) for symbol in inside[:6]) or f"lines {chunk.start_line}-{chunk.end_line}"


def file_summary(path: str, view: IndexView) -> str:
    """What structure says of a file."""
    if path in view.docstrings:
        return first_paragraph(view.docstrings[path])
    names = [
        f"`{symbol.name}`"
        for symbol in main_definitions(view.symbols.get(path, ()))
        if "." not in symbol.qualified_name
    ]
    return f"Defines {_listed(names)}." if names else "Code without functions or types."


def folder_summary(folder: str, view: IndexView) -> str:
    """What structure says of a folder, "" being the whole repository."""
    prefix = f"{folder}/" if folder else ""
    opening = next(
        (p for p in (f"{prefix}__init__.py", f"{prefix}doc.go", f"{prefix}mod.rs") if p in view.docstrings), None
    )
    if opening:
        return first_paragraph(view.docstrings[opening])
    inside = [file.path.removeprefix(prefix) for file in view.sources if file.path.startswith(prefix)]
    names = list(dict.fromkeys(f"`{path.split('/')[0]}`" for path in inside))
    return f"Holds {_listed(names)}." if names else "Holds nothing that is documented here."


def _listed(names: Sequence[str], most: int = 6) -> str:
    if len(names) > most:
        return ", ".join(names[:most]) + f" and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
