"""Chunks lose nothing, stay within their budget and keep symbols whole."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.repo.chunks import cut
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.symbols import extract, parse

BUDGET = 300


def count(text: str) -> int:
    """Words and marks, near enough to a tokenizer and fast."""
    return len(text) // 4 + text.count("\n") + (1 if text else 0)


def ranges(source: bytes):
    return lambda start, end: count(source[start:end].decode("utf-8", "replace"))


def check_lossless(source: bytes, pieces, budget: int) -> None:
    assert b"".join(source[piece.start : piece.end] for piece in pieces) == source
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])][: len(pieces)]
    assert all(piece.tokens <= budget or piece.end - piece.start <= 4 for piece in pieces)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=600), st.sampled_from([None, *LANGUAGES]), st.integers(4, 60))
def test_any_bytes_are_cut_without_loss(source, language, budget):
    tree = parse(language, source) if language else None
    check_lossless(source, cut(source, tree, budget, ranges(source)), budget)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["def f(x):\n", "    return x\n", "class A:\n", "# é\n", "\r\n", "\t", "x = 1\n"])))
def test_code_like_text_is_cut_without_loss(lines):
    source = "".join(lines).encode()
    check_lossless(source, cut(source, parse("python", source), 12, ranges(source)), 12)


def library_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.faults)])
def test_text_files_of_the_standard_library_are_cut_without_loss_and_symbols_stay_whole(every):
    fitting = whole = 0
    for path in library_files()[::every]:
        source = path.read_bytes()
        tree = parse("python", source)
        pieces = cut(source, tree, BUDGET, ranges(source))
        check_lossless(source, pieces, BUDGET)
        bounds = [(piece.start, piece.end) for piece in pieces]
        for symbol in extract("python", source, path.name, tree).symbols:
            text = source[symbol.start_byte : symbol.end_byte].decode("utf-8", "replace")
            if count(text) <= BUDGET:
                fitting += 1
                whole += any(start <= symbol.start_byte and symbol.end_byte <= end for start, end in bounds)
    assert fitting > 20_000 // every
    assert whole / fitting >= 0.95


@pytest.mark.parametrize(
    "source", [b"", b"\n", b"\xef\xbb\xbfx = 1\r\ny = 2\r\n", b"\xff\xfe\x00" * 50, "é".encode() * 200]
)
def test_odd_files_are_cut_without_loss(source):
    check_lossless(source, cut(source, parse("python", source), 10, ranges(source)), 10)
