"""Pages as Markdown: plain CommonMark that a code forge shows and MkDocs and Zensical build.

This is the layout; `sanitise.py` makes text safe and `page.py` has what is said.  The same index and prose give the
same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, takewhile

from rotary_batch.core import TOPICS_PAGE, Linked, SourceFile, Symbol, SymbolId, Unit, overloads, stub_of
from rotary_batch.pages.authored.blocks import Notice, Paragraph
from rotary_batch.pages.authored.reading import authored_summary, read_authored
from rotary_batch.pages.authored.render import known_language, to_markdown
from rotary_batch.pages.front import seal
from rotary_batch.pages.home import closing_blocks, entry_points, project_words
from rotary_batch.pages.inheritance import bases_of, derived_from
from rotary_batch.pages.links import Links
from rotary_batch.pages.maps import is_test, map_block
from rotary_batch.pages.onboarding import TITLE, ProseMap, asked_on_topics, contents, topic_blocks
from rotary_batch.pages.outline import Outline, Part, is_test_folder
from rotary_batch.pages.page import (
    IndexView,
    Summary,
    SummarySource,
    brief,
    file_summary,
    folder_summary,
)
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import code, fenced, inline
from rotary_batch.pages.symbol_details import ToldDetail, detail_of, detail_tables
from rotary_batch.pages.symbol_index import is_index_thing

MAX_LINKS = 8  # callers or callees named at one symbol
MAX_CRUMBS = 8  # folders named above a page; links up from 1,000 nested ones would take 3 MB on each page
DEMONSTRATION = "Sentences in *italics* were written by the **demonstration model**: do not rely on them."


class Pages:
    """Renders the pages of one repository, with the prose that they need."""

    def __init__(self, view: IndexView, prose: ProseMap) -> None:
        self._view = view
        self._prose = prose
        self._to = Links(view)

    def page(self, thing: str) -> bytes:
        """The page of a file, of a folder, whose name ends with a slash ("/" is the repository), or of the index."""
        if is_index_thing(thing):
            blocks = self._view.symbol_index.blocks(thing, self._view.paths)
            return seal({"status": "structural"}, [], "\n\n".join(blocks) + "\n")
        if thing == TOPICS_PAGE:
            return self._topics_page()
        return self._folder_page(thing.removesuffix("/")) if thing.endswith("/") else self._file_page(thing)

    def _file_page(self, path: str) -> bytes:
        view, file = self._view, self._view.sources[path]
        arranged = self._to.outline(path)
        notes = self._chunk_notes(path, sorted(arranged.sections, key=lambda symbol: symbol.id))
        asked = [key for key in self._of_source(path, arranged) if key in self._prose]
        blocks = [
            f"# {code(_name(path))}",
            self._crumbs(path),
            self._lead(("file", path), file_summary(path, view)),
        ]
        if docstring := view.docstrings.get(path):
            blocks += to_markdown(read_authored(docstring, file.language).blocks)
        if path in view.fallbacks:
            blocks.append(f"This file was cut by lines: {inline(view.fallbacks[path])}.")
        blocks += notes.pop(None, [])
        blocks += self._symbol_tables(arranged, file.language)
        for symbol in arranged.sections:
            blocks += [*self._symbol_section(symbol, arranged, file), *notes.get(symbol.id, [])]
        lines = max((chunk.end_line for chunk in view.chunks.get(path, ())), default=0)
        source = {"path": path, "blob": file.blob} | ({"lines": f"1-{lines}"} if lines else {})
        stub = view.stubs.get(stub_of(path))
        stubs = [{"path": stub.path, "blob": stub.blob}] if stub else []
        return self._seal(blocks, [("file", path), *asked], [source, *stubs])

    def _of_source(self, path: str, arranged: Outline) -> Iterator[tuple[str, str]]:
        """What may have been asked about the source of a file."""
        yield from (chunk.subject.identity for chunk in self._view.chunks.get(path, ()))
        for symbol in arranged.sections:
            yield symbol.subject.identity
            yield from self._details(symbol)

    def _details(self, symbol: Symbol) -> Iterator[tuple[str, str]]:
        """What was asked about the parameters, the result and the exceptions of a symbol."""
        keys = (replace(symbol.subject, unit=Unit.DETAIL, part=number).identity for number in count(1))
        return takewhile(self._prose.__contains__, keys)

    def _told_details(self, symbol: Symbol) -> list[ToldDetail]:
        prose = map(self._prose.__getitem__, self._details(symbol))
        return [ToldDetail(detail_of(one.label), one.text) for one in prose if one.label]

    def _answer_on(self, symbol: Symbol) -> str | None:
        prose = self._prose.get(symbol.subject.identity)
        return prose.text if prose else None

    def _folder_page(self, folder: str) -> bytes:
        view, inside = self._view, self._view.inside[folder]
        unit = ("directory", folder) if folder else ("repository", "")
        title = code(folder) if folder else inline(view.name)
        here = f"{folder}/" if folder else "/"
        blocks = [f"# {title}", self._crumbs(folder) if folder else "", *self._folder_lead(folder, unit)]
        if not folder:
            blocks.append(f"New here? [{TITLE}]({self._to.page('/', TOPICS_PAGE)}): {contents(view, self._to)}")
        blocks.append(self._map(folder))
        if not folder:
            blocks.append(entry_points(view, self._to))
        rows = [
            (f"{_name(inner)}/", f"{inner}/", ("directory", inner), folder_summary(inner, view))
            for inner in inside.folders
        ]
        rows += [(_name(path), path, ("file", path), file_summary(path, view)) for path in inside.files]
        tests = [row for row in rows if is_test(row[1])] if not is_test_folder(folder) else []
        tables = [self._contents(here, [row for row in rows if row not in tests], "Name")]
        tables.append(self._contents(here, tests, "Tests"))
        if any(block.startswith("## ") for block in blocks) and any(tables):
            blocks.append("## Files" if not inside.folders else "## Files and folders")
        blocks += tables
        if not folder:
            blocks += closing_blocks(view, self._to)
        subjects = [unit, *(key for _, _, key, summary in rows if self._may_replace(key, summary))]
        return self._seal(blocks, subjects, [{"path": here, "blob": view.folder_blobs[folder]}])

    def _topics_page(self) -> bytes:
        view = self._view
        blocks = [f"# {TITLE}", self._crumbs_to_top(), *topic_blocks(view, self._to, self._prose, self._styled)]
        return self._seal(blocks, asked_on_topics(view, self._prose), [{"path": "/", "blob": view.folder_blobs[""]}])

    def _crumbs_to_top(self) -> str:
        return f"[{inline(self._view.name)}]({self._to.page('/', '/')})"

    def _folder_lead(self, folder: str, unit: tuple[str, str]) -> list[str]:
        """The words of the README on the first page, else as on every page."""
        words = [] if folder else project_words(self._view)
        if not words:
            return [self._lead(unit, folder_summary(folder, self._view))]
        prose = self._prose.get(unit)
        return [*words, *([self._styled(prose.text)] if prose and prose.text else [])]

    def _map(self, folder: str) -> str:
        """A diagram of which part of a folder uses which; on the first page, of the first folder that has one."""
        drawn = map_block(self._view, self._to, folder)
        return f"## Map\n\n{drawn}" if drawn else ""

    def _contents(self, here: str, rows: Sequence[tuple[str, str, tuple[str, str], Summary]], column: str) -> str:
        body = [
            f"| [{code(name)}]({self._to.page(here, thing)}) | {self._table_text(key, summary)} |"
            for name, thing, key, summary in rows
        ]
        return "\n".join([f"| {column} | Summary |", "| --- | --- |", *body]) if body else ""

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
            return self._styled(brief(prose.text))
        return inline(brief(summary.text))

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
        parts = [f"[{inline(self._view.name)}]({self._to.page(here, '/')})", *(["…"] if above[-1] else [])]
        parts += [f"[{code(_name(folder))}]({self._to.page(here, f'{folder}/')})" for folder in reversed(named)]
        if is_file:
            parts.append(f"[source]({self._to.source(path, None)})")
        return " / ".join(parts)

    def _symbol_tables(self, arranged: Outline, language: str | None) -> list[str]:
        """A table for each part of the page."""
        tables = []
        for part, symbols in arranged.parts.items():
            rows = [
                f"| [{code(s.qualified_name)}](#{arranged.headings[s.id].anchor}) | {s.kind} "
                f"| {self._brief_on(s, language)} |"
                for s in symbols
            ]
            column = "Symbol" if part is Part.PUBLIC else part.value
            tables.append("\n".join([f"| {column} | Kind | Summary |", "| --- | --- | --- |", *rows]))
        return tables

    def _brief_on(self, symbol: Symbol, language: str | None) -> str:
        """The author's words on a symbol, else the model's."""
        by_author = brief(authored_summary(symbol.docstring, language)) if symbol.docstring else ""
        if by_author:
            return inline(by_author)
        answer = self._answer_on(symbol)
        return self._styled(brief(answer)) if answer else ""

    def _symbol_section(self, symbol: Symbol, arranged: Outline, file: SourceFile) -> list[str]:
        path, language = file.path, known_language(file.language or "text")
        where = self._lines_link(path, symbol)
        # What a stub declares has no lines of its own.
        others = (
            one for one in arranged.others[symbol.id] if not symbol.start_line <= one.start_line <= symbol.end_line
        )
        if elsewhere := ", ".join(self._lines_link(path, other) for other in others):
            where += f" (also {elsewhere})"
        blocks = [
            arranged.headings[symbol.id].markdown,
            f"{symbol.kind.capitalize()}, {where}",
        ]
        for signatures, docstring in overloads(
            symbol, (other for other in arranged.others[symbol.id] if other.kind == symbol.kind)
        ):
            blocks.append(fenced("\n".join(signatures), language))
            if docstring:
                words = read_authored(docstring, file.language)
                blocks += [inline(words.summary), *to_markdown(words.blocks)]
        if answer := self._answer_on(symbol):
            blocks.append(self._styled(answer))
        blocks += detail_tables(symbol, file.language, self._told_details(symbol), self._styled)
        blocks += self._example(symbol, arranged)
        blocks += _member_table(arranged.members.get(symbol.id, ()), file.language)
        view = self._view
        places = [("Declared in", view.declared_in), ("Defined in", view.defined_in), ("Other parts in", view.parts)]
        blocks += [
            f"{word} {self._links(path, ends[path][symbol.id], by_path=True)}."
            for word, ends in places
            if symbol.id in ends.get(path, {})
        ]
        edges = [*bases_of(view, self._to, symbol), *derived_from(view, self._to, symbol)]
        calls = [("Used by", view.callers), ("Uses", view.callees)]
        edges += [(word, ends[path][symbol.id]) for word, ends in calls if symbol.id in ends.get(path, {})]
        blocks += [f"{word} {self._links(path, ends)}." for word, ends in edges]
        return blocks

    def _example(self, symbol: Symbol, arranged: Outline) -> list[str]:
        """A test that calls a public symbol, if the job tells of any."""
        found = self._view.examples.get(symbol.path, {}).get(symbol.id)
        test = self._to.section(found.test) if found and symbol in arranged.parts.get(Part.PUBLIC, ()) else None
        if found is None or test is None:
            return []
        language = known_language(self._view.language(test.path) or "text")
        return [f"Example, from {self._to.symbol(symbol.path, test)}:", fenced(found.text, language)]

    def _lines_link(self, path: str, symbol: Symbol) -> str:
        return f"[{_lines(symbol.start_line, symbol.end_line)}]({self._to.source(path, symbol)})"

    def _links(self, path: str, linked: Linked, *, by_path: bool = False) -> str:
        shown = linked.ids[:MAX_LINKS]
        sections = [section for section in map(self._to.section, shown) if section is not None]
        distinct = {section.id: section for section in sections}
        more = f" and {linked.total - len(shown):,} more" if linked.total > len(shown) else ""
        texts = [(symbol, symbol.path if by_path else "") for symbol in distinct.values()]
        return ", ".join(self._to.symbol(path, symbol, text) for symbol, text in texts) + more

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


def _member_table(members: Sequence[Symbol], language: str | None) -> list[str]:
    """The fields of a container, one row each."""
    rows = [
        f"| {code(' '.join([*member.decorators, member.signature or member.name]))} "
        f"| {inline(_words_of_member(member.docstring, language)) if member.docstring else ''} |"
        for member in members
    ]
    column = "Member" if all(member.kind == "member" for member in members) else "Field"
    return ["\n".join([f"| {column} | Summary |", "| --- | --- |", *rows])] if rows else []


def _words_of_member(docstring: str, language: str | None) -> str:
    """The first sentence on a field, whether it is deprecated, and its default value."""
    words = read_authored(docstring, language)
    parts = [brief(words.summary)]
    for block in words.blocks:
        if isinstance(block, Notice) and block.title == "Deprecated":
            parts.insert(0, "Deprecated.")
        elif isinstance(block, Paragraph) and block.text.startswith("Default: "):
            parts.append(brief(block.text))
    return " ".join(filter(None, parts))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _status(shown: int, done: int, total: int) -> str:
    if not shown:
        return "structural"
    return "complete" if done == total else "partial"


def _lines(start: int, end: int) -> str:
    return f"line {start}" if start == end else f"lines {start}-{end}"
