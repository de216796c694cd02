"""Pages as Markdown: plain CommonMark that a code forge shows and MkDocs and Zensical build.

This is the layout; `sanitise.py` makes text safe and `page.py` has what is said.  The same index and prose give the
same bytes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rotary_batch.core import SourceFile, Symbol, SymbolId, main_definitions
from rotary_batch.pages.front import seal
from rotary_batch.pages.not_read import unread
from rotary_batch.pages.page import (
    IndexView,
    Prose,
    Summary,
    SummarySource,
    after_first_paragraph,
    file_summary,
    first_paragraph,
    folder_summary,
    symbol_summary,
)
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import code, fenced, inline, link, one_line, path_link
from rotary_batch.sentences import split_sentences

ProseMap = Mapping[tuple[str, str], Prose]
MAX_BRIEF_CHARACTERS = 200  # of a summary in a table
MAX_LINKS = 8  # callers or callees named at one symbol
MAX_CRUMBS = 8  # folders named above a page; links up from 1,000 nested ones would take 3 MB on each page
DEMONSTRATION = "Sentences in *italics* were written by the embedded **demonstration model**: do not rely on them."


class Pages:
    """Renders the pages of one repository, with the prose that they need."""

    def __init__(self, view: IndexView, prose: ProseMap) -> None:
        self._view = view
        self._prose = prose

    def page(self, thing: str) -> bytes:
        """The page of a file, or of a folder, whose name ends with a slash; "/" is the repository."""
        return self._folder_page(thing.removesuffix("/")) if thing.endswith("/") else self._file_page(thing)

    def _file_page(self, path: str) -> bytes:
        view, file = self._view, self._view.sources[path]
        symbols = main_definitions(view.symbols.get(path, ()))
        notes = self._chunk_notes(path, symbols)
        blocks = [
            f"# {code(_name(path))}",
            self._crumbs(path),
            self._lead(("file", path), file_summary(path, view)),
        ]
        if rest := after_first_paragraph(view.docstrings.get(path, "")):
            blocks.append(fenced(rest))
        if path in view.fallbacks:
            blocks.append(f"This file was cut by lines: {inline(view.fallbacks[path])}.")
        blocks += notes.pop(None, [])
        if symbols:
            blocks.append(self._symbol_table(symbols))
        definitions = defaultdict(list)
        for symbol in view.symbols.get(path, ()):
            definitions[symbol.qualified_name].append(symbol)
        for symbol in symbols:
            others = [other for other in definitions[symbol.qualified_name] if other != symbol]
            blocks += [*self._symbol_section(symbol, others, file), *notes.get(symbol.id, [])]
        subjects = [("file", path), *(chunk.subject.identity for chunk in view.chunks.get(path, ()))]
        lines = max((chunk.end_line for chunk in view.chunks.get(path, ())), default=0)
        source = {"path": path, "blob": file.blob} | ({"lines": f"1-{lines}"} if lines else {})
        return self._seal(blocks, subjects, [source])

    def _folder_page(self, folder: str) -> bytes:
        view, inside = self._view, self._view.inside[folder]
        unit = ("directory", folder) if folder else ("repository", "")
        title = code(folder) if folder else inline(view.name)
        blocks = [f"# {title}", self._crumbs(folder) if folder else "", self._lead(unit, folder_summary(folder, view))]
        rows = [
            (f"{_name(inner)}/", f"{inner}/", ("directory", inner), folder_summary(inner, view))
            for inner in inside.folders
        ]
        rows += [(_name(path), path, ("file", path), file_summary(path, view)) for path in inside.files]
        here = f"{folder}/" if folder else "/"
        if rows:
            body = [
                f"| [{code(name)}]({self._page_link(here, thing)}) | {self._table_text(key, summary)} |"
                for name, thing, key, summary in rows
            ]
            blocks.append("\n".join(["| Name | Summary |", "| --- | --- |", *body]))
        if not folder:
            blocks += [self._languages(), self._not_read()]
        subjects = [unit, *(key for _, _, key, summary in rows if self._may_replace(key, summary))]
        return self._seal(blocks, subjects, [{"path": here, "blob": view.folder_blobs[folder]}])

    def _seal(
        self, blocks: Sequence[str], subjects: Sequence[tuple[str, str]], sources: Sequence[dict[str, str]]
    ) -> bytes:
        answered = [self._prose.get(key) for key in subjects]
        shown = [prose for prose in answered if prose and prose.text]
        done = sum(prose is not None and prose.verdict is not None for prose in answered)
        fields: dict[str, object] = {"status": _status(len(shown), done, len(subjects))}
        if shown:
            fields |= {"model": self._view.model_name, "coverage": f"{len(shown)} of {len(subjects)} texts"}
        banner = [f"> {DEMONSTRATION}"] if shown and self._view.demonstration else []
        body = "\n\n".join(filter(None, [blocks[0], *banner, *blocks[1:]])) + "\n"
        return seal(fields, sources, body)

    def _lead(self, key: tuple[str, str], summary: Summary) -> str:
        """The words of the author or of the structure, then the model's."""
        prose = self._prose.get(key)
        prose_text = self._styled(prose.text) if prose and prose.text else ""
        return "\n\n".join(filter(None, [inline(summary.text), prose_text]))

    def _styled(self, text: str) -> str:
        return f"*{inline(text)}*" if self._view.demonstration else inline(text)

    def _table_text(self, key: tuple[str, str], summary: Summary) -> str:
        """One line for a table: the author's, else the model's, else the structure's."""
        prose = self._prose.get(key)
        if prose and prose.text and self._may_replace(key, summary):
            return self._styled(_brief(prose.text))
        return inline(_brief(summary.text))

    def _may_replace(self, key: tuple[str, str], summary: Summary) -> bool:
        """Whether a table shows prose in the place of a summary: it does where the author said nothing."""
        return key in self._prose and summary.source is SummarySource.STRUCTURE

    def _crumbs(self, path: str) -> str:
        """Links from the repository down to here."""
        is_file = path in self._view.sources
        here = path if is_file else f"{path}/"
        above = [folder := parent_of(path)]
        while folder and len(above) <= MAX_CRUMBS:
            above.append(folder := parent_of(folder))
        named = [folder for folder in above[:MAX_CRUMBS] if folder]
        parts = [f"[{inline(self._view.name)}]({self._page_link(here, '/')})", *(["…"] if above[-1] else [])]
        parts += [f"[{code(_name(folder))}]({self._page_link(here, f'{folder}/')})" for folder in reversed(named)]
        if is_file:
            parts.append(f"[source]({self._source_link(path, None)})")
        return " / ".join(parts)

    def _symbol_table(self, symbols: Sequence[Symbol]) -> str:
        rows = [
            f"| [{code(s.qualified_name)}](#{anchor(s.qualified_name)}) | {s.kind} "
            f"| {inline(_brief(symbol_summary(s).text)) if s.docstring else ''} |"
            for s in symbols
        ]
        return "\n".join(["| Symbol | Kind | Summary |", "| --- | --- | --- |", *rows])

    def _symbol_section(self, symbol: Symbol, others: Sequence[Symbol], file: SourceFile) -> list[str]:
        """`others` define the same name."""
        language, path = file.language or "text", file.path
        where = self._lines_link(path, symbol)
        if elsewhere := ", ".join(self._lines_link(path, other) for other in others if other.kind != "declaration"):
            where += f" (also {elsewhere})"
        blocks = [
            f"## {code(symbol.qualified_name)}",
            f"{symbol.kind.capitalize()}, {where}",
            fenced(symbol.signature, language),
        ]
        if symbol.docstring:
            rest = after_first_paragraph(symbol.docstring)
            blocks += [inline(first_paragraph(symbol.docstring)), *([fenced(rest)] if rest else [])]
        uses = [
            ("Used by", self._view.callers.get(path, {}).get(symbol.id, ())),
            ("Uses", self._view.callees.get(path, {}).get(symbol.id, ())),
        ]
        blocks += [f"{word} {self._links(path, ids)}." for word, ids in uses if ids]
        return blocks

    def _lines_link(self, path: str, symbol: Symbol) -> str:
        return f"[{_lines(symbol.start_line, symbol.end_line)}]({self._source_link(path, symbol)})"

    def _links(self, path: str, ids: Sequence[SymbolId]) -> str:
        symbols = [symbol for symbol in map(self._view.symbol, ids) if symbol is not None]
        distinct = list({(symbol.path, symbol.qualified_name): symbol for symbol in symbols}.values())
        more = f" and {len(distinct) - MAX_LINKS} more" if len(distinct) > MAX_LINKS else ""
        return ", ".join(self._link(path, symbol) for symbol in distinct[:MAX_LINKS]) + more

    def _link(self, path: str, symbol: Symbol) -> str:
        page = "" if symbol.path == path else self._page_link(path, symbol.path)
        return f"[{code(symbol.qualified_name)}]({page}#{anchor(symbol.qualified_name)})"

    def _chunk_notes(self, path: str, symbols: Sequence[Symbol]) -> dict[SymbolId | None, list[str]]:
        """Symbol, or None for the whole file -> prose of chunks that is shown there.

        A chunk belongs to the first symbol that starts in it, else to the innermost one around it.
        """
        notes: dict[SymbolId | None, list[str]] = {}
        for chunk in self._view.chunks.get(path, ()):
            prose = self._prose.get(chunk.subject.identity)
            if prose is None or not prose.text:
                continue
            inside = [s for s in symbols if chunk.start_byte <= s.start_byte < chunk.end_byte]
            around = [s for s in symbols if s.start_byte < chunk.start_byte < s.end_byte]
            owner = inside[0].id if inside else around[-1].id if around else None
            is_whole_symbol = len(inside) == 1 and not around
            label = "" if is_whole_symbol else f"{_lines(chunk.start_line, chunk.end_line).capitalize()}: "
            notes.setdefault(owner, []).append(f"{label}{self._styled(prose.text)}")
        return notes

    def _languages(self) -> str:
        counts = Counter(file.language for file in self._view.sources.values())
        rows = [
            f"| {name} | {count} |" for name, count in sorted(counts.items(), key=lambda row: (-row[1], str(row[0])))
        ]
        return "\n".join(["## Languages", "", "| Language | Files |", "| --- | --- |", *rows]) if rows else ""

    def _not_read(self) -> str:
        rows = [f"| {kind} | {inline(reason)} | {count} |" for kind, reason, count in unread(self._view.files)]
        head = ["## Not documented", "", "| Class | Reason | Files |", "| --- | --- | --- |"]
        return "\n".join([*head, *rows]) if rows else ""

    def _page_link(self, here: str, there: str) -> str:
        """A relative link from one page to another."""
        return path_link(_relative(self._view.paths[there], parent_of(self._view.paths[here])))

    def _source_link(self, path: str, symbol: Symbol | None) -> str:
        view = self._view
        lines = (symbol.start_line, symbol.end_line) if symbol else (1, 1)
        if view.link_template:
            values = {"path": path_link(path), "start": str(lines[0]), "end": str(lines[1])}
            return link(re.sub(r"\{(path|start|end)\}", lambda field: values[field[1]], view.link_template))
        here = parent_of(f"{view.docs_root}/{view.paths[path]}")
        target = path_link(_relative(f"{view.root.rstrip('/')}/{path}", here))
        return f"{target}#L{lines[0]}-L{lines[1]}" if symbol else target


def _relative(target: str, start: str) -> str:
    """The way from a folder to a path; as `os.path.relpath`, but of names alone."""
    there, here = target.split("/"), start.split("/") if start else []
    shared = 0
    while shared < min(len(there) - 1, len(here)) and there[shared] == here[shared]:
        shared += 1
    return "/".join([".."] * (len(here) - shared) + there[shared:])


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def anchor(name: str) -> str:
    """The anchor that a heading gets from code forges and MkDocs alike."""
    return re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")


def _status(shown: int, done: int, total: int) -> str:
    if not shown:
        return "structural"
    return "complete" if done == total else "partial"


def _lines(start: int, end: int) -> str:
    return f"line {start}" if start == end else f"lines {start}-{end}"


def _brief(text: str) -> str:
    """The first sentence, cut between words when it is too long for a table."""
    sentence = next(iter(split_sentences(one_line(text[: 20 * MAX_BRIEF_CHARACTERS]))), "").strip()
    if len(sentence) <= MAX_BRIEF_CHARACTERS:
        return sentence
    cut = sentence[:MAX_BRIEF_CHARACTERS].rsplit(" ", 1)[0]
    return (cut.rsplit("`", 1)[0] if cut.count("`") % 2 else cut).rstrip(" ,") + " …"
