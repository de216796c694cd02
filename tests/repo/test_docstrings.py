"""Docs written into sources: each at its symbol, in the language's own form, and nothing else changed."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from rotary_batch.repo.docstrings import LINE_CHARACTERS, write_docs
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.symbols import extract, parse

GOLDEN = Path(__file__).parent / "golden"
WRITTEN = {  # language: how many symbols of its golden source get a text, of how many that have none
    "bash": (3, 3),
    "c": (14, 33),
    "c_sharp": (11, 18),
    "cpp": (29, 37),
    "go": (15, 17),
    "java": (13, 21),
    "javascript": (18, 27),
    "kotlin": (13, 18),
    "lua": (4, 5),
    "php": (6, 14),
    "python": (3, 23),
    "ruby": (6, 8),
    "rust": (14, 21),
    "scala": (7, 12),
    "sql": (6, 6),
    "svelte": (1, 1),
    "swift": (13, 16),
    "tsx": (3, 3),
    "typescript": (26, 34),
    "vue": (0, 0),
}


def symbols(language: str, source: bytes):
    return extract(language, source, "", parse(language, source)).symbols


def text_for(number: int) -> str:
    return f"Counts the boxes of row {number}, with those that `other` has left open and those that are shut by hand."


@pytest.mark.parametrize("language", sorted(WRITTEN))
def test_each_text_is_read_back_at_its_symbol_and_the_rest_is_as_it_was(language):
    (path,) = (GOLDEN / language).glob("source.*")
    source = path.read_bytes()
    before = symbols(language, source)
    texts = {symbol.start_byte: text_for(number) for number, symbol in enumerate(before)}
    written = write_docs(language, source, texts)
    told = {symbol.start_byte for symbol in written.symbols}
    assert (len(told), sum(not symbol.docstring for symbol in before)) == WRITTEN[language]
    after = symbols(language, written.source)
    for old, new in zip(before, after, strict=True):
        assert (new.kind, new.qualified_name, new.signature) == (old.kind, old.qualified_name, old.signature)
        if old.start_byte not in told:
            assert new.docstring == old.docstring
            continue
        words, expected = (new.docstring or "").split(), texts[old.start_byte].split()
        assert words == expected or (language == "go" and words == [old.name, "counts", *expected[1:]])
    lines = iter(written.source.splitlines())
    assert all(line in lines for line in source.splitlines()), "what was there is there, in its order"


@pytest.mark.parametrize("language", [name for name, one in LANGUAGES.items() if one.doc_mark is None])
def test_nothing_is_written_where_a_language_has_no_form_for_it(language):
    (path,) = (path for path in (GOLDEN / language).iterdir() if path.name != "expected.txt")
    source = path.read_bytes()
    texts = {symbol.start_byte: text_for(1) for symbol in symbols(language, source)}
    assert write_docs(language, source, texts) == (source, ())


PYTHON = b'''\
@cache
def area(width,
         height):  # of a box
    # half of it
    return width * height


class Box:
    def put(self, thing): return thing

    def take(self):
        """Take it."""
        return self.things.pop()

    async def empty(self):
        if self.things:
            self.things = []
'''


def test_docstrings_of_python():
    by_name = {symbol.name: symbol.start_byte for symbol in symbols("python", PYTHON)}
    long = "Empties " + "and empties " * 12 + "it."
    texts = {"area": 'Returns the "area"', "Box": "Holds things.", "put": "Puts.", "take": "Takes.", "empty": long}
    written = write_docs("python", PYTHON, {by_name[name]: text for name, text in texts.items()})
    assert [symbol.name for symbol in written.symbols] == ["area", "Box", "empty"]
    assert written.source.decode() == PYTHON.decode().replace(
        "    # half", '    """Returns the "area" """\n    # half'
    ).replace("class Box:\n", 'class Box:\n    """Holds things."""\n').replace(
        "        if self.things:\n",
        '        """Empties and empties and empties and empties and empties and empties and empties and\n'
        "        empties and empties and empties and empties and empties and empties it.\n"
        '        """\n        if self.things:\n',
    )
    assert max(map(len, written.source.decode().splitlines())) <= LINE_CHARACTERS


def test_python_is_the_same_program_but_for_docstrings():
    """The judge is Python's own parser."""
    source = inspect.getsource(inspect).encode()
    found = symbols("python", source)
    written = write_docs("python", source, {symbol.start_byte: text_for(n) for n, symbol in enumerate(found)})
    assert len(written.symbols) > 50

    def without_docstrings(text: bytes) -> str:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Module):
                first = node.body[0]
                if (
                    isinstance(first, ast.Expr)
                    and isinstance(first.value, ast.Constant)
                    and isinstance(first.value.value, str)
                ):
                    del node.body[0]
        return ast.dump(tree)

    assert without_docstrings(source) == without_docstrings(written.source)


@pytest.mark.parametrize(
    "text", ['Ends """ here.', "Ends */ here.", "A back\\slash.", "Two\nlines.", "A \x1b escape.", "Ends /* here."]
)
@pytest.mark.parametrize("language", ["python", "c", "go"])
def test_a_text_that_could_end_a_comment_is_left_out(language, text):
    source = {
        "python": b"def f():\n    return 1\n",
        "c": b"int f(void) { return 1; }\n",
        "go": b"package a\n\nfunc f() {}\n",
    }
    (symbol,) = symbols(language, source[language])
    assert write_docs(language, source[language], {symbol.start_byte: text}) == (source[language], ())


def test_line_ends_and_tabs_are_those_of_the_file():
    source = b"class Box {\r\n\tput(a) { return a }\r\n}\r\n"
    by_name = {symbol.name: symbol.start_byte for symbol in symbols("javascript", source)}
    written = write_docs("javascript", source, {by_name["put"]: "Puts it."})
    assert written.source == b"class Box {\r\n\t/** Puts it. */\r\n\tput(a) { return a }\r\n}\r\n"
