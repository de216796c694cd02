"""A stub beside its source is a part of the page of that source."""

from __future__ import annotations

from rotary_batch.core import FileClass, ParsedFile, SourceFile
from rotary_batch.pages.not_read import unread
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.stubs import joined
from rotary_batch.repo.symbols import extract, parse


def parsed(path: str, text: str, file_class: FileClass) -> ParsedFile:
    source = text.encode()
    found = extract("python", source, path, parse("python", source))
    file = SourceFile(
        path=path, blob="0", nbytes=len(source), language="python", file_class=file_class, reason="source code"
    )
    return ParsedFile(
        file=file, docstring=found.docstring, symbols=found.symbols, references=(), chunks=(), fallback=None
    )


def test_a_stub_is_counted_and_the_reasons_of_both_say_so(make_repository):
    root = make_repository(
        {"tin.py": "def open(p): ...\n", "tin.pyi": "def open(p: str) -> int: ...\n", "c.pyi": "X: int\n", "b.py": ""}
    )
    files = {file.path: file for file in classify(open_repository(root), docs_dir="rotary-docs")}
    assert {path: (file.file_class.value, file.reason) for path, file in files.items()} == {
        "b.py": ("source", "source code"),
        "c.pyi": ("source", "source code"),
        "tin.py": ("source", f"source code, with the stub tin.pyi ({files['tin.pyi'].blob[:12]})"),
        "tin.pyi": ("stub", "the stub of tin.py, whose page shows its signatures"),
    }
    assert unread(files.values()) == []


def test_a_source_has_the_signatures_of_its_stub_and_its_own_words_where_it_has_some():
    stub = parsed(
        "tin.pyi",
        '"""Of the stub."""\nclass Tin(Box[int]):\n    lid: int\n    """Its lid."""\n'
        '    def open(self, how: str) -> bool:\n        """Of the stub."""\n'
        "    @overload\n    def get(self, n: int) -> int: ...\n    @overload\n    def get(self, n: str) -> str: ...\n"
        '    def close(self) -> None:\n        """Closes."""\n'
        "def only_here() -> None: ...\n",
        FileClass.STUB,
    )
    source = parsed(
        "tin.py",
        'class Tin:\n    def open(self, how):\n        """Opens."""\n    def get(self, n):\n        """Gets."""\n'
        "    def close(self): pass\n",
        FileClass.SOURCE,
    )
    other = parsed("zoo.py", "X = 1\n", FileClass.SOURCE)
    one, last = joined([stub, source, other])
    assert last is other
    assert one.docstring == "Of the stub."
    assert [(s.qualified_name, s.signature, s.docstring, s.start_line) for s in one.symbols] == [
        ("Tin", "class Tin(Box[int])", None, 1),
        ("Tin.lid", "lid: int", "Its lid.", 1),
        ("Tin.open", "def open(self, how: str) -> bool", "Opens.", 2),
        ("Tin.get", "def get(self, n: int) -> int", "Gets.", 4),
        ("Tin.get", "def get(self, n: str) -> str", None, 4),
        ("Tin.close", "def close(self) -> None", "Closes.", 6),
    ]
    assert {symbol.path for symbol in one.symbols} == {"tin.py"}
    assert len({symbol.id for symbol in one.symbols}) == len(one.symbols)
    assert one.symbols[0].bases == ("Box[int]",)
