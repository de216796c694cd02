"""What pages are made from, and what is known of a thing without a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import (
    DATA_KINDS,
    Chunk,
    Example,
    FileClass,
    Linked,
    SourceFile,
    Symbol,
    SymbolId,
    Verdict,
    main_definitions,
)
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.outline import Outline, outline
from rotary_batch.pages.overview import Overview
from rotary_batch.pages.package_words import speakers_of_folder
from rotary_batch.pages.page_paths import folders_of, page_paths, parent_of
from rotary_batch.pages.sanitise import one_line
from rotary_batch.pages.symbol_index import Listed, SymbolIndex
from rotary_batch.sentences import split_sentences

# What is said of how a type may be used, and not of what it is.
_ABOUT_USE = re.compile(
    r"(?:all\s+|none\s+|most\s+|any\s+|each\s+)?(?:of\s+)?(?:the\s+)?"
    r"(?:fields?|members?|internals?|contents?|details|layout|implementation)\s+of\s+(?:this|the)\b"
    r"|(?:this|the|these)\s+(?:struct(?:ure)?|class|type|union|record|object|enum|interface|trait|protocol|fields?|members?)"
    r"\s+(?:is|are|was|were|should|must|may|can(?:not)?|will)\s+"
    r"(?:\w+\s+)?(?:not|never|only|be|private|internal|opaque|deprecated|experimental|unstable)\b"
    r"|(?:please\s+)?(?:do(?:es)?\s+not|don['\u2019]t|never|must\s+not|should\s+not)\b"
    r"|(?:note|nb|n\.b\.|warning|caution|beware|attention|important|internal|private|deprecated|fixme|todo|xxx|hack)"
    r"(?:\s*[:!.,-]|\s+(?:that|of|to|only|use|api|detail|implementation)\b)",
    re.IGNORECASE,
)
_PARTS = {"method", "constructor", "property", "field", "member"}  # kinds of symbols that no file is about
MAX_LISTED = 6  # names or symbols in one summary
OUTLINES_CACHED = 1000  # of files: those of a batch of pages, and of what they link to
MAX_BRIEF_CHARACTERS = 200  # of a summary in a table


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """What the model said of one thing, when it may be shown."""

    text: str | None
    verdict: Verdict | None  # None = not answered yet
    label: str | None = None  # of a detail of a symbol


class SummarySource(Enum):
    """Who says what a summary says."""

    AUTHOR = "author"  # a docstring
    STRUCTURE = "structure"  # names and signatures


class Summary(NamedTuple):
    """What is known of a thing without a model."""

    text: str
    source: SummarySource


class Inside(NamedTuple):
    """What is directly in a folder."""

    folders: list[str]
    files: list[str]


@dataclass(frozen=True, kw_only=True)
class IndexView:
    """Everything that pages need to know of a repository."""

    name: str
    files: tuple[SourceFile, ...]
    docstrings: Mapping[str, str]  # by path
    fallbacks: Mapping[str, str]  # path -> why it was cut by lines
    symbols: Mapping[str, Sequence[Symbol]]  # by path, in file order
    chunks: Mapping[str, Sequence[Chunk]]  # by path, in file order
    callers: Mapping[str, Mapping[SymbolId, Linked]]  # by the path of what is called
    callees: Mapping[str, Mapping[SymbolId, Linked]]  # by the path of what calls
    model_name: str
    demonstration: bool
    docs_dir: str
    listed: Listed
    root: str = "/"
    link_template: str | None = None
    uses: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    """Folder -> (part, another part that it uses) -> number of uses; parts are names of folders and files in it."""
    overview: Callable[[], Overview] = Overview
    text_counts: Callable[[], tuple[int, int]] = lambda: (0, 0)  # texts that a model is asked for, texts shown
    bases: Mapping[str, Mapping[SymbolId, Linked]] = field(default_factory=dict)  # by the path of the derived type
    derived: Mapping[str, Mapping[SymbolId, Linked]] = field(default_factory=dict)  # by the path of the base
    declared_in: Mapping[str, Mapping[SymbolId, Linked]] = field(default_factory=dict)  # by the path of the definition
    defined_in: Mapping[str, Mapping[SymbolId, Linked]] = field(default_factory=dict)  # by the path of the declaration
    parts: Mapping[str, Mapping[SymbolId, Linked]] = field(default_factory=dict)  # others of a type, by the path of one
    examples: Mapping[str, Mapping[SymbolId, Example]] = field(default_factory=dict)  # by the path of what a test calls

    @cached_property
    def sources(self) -> Mapping[str, SourceFile]:
        """The files that have a page, by path, in path order."""
        return {file.path: file for file in self.files if file.file_class is FileClass.SOURCE}

    @cached_property
    def stubs(self) -> Mapping[str, SourceFile]:
        """The stubs, whose signatures are on the pages of their sources, by path."""
        return {file.path: file for file in self.files if file.file_class is FileClass.STUB}

    def language(self, path: str) -> str | None:
        """The language of a file, if it has a page."""
        return self.sources[path].language if path in self.sources else None

    @cached_property
    def folders(self) -> Sequence[str]:
        """Folders that hold sources, at any depth; the root, "", is not one of them."""
        return folders_of(self.sources)

    @cached_property
    def inside(self) -> Mapping[str, Inside]:
        """What is directly in each folder, the root included; in path order."""
        contents = {folder: Inside([], []) for folder in ("", *self.folders)}
        for folder in self.folders:
            contents[parent_of(folder)].folders.append(folder)
        for path in self.sources:
            contents[parent_of(path)].files.append(path)
        return contents

    @cached_property
    def docs_root(self) -> str:
        """The docs folder, as an absolute path."""
        return str(PurePosixPath(self.root, self.docs_dir))

    @cached_property
    def folder_blobs(self) -> Mapping[str, str]:
        """What the pages of folders say that they describe."""
        return folder_blobs({path: file.blob for path, file in self.sources.items()})

    @cached_property
    def outline(self) -> Callable[[str], Outline]:
        """The outline of the page of a file, by path."""
        return lru_cache(OUTLINES_CACHED)(lambda path: outline(path, self.symbols.get(path, ())))

    @cached_property
    def symbol_index(self) -> SymbolIndex:
        """The pages of the symbol index."""
        return SymbolIndex(self.listed)

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """Source path, or folder + "/", -> page path."""
        return page_paths(self.sources)


def folder_blobs(blobs: Mapping[str, str]) -> dict[str, str]:
    """One id for the files that are directly in each folder; "" is the root."""
    lines: dict[str, list[str]] = {folder: [] for folder in ("", *folders_of(blobs))}
    for path in sorted(blobs):
        lines[parent_of(path)].append(f"{path} {blobs[path]}")
    return {folder: _digest("\n".join(here)) for folder, here in lines.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def symbol_summary(symbol: Symbol, language: str | None) -> Summary:
    """The author's words, else the signature."""
    by_author = authored_summary(symbol.docstring, language) if symbol.docstring else ""
    return _by_author(by_author) if by_author else _by_structure(symbol.signature)


