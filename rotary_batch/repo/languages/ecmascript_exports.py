"""Which symbols of a JavaScript or TypeScript file its users can reach."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rotary_batch.core import Symbol
from rotary_batch.repo.languages.ecmascript_modules import WHOLE
from rotary_batch.repo.languages.language import Definition

PRIVATE_TAG = re.compile(r"^\s*@(private|internal|hidden|ignore|api\s+private)\b", re.MULTILINE)
_VALUES = {"constant", "variable"}
_REEXPORTS = {"declaration", "variable"}
_AMBIENT = (".d.ts", ".d.mts", ".d.cts")
_COMPONENTS = (".vue", ".svelte")


def complete(symbols: Sequence[Symbol], exports: Sequence[Definition]) -> Sequence[Symbol]:
    """The symbols with what is exported as public; other constants and variables are nobody's business.

    All at the top of a file without exports is public: it is a script, or its names are global.  So is all at the top
    of a component's script, which the component's template uses.
    """
    if not symbols:
        return ()
    visible = _Visible(symbols, exports)
    named = [symbol for symbol in _named(symbols, exports) if not visible.is_stray(symbol)]
    kept = [(one, visible.is_public(one)) for one in named if not visible.is_internal(one)]
    return [one if one.is_public == is_public else replace(one, is_public=is_public) for one, is_public in kept]


def _named(symbols: Sequence[Symbol], exports: Iterable[Definition]) -> Iterable[Symbol]:
    """`export { a as b }` is a symbol like `a` under another name, and `export { a }` is none."""
    by_place = {(export.outer.start_byte, export.name): export for export in exports}
    by_name = {symbol.qualified_name: symbol for symbol in symbols if symbol.kind not in _REEXPORTS}
    variables = {symbol.qualified_name: symbol for symbol in symbols if symbol.kind == "variable"}
    for symbol in symbols:
        export = by_place.get((symbol.start_byte, symbol.qualified_name))
        target = export and export.target and (by_name.get(export.target) or variables.get(export.target))
        if symbol.kind not in _REEXPORTS or not target or target.start_byte == symbol.start_byte:
            yield symbol
        elif target.name != symbol.name:
            yield replace(symbol, kind=target.kind, docstring=symbol.docstring or target.docstring, bases=target.bases)


class _Visible:
    """What can be reached from outside the file, by qualified name."""

    def __init__(self, symbols: Sequence[Symbol], exports: Sequence[Definition]) -> None:
        self._exported = {export.target or export.name for export in exports}
        self._places = {(export.outer.start_byte, export.name) for export in exports}
        says_nothing = all(export.name.endswith("*") for export in exports)
        self._is_script = says_nothing or symbols[0].path.endswith(_COMPONENTS)
        self._names = {symbol.qualified_name for symbol in symbols}
        self._holders = {_outer_name(symbol) for symbol in symbols}
        self._public: dict[str, bool] = {}
        self._open: dict[str, bool] = {}  # namespaces whose members are exported without saying so
        for symbol in sorted(symbols, key=lambda symbol: len(symbol.qualified_name)):
            name = symbol.qualified_name
            if symbol.kind in {"namespace", "module"}:
                is_ambient = f"{name}.*" in self._exported or symbol.path.endswith(_AMBIENT)
                self._open[name] = is_ambient or self._open.get(_outer_name(symbol), False)
            self._public[name] = self._public.get(name, False) or self.is_public(symbol)

    def is_public(self, symbol: Symbol) -> bool:
        outer = _outer_name(symbol)
        if not symbol.is_public or PRIVATE_TAG.search(symbol.docstring or ""):
            return False
        if not outer or outer in self._open:
            return (self._is_exported(symbol) or self._open.get(outer, self._is_script)) and self._public.get(
                outer, True
            )
        while outer and outer not in self._names:  # `res` of `res.prototype.json =`, when the file does not define it
            if outer in self._exported:
                return True
            outer = outer.rpartition(".")[0]
        return self._public.get(outer, self._is_script)

    def _is_exported(self, symbol: Symbol) -> bool:
        return symbol.qualified_name in self._exported or (symbol.start_byte, symbol.qualified_name) in self._places

    def is_stray(self, symbol: Symbol) -> bool:
        """Whether it is a property that the file gives to something it does not define."""
        return symbol.kind == "field" and _outer_name(symbol) not in self._names

    def is_internal(self, symbol: Symbol) -> bool:
        """Whether it is a value that nothing outside can reach, and holds nothing that has a name."""
        if symbol.kind not in _VALUES or symbol.qualified_name in self._holders or self._is_exported(symbol):
            return False
        return not self.is_public(symbol)


def _outer_name(symbol: Symbol) -> str:
    return "" if symbol.qualified_name == WHOLE else symbol.qualified_name[: -len(symbol.name) - 1]
