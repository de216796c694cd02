"""Cut a file into chunks: contiguous, without overlap or loss, each within a budget of the model's own tokens.

The method of cAST (arXiv 2506.15655): a node that fits stays whole, a larger one is cut at its children, small
neighbours are merged.  Text between nodes (comments, decorators, blank lines) goes with the node that follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from tree_sitter import Node, Tree

from rotary_batch.core import Chunk, SourceFile, Symbol

CountRange = Callable[[int, int], int]  # the tokens of a range of bytes
MAX_DEPTH = 200  # of nested nodes; deeper code is cut at lines
MAX_IMPORTS = 8  # named in a breadcrumb
_PROBES_NBYTES = (4, 16)  # for each token of the budget: more than most code has, and more than nearly any has
_SEAM_TOKENS = 3  # more than a cut between two pieces, or through the middle of a word, was seen to add
_WORD = re.compile(rb"\w+")
_CLASS_KINDS = {"class", "struct", "interface", "trait", "enum", "record", "module", "namespace"}


class Piece(NamedTuple):
    """A run of bytes and its size in tokens."""

    start: int
    end: int
    tokens: int


def cut(source: bytes, tree: Tree | None, budget_tokens: int, count_range: CountRange) -> list[Piece]:
    """Pieces that concatenate to the source, each within the budget (a single character may exceed it)."""
    cutter = _Cutter(source, budget_tokens, count_range)
    if not source:
        return []
    if (tokens := cutter.count_within(0, len(source))) is not None:
        return [Piece(0, len(source), tokens)]
    if tree is None:
        # Lines are cut with a minimum length: a file of 500,000 empty lines is not joined line by line.
        return cutter.merge(cutter.lines(0, len(source), least_nbytes=budget_tokens // 16))
    return cutter.merge(cutter.nodes(tree.root_node, 0, len(source)))


class _Cutter:
    def __init__(self, source: bytes, budget_tokens: int, count_range: CountRange) -> None:
        self._source = source
        self._budget = budget_tokens
        self.count = count_range

    def count_within(self, start: int, end: int) -> int | None:
        """The tokens of a range that fits into the budget, else None; of a long range only the beginning is counted."""
        for nbytes in _PROBES_NBYTES:
            probe = start + nbytes * self._budget
            if probe < end and self.count(start, probe) > self._budget + _SEAM_TOKENS:
                return None
        tokens = self.count(start, end)
        return tokens if tokens <= self._budget else None

    def nodes(self, node: Node, start: int, end: int, depth: int = 0) -> list[Piece]:
        """Cut [start, end): a node, with the text before and after it."""
        children = [child for child in node.children if child.end_byte > start and "comment" not in child.type]
        if not children or depth > MAX_DEPTH:
            return list(self.lines(start, end))
        pieces = list[Piece]()
        for place, child in enumerate(children):
            stop = end if place + 1 == len(children) else child.end_byte
            if stop <= start:
                continue
            if (tokens := self.count_within(start, stop)) is not None:
                pieces.append(Piece(start, stop, tokens))
            elif child.start_byte > start and self._is_long(start, child.start_byte):
                pieces += self.lines(start, child.start_byte)
                pieces += self.nodes(child, child.start_byte, stop, depth + 1)
            else:
                pieces += self.nodes(child, start, stop, depth + 1)
            start = stop
        return pieces

    def _is_long(self, start: int, end: int) -> bool:
        """Whether the text before a node gets pieces of its own."""
        tokens = self.count_within(start, end)
        return tokens is None or tokens > self._budget // 2

    def lines(self, start: int, end: int, least_nbytes: int = 0) -> Iterator[Piece]:
        """Cut at line ends; a line that is too long is halved at characters."""
        while start < end:
            stop = self._source.find(b"\n", start + least_nbytes, end) + 1 or end
            yield from self._halves(start, stop)
            start = stop

    def _halves(self, start: int, end: int) -> Iterator[Piece]:
        tokens = self.count_within(start, end)
        middle = (start + end) // 2
        while middle < end and self._source[middle] & 0xC0 == 0x80:  # inside a UTF-8 character
            middle += 1
        if tokens is not None or end - start <= 1 or middle >= end:
            yield Piece(start, end, self.count(start, end) if tokens is None else tokens)
            return
        yield from self._halves(start, middle)
        yield from self._halves(middle, end)

    def merge(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Join neighbours while the joined text fits into the budget.

        Its tokens differ from the sum by one or two a seam.  Pieces that certainly fit are joined without counting: to
        count after every line would read a chunk of 300 lines 150 times.
        """
        merged: list[Piece] = []
        most = 0  # tokens of the last piece, if every seam adds what a seam can add
        for piece in pieces:
            if merged and most + piece.tokens + _SEAM_TOKENS <= self._budget:
                most += piece.tokens + _SEAM_TOKENS
                merged[-1] = Piece(merged[-1].start, piece.end, most)
                continue
            if merged:
                merged[-1] = last = self._counted(merged[-1].start, merged[-1].end)
                together = last.tokens + piece.tokens <= self._budget and self._counted(last.start, piece.end)
                if together and together.tokens <= self._budget:
                    merged[-1], most = together, together.tokens
                    continue
            merged.append(piece)
            most = piece.tokens
        return [*merged[:-1], *(self._counted(last.start, last.end) for last in merged[-1:])]

    def _counted(self, start: int, end: int) -> Piece:
        return Piece(start, end, self.count(start, end))


def chunks(
    file: SourceFile, source: bytes, pieces: Sequence[Piece], symbols: Sequence[Symbol], imports: Sequence[str]
) -> tuple[Chunk, ...]:
    """Pieces as chunks, each with the symbols that start in it and a breadcrumb."""
    result, line = [], 1
    waiting, around = sorted(symbols, key=attrgetter("start_byte"))[::-1], list[Symbol]()
    for piece in pieces:
        text = source[piece.start : piece.end]
        first = next((place for place in range(piece.start, piece.end) if text[place - piece.start] > 32), piece.start)
        inside = []
        around = [symbol for symbol in around if symbol.end_byte > first]
        while waiting and waiting[-1].start_byte < piece.end:
            inside.append(waiting.pop())
        newlines = text.count(b"\n")
        before = [s for s in inside if s.start_byte < first < s.end_byte]
        result.append(
            Chunk(
                path=file.path,
                blob=file.blob,
                start_byte=piece.start,
                end_byte=piece.end,
                start_line=line,
                end_line=max(line, line + newlines - text.endswith(b"\n")),
                tokens=piece.tokens,
                symbols=tuple(dict.fromkeys(s.qualified_name for s in inside)),
                breadcrumb=_breadcrumb([*around, *before], text, imports),
            )
        )
        around += [symbol for symbol in inside if symbol.end_byte > piece.end]
        line += newlines
    return tuple(result)


def _breadcrumb(around: Sequence[Symbol], text: bytes, imports: Sequence[str]) -> str:
    """The class or function in which the chunk begins, and the imported names that it uses."""
    lines = [f"class {s.name}" if s.kind in _CLASS_KINDS else s.signature for s in around[-2:]]
    words = set(_WORD.findall(text)) if imports else set[bytes]()
    used = [name for name in imports if name.encode() in words][:MAX_IMPORTS]
    return "\n".join([*lines, *(["imports: " + ", ".join(used)] if used else [])])
