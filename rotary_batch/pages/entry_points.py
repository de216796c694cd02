"""Where programs begin: main functions, scripts, and what a project installs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rotary_batch.core import FactKind, FactOf, Symbol
from rotary_batch.pages.links import Links
from rotary_batch.pages.outline import is_test_file
from rotary_batch.pages.page import IndexView, SummarySource, brief, file_summary, symbol_summary
from rotary_batch.pages.sanitise import code, inline

MAX_SHOWN = 12
_SCRIPT_FOLDERS = {"bin", "sbin", "exe"}


def entry_files(paths: Iterable[str], mains: Iterable[str], facts: Iterable[FactOf]) -> list[str]:
    """The files at which programs begin, the nearest to the top first; `mains` are those with a main function."""
    known = list(paths)
    scripts = {one.path for one in facts if one.fact.kind is FactKind.SCRIPT}
    begin = {*mains, *(path for path in known if path in scripts or _is_script(path))}.intersection(known)
    return sorted((path for path in begin if not is_test_file(path)), key=lambda path: (path.count("/"), path))


def files_of(view: IndexView) -> list[str]:
    """The files of a repository at which programs begin."""
    overview = view.overview()
    return entry_files(view.sources, (symbol.path for symbol in overview.main_functions), overview.facts)


def entry_lines(view: IndexView, links: Links) -> list[str]:
    """A line of a list for each main function and each other file at which a program begins."""
    mains: dict[str, list[Symbol | None]] = {}
    for symbol in view.overview().main_functions:
        mains.setdefault(symbol.path, []).append(symbol)
    places = [(path, symbol) for path in files_of(view) for symbol in mains.get(path, [None])]
    return [*(_line(path, symbol, view, links) for path, symbol in places[:MAX_SHOWN]), *_more(places)]


def _line(path: str, symbol: Symbol | None, view: IndexView, links: Links) -> str:
    name = f"{links.symbol('/', symbol)} in " if symbol else ""
    return f"- {name}{_file(links, path)}{_told(path, symbol, view)}"


def program_lines(facts: Sequence[FactOf]) -> list[str]:
    """A line of a list for each program that the project installs."""
    programs = [one for one in facts if one.fact.kind is FactKind.ENTRY]
    lines = [f"- {code(one.fact.name)} runs {code(one.fact.code)}, says {code(one.path)}" for one in programs]
    return [*lines[:MAX_SHOWN], *_more(lines)]


def words_on(path: str, symbol: Symbol | None, view: IndexView) -> str:
    """What the author says of the file of an entry point, else of its main function; "" if nothing."""
    summaries = [file_summary(path, view), *([symbol_summary(symbol, view.language(path))] if symbol else [])]
    return next((one.text for one in summaries if one.source is SummarySource.AUTHOR), "")


def _told(path: str, symbol: Symbol | None, view: IndexView) -> str:
    words = words_on(path, symbol, view)
    return f": {inline(brief(words))}" if words else ""


def _is_script(path: str) -> bool:
    *folders, name = path.split("/")
    return name == "__main__.py" or (bool(folders) and folders[-1] in _SCRIPT_FOLDERS)


def _file(links: Links, path: str) -> str:
    return f"[{code(path)}]({links.page('/', path)})"


def _more(lines: Sequence[object]) -> list[str]:
    return [f"- and {len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
