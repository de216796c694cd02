"""One golden fixture for each language: everything that is read out of one source, whole.

`python -m tests.repo.test_languages` writes the expected files anew; read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rotary_batch.core import Symbol
from rotary_batch.repo.languages import LANGUAGES, language_of
from rotary_batch.repo.source_text import read_source
from rotary_batch.repo.symbols import extract, parse

GOLDEN = Path(__file__).parent / "golden"


def read(language: str) -> str:
    """What is read out of the source of a golden fixture, as text."""
    (path,) = (file for file in (GOLDEN / language).iterdir() if file.name != "expected.txt")
    assert language_of(path.name) == language
    source = read_source(path.name, path.read_bytes())
    extracted = extract(language, source, path.name, parse(language, source))
    names = {symbol.id: symbol.qualified_name for symbol in extracted.symbols}
    lines = [f"file: {extracted.docstring!r}"]
    for symbol in extracted.symbols:
        lines += ["", *described(symbol)]
    uses = [
        f"{names[use.caller] if use.caller else '-'} uses {use.name}"
        + ("" if use.receiver is None else f" of {use.receiver!r}")
        for use in extracted.references
    ]
    imported = [f"{one.alias or '-'} is {one.name or 'all'} of {one.module!r}" for one in extracted.imported]
    values = [f"{one.owner or 'file'} {one.name} gives {one.value}" for one in extracted.value_types]
    return "\n".join([*lines, "", f"imports: {', '.join(extracted.imports)}", *imported, *values, *uses]) + "\n"


def described(symbol: Symbol) -> list[str]:
    head = f"{symbol.kind} {symbol.qualified_name} {symbol.start_line}-{symbol.end_line}"
    lines = [head if symbol.is_public else f"{head} private", f"  signature: {symbol.signature}"]
    lines += [f"  doc: {symbol.docstring!r}"] if symbol.docstring else []
    lines += [f"  bases: {', '.join(symbol.bases)}"] if symbol.bases else []
    return lines + ([f"  decorators: {' '.join(symbol.decorators)}"] if symbol.decorators else [])


def test_every_language_has_a_golden_fixture():
    assert {folder.name for folder in GOLDEN.iterdir()} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_that_is_read_out_of_a_source(language):
    assert read(language) == (GOLDEN / language / "expected.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name in LANGUAGES:
        (GOLDEN / name / "expected.txt").write_text(read(name), encoding="utf-8")