def chunk_outline(chunk: Chunk, symbols: Sequence[Symbol], language: str | None) -> str:
    """The summaries of the symbols that start in a chunk, else its lines."""
    inside = [symbol for symbol in symbols if chunk.start_byte <= symbol.start_byte < chunk.end_byte]
    inside = [symbol for symbol in inside if symbol.kind not in DATA_KINDS] or inside
    summaries = [symbol_summary(symbol, language).text for symbol in inside[:MAX_LISTED]]
    return "; ".join(summaries) or f"lines {chunk.start_line}-{chunk.end_line}"


def file_summary(path: str, view: IndexView) -> Summary:
    """The author's words on a file or on what it is named after, else the names that it defines."""
    return summary_of(path, view.docstrings.get(path), view.language(path), lambda: view.symbols.get(path, ()))


def summary_of(
    path: str, docstring: str | None, language: str | None, symbols_of_file: Callable[[], Sequence[Symbol]]
) -> Summary:
    """The summary of one file, of whose symbols nothing is read when its author says what it is."""
    if by_author := authored_summary(docstring, language) if docstring else "":
        return _by_author(by_author)
    symbols = main_definitions(symbols_of_file(), or_declarations=True)
    stem = _folded(PurePosixPath(path).stem)
    namesake = next((s for s in symbols if s.docstring and s.kind not in _PARTS and _folded(s.name) == stem), None)
    by_author = authored_summary(namesake.docstring or "", language) if namesake else ""
    if by_author and not _ABOUT_USE.match(by_author):
        return _by_author(by_author)
    names = [f"`{symbol.qualified_name}`" for symbol in _most_telling(symbols)]
    return _by_structure(f"Defines {_listed(names)}." if names else "Code without functions or types.")


def _most_telling(symbols: Sequence[Symbol]) -> Sequence[Symbol]:
    """Functions and types at the top of a file, else constants there, else the members of types of other files.

    Private ones count only in a file that has no others.  Macros come last: in C those that set up headers are first.
    """
    top = [symbol for symbol in symbols if "." not in symbol.qualified_name]
    top = [symbol for symbol in top if symbol.is_public] or top
    told = [symbol for symbol in top if symbol.kind not in DATA_KINDS] or top or symbols
    return sorted(told, key=lambda symbol: symbol.kind == "macro")


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def folder_summary(folder: str, view: IndexView) -> Summary:
    """What the author says of a folder, else the names of what is in it; "" is the whole repository."""
    prefix, inside = f"{folder}/" if folder else "", view.inside.get(folder, Inside([], []))
    speakers = speakers_of_folder(folder, inside.files, view.docstrings)
    if by_author := next(filter(None, (_file_words(path, view) for path in speakers)), None):
        return _by_author(by_author)
    # In the order of the paths in them: `a-b` is before `a/`, so a folder is where its first file would be.
    shown = sorted([f"{path}/" for path in inside.folders] + inside.files)
    names = [f"`{path[len(prefix) :].removesuffix('/')}`" for path in shown]
    return _by_structure(f"Holds {_listed(names)}." if names else "Holds nothing that is documented here.")


def _file_words(path: str, view: IndexView) -> str:
    if path not in view.docstrings:
        return ""
    return authored_summary(view.docstrings[path], view.language(path))


def _by_author(text: str) -> Summary:
    return Summary(text, SummarySource.AUTHOR)


def _by_structure(text: str) -> Summary:
    return Summary(text, SummarySource.STRUCTURE)


def _listed(names: Sequence[str]) -> str:
    if len(names) > MAX_LISTED:
        return ", ".join(names[:MAX_LISTED]) + f" and {len(names) - MAX_LISTED} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def brief(text: str) -> str:
    """The first sentence, cut between words when it is too long for a table."""
    sentence = next(iter(split_sentences(one_line(text[: 20 * MAX_BRIEF_CHARACTERS]))), "").strip()
    if len(sentence) <= MAX_BRIEF_CHARACTERS:
        return sentence
    cut = sentence[:MAX_BRIEF_CHARACTERS].rsplit(" ", 1)[0]
    return (cut.rsplit("`", 1)[0] if cut.count("`") % 2 else cut).rstrip(" ,") + " …"
