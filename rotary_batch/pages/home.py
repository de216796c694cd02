"""What only the first page of a repository shows: what the project is, where to enter it, what it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rotary_batch.pages.entry_points import entry_lines
from rotary_batch.pages.links import Links
from rotary_batch.pages.not_read import LEFT_OUT, unread
from rotary_batch.pages.overview import Overview
from rotary_batch.pages.page import IndexView, brief, symbol_summary
from rotary_batch.pages.sanitise import inline, path_link
from rotary_batch.pages.symbol_index import INDEX_NAME
from rotary_batch.readme import first_paragraphs, readme_of


def project_words(view: IndexView) -> list[str]:
    """The first paragraphs of the README, each a block; none when there is no README."""
    path = readme_of([file.path for file in view.files if file.file_class not in LEFT_OUT])
    return [inline(text) for text in first_paragraphs(view.docstrings.get(path, ""))] if path else []


def closing_blocks(view: IndexView, links: Links) -> list[str]:
    """What follows the list of folders and files."""
    overview = view.overview()
    return [_most_used(view, overview, links), _languages(view), _coverage(view, overview), _not_read(view)]


def entry_points(view: IndexView, links: Links) -> str:
    """Main functions and scripts: where a program begins."""
    return _section("Entry points", entry_lines(view, links))


def _most_used(view: IndexView, overview: Overview, links: Links) -> str:
    rows = [
        f"| {links.symbol('/', symbol)} | {symbol.kind} | {number} "
        f"| {inline(brief(symbol_summary(symbol, view.language(symbol.path)).text)) if symbol.docstring else ''} |"
        for symbol, number in overview.most_used
    ]
    table = _table("Most used", ("Symbol", "Kind", "Used by", "Summary"), rows)
    index = f"Every public symbol is in the [symbol index]({path_link(INDEX_NAME)})." if overview.num_symbols else ""
    return "\n\n".join(filter(None, [table, index]))


def _languages(view: IndexView) -> str:
    counts: Counter[str | None] = Counter(file.language for file in view.sources.values())
    nbytes: Counter[str | None] = Counter()
    for file in view.sources.values():
        nbytes[file.language] += file.nbytes
    order = sorted(counts, key=lambda name: (-counts[name], str(name)))
    rows = [f"| {name} | {counts[name]} | {nbytes[name] / 1000:.1f} |" for name in order]
    return _table("Languages", ("Language", "Files", "kB"), rows)


def _coverage(view: IndexView, overview: Overview) -> str:
    if not overview.num_symbols:
        return ""
    num_texts, num_shown = view.text_counts()
    described = sum(path in view.docstrings for path in view.sources)
    rows = [
        _share("Files read", len(view.sources) + len(view.stubs), _num_files(view)),
        _share("Files with words of their author", described, len(view.sources)),
        _share("Symbols with words of their author", overview.num_described, overview.num_symbols),
        _share("Texts written by the model", num_shown, num_texts),
    ]
    return _table("Coverage", ("What", "Number", "Of", "Share"), [row for row in rows if row])


def _num_files(view: IndexView) -> int:
    return sum(file.file_class not in LEFT_OUT for file in view.files)


def _share(what: str, number: int, total: int) -> str:
    return f"| {what} | {number} | {total} | {100 * number // total} % |" if total else ""


def _not_read(view: IndexView) -> str:
    rows = [f"| {kind} | {inline(reason)} | {count} |" for kind, reason, count in unread(view.files)]
    return _table("Not documented", ("Class", "Reason", "Files"), rows)


def _table(title: str, columns: Sequence[str], rows: Iterable[str]) -> str:
    body = list(rows)
    head = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return _section(title, [*head, *body]) if body else ""


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines]) if lines else ""
