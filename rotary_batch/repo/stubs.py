"""Type stubs: `m.pyi` next to `m.py` has no page of its own; the page of `m.py` shows its signatures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from rotary_batch.core import FileClass, ParsedFile, SourceFile, Symbol, main_definitions, stub_of

_CONTAINERS = {"class"}
_WITH_STUB = ", with the stub "


def with_stub_class(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files, with stubs next to their sources as such.

    The reason of a source names the content of its stub: when that changes, the source is read again.
    """
    sources = {file.path: file for file in files if file.file_class is FileClass.SOURCE}
    stubs = {path: stub for path in sources if path.endswith(".py") and (stub := sources.get(stub_of(path)))}
    of_stub = {stub.path: path for path, stub in stubs.items()}
    return [_reclassified(file, stubs.get(file.path), of_stub.get(file.path)) for file in files]


def own_reason(reason: str) -> str:
    """The reason of a source as it was before its stub was looked at."""
    return reason.partition(_WITH_STUB)[0]


def _reclassified(file: SourceFile, stub: SourceFile | None, source: str | None) -> SourceFile:
    if source is not None:
        reason = f"the stub of {source}, whose page shows its signatures"
        return file._replace(file_class=FileClass.STUB, reason=reason)
    return file._replace(reason=f"{file.reason}{_WITH_STUB}{stub.path} ({stub.blob[:12]})") if stub else file


def joined(parsed: Iterable[ParsedFile]) -> Iterator[ParsedFile]:
    """The parsed sources; a stub, which comes right before its source, is only passed on as a part of it."""
    stub: ParsedFile | None = None
    for one in parsed:
        if one.file.file_class is FileClass.STUB:
            stub = one
            continue
        yield _with_signatures(one, stub) if stub is not None and stub.file.path == stub_of(one.file.path) else one
        stub = None


def _with_signatures(source: ParsedFile, stub: ParsedFile) -> ParsedFile:
    """The source with the signatures and bases of its stub, and with its words where the source has none.

    Fields that only the stub declares are at the head of their class.  What else only the stub has is left out: the
    source has no place for it.
    """
    declared: dict[str, list[Symbol]] = defaultdict(list)
    for symbol in stub.symbols:
        declared[symbol.qualified_name].append(symbol)
    main = {symbol.qualified_name: symbol for symbol in main_definitions(source.symbols)}
    taken = {symbol.start_byte for symbol in source.symbols}
    symbols: list[Symbol] = []
    for symbol in source.symbols:
        if main.get(symbol.qualified_name) is not symbol or symbol.qualified_name not in declared:
            symbols.append(symbol)
            continue
        first, *overloads = declared[symbol.qualified_name]
        symbols.append(_described_by(symbol, first))
        symbols += _placed_in(symbol, overloads, taken)
        if symbol.kind in _CONTAINERS:
            fields = [one for one in _fields_of(symbol, stub.symbols) if one.qualified_name not in main]
            symbols += _placed_in(symbol, fields, taken)
    symbols.sort(key=lambda symbol: symbol.start_byte)
    return replace(source, symbols=tuple(symbols), docstring=source.docstring or stub.docstring)


def _described_by(symbol: Symbol, stub: Symbol) -> Symbol:
    return replace(
        symbol,
        signature=stub.signature,
        docstring=symbol.docstring or stub.docstring,
        bases=stub.bases or symbol.bases,
    )


def _fields_of(container: Symbol, declared: Iterable[Symbol]) -> list[Symbol]:
    outer = container.qualified_name
    return [one for one in declared if one.kind == "field" and one.qualified_name == f"{outer}.{one.name}"]


def _placed_in(symbol: Symbol, others: Iterable[Symbol], taken: set[int]) -> Iterator[Symbol]:
    """What a stub says more of a symbol, each at a byte of its own within it."""
    free = (byte for byte in count(symbol.start_byte + 1) if byte not in taken)
    for other in others:
        start = next(free)
        if start >= symbol.end_byte:
            return
        taken.add(start)
        yield replace(
            other,
            path=symbol.path,
            start_byte=start,
            end_byte=start + 1,
            start_line=symbol.start_line,
            end_line=symbol.start_line,
        )
