"""Links of pages: to pages, to symbols on them, to source lines; relative, so that they work wherever the tree is."""

from __future__ import annotations

import re

from rotary_batch.core import Symbol, SymbolId
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import code, link, path_link


class Links:
    """Makes the links of the pages of one repository."""

    def __init__(self, view: IndexView) -> None:
        self._view = view
        self.outline = view.outline

    def page(self, here: str, there: str) -> str:
        """The target of a link from the page of one thing to that of another."""
        return path_link(relative(self._view.paths[there], parent_of(self._view.paths[here])))

    def symbol(self, here: str, symbol: Symbol, text: str = "") -> str:
        """A link to the section that shows a symbol, with its name or another text."""
        anchor = self.outline(symbol.path).anchor(symbol.id)
        page = "" if symbol.path == here and anchor else self.page(here, symbol.path)
        return f"[{code(text or symbol.qualified_name)}]({page}{f'#{anchor}' if anchor else ''})"

    def section(self, symbol_id: SymbolId) -> Symbol | None:
        """The symbol of the section that shows a symbol; None when it is not shown."""
        return self.outline(symbol_id.path).sections_of.get(symbol_id) if symbol_id.path in self._view.sources else None

    def source(self, path: str, symbol: Symbol | None) -> str:
        """The target of a link to a file, or to the lines of a symbol in it."""
        view = self._view
        lines = (symbol.start_line, symbol.end_line) if symbol else (1, 1)
        if view.link_template:
            return link(source_url(view.link_template, path, *lines))
        here = parent_of(f"{view.docs_root}/{view.paths[path]}")
        target = path_link(relative(f"{view.root.rstrip('/')}/{path}", here))
        return f"{target}#L{lines[0]}-L{lines[1]}" if symbol else target


def source_url(template: str, path: str, start: int, end: int) -> str:
    """The URL of some lines by a template with {path}, {start} and {end}."""
    values = {"path": path_link(path), "start": str(start), "end": str(end)}
    return re.sub(r"\{(path|start|end)\}", lambda field: values[field[1]], template)


def relative(target: str, start: str) -> str:
    """The way from a folder to a path; as `os.path.relpath`, but of names alone."""
    there, here = target.split("/"), start.split("/") if start else []
    shared = 0
    while shared < min(len(there) - 1, len(here)) and there[shared] == here[shared]:
        shared += 1
    return "/".join([".."] * (len(here) - shared) + there[shared:])
