"""What files hold besides functions and types, in Python, Go, Rust and Java: constants, fields, members, their words."""

from __future__ import annotations

import time

import pytest

from benchmarks.symbols_python import compare, standard_library
from rotary_batch.core import Symbol
from rotary_batch.repo.symbols import extract, parse


def symbols_of(language: str, text: str) -> tuple[Symbol, ...]:
    source = text.encode()
    return extract(language, source, "a", parse(language, source)).symbols


def test_spans_of_python_are_those_of_its_own_parser():
    total, differences = compare(standard_library()[::25])
    assert total > 1000
    assert differences == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "class Tin:\n    # Above.\n    lid: int\n    rim: int  # Beside.\n"),
        ("go", "package a\ntype Tin struct {\n\t// Above.\n\tlid int\n\trim int // Beside.\n}\n"),
        ("rust", "struct Tin {\n    /// Above.\n    lid: u8,\n    rim: u8, // Beside.\n}\n"),
        ("java", "class Tin {\n    /** Above. */\n    int lid;\n    int rim; // Beside.\n}\n"),
    ],
)
def test_a_field_has_the_comment_above_it_else_the_one_beside_it(language, text):
    fields = [(s.qualified_name, s.kind, s.docstring) for s in symbols_of(language, text)[1:]]
    assert fields == [("Tin.lid", "field", "Above."), ("Tin.rim", "field", "Beside.")]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        (
            "python",
            "class _Tin:\n    def open(self): pass\ndef make():\n    class Tin:\n        def close(self): pass\n",
        ),
        ("go", "package a\ntype tin struct{ Lid int }\nfunc (t *tin) Open() {}\n"),
        ("rust", "struct Tin { pub lid: u8 }\nimpl Tin { pub fn open(&self) {} }\nmod can { pub fn close() {} }\n"),
        ("java", "class Tin { public int lid; public void open() {} public class Can { public int rim; } }\n"),
    ],
)
def test_what_is_in_something_private_is_private(language, text):
    symbols = [symbol for symbol in symbols_of(language, text) if symbol.name != "make"]
    assert len(symbols) > 1
    assert not any(symbol.is_public for symbol in symbols)


def test_all_decides_what_is_public_in_a_python_module():
    text = '__all__ = ["_shown"]\n__all__ += ("Tin",)\ndef _shown(): pass\ndef other(): pass\nclass Tin:\n    lid = 1\n'
    assert [s.qualified_name for s in symbols_of("python", text) if s.is_public] == ["_shown", "Tin", "Tin.lid"]


@pytest.mark.parametrize(
    "guard", ['__name__ == "__main__"', "__name__=='__main__'", '(__name__ == "__main__")', '"__main__" == __name__']
)
def test_what_a_script_alone_assigns_is_no_part_of_its_module(guard):
    text = f"LIMIT = 1\nif {guard}:\n    rows = 2\n    for row in rows:\n        LAST = row\nelse:\n    SIZE = 3\n"
    assert [s.name for s in symbols_of("python", text)] == ["LIMIT", "SIZE"]
    other = text.replace("__main__", "shop")
    assert [s.name for s in symbols_of("python", other)] == ["LIMIT", "rows", "SIZE"]


def test_a_value_that_is_too_long_is_elided_and_a_short_one_is_exact():
    text = (
        'GAP = "   "\nTABLE = {' + ", ".join(f'"k{n}": {n}' for n in range(50)) + '}\nTEXT = "' + "long " * 50 + '"\n'
    )
    assert [s.signature for s in symbols_of("python", text)] == ['GAP = "   "', "TABLE = {…}", 'TEXT = "…"']


def test_a_constant_of_go_without_a_value_repeats_the_one_before():
    text = "package a\nconst (\n\tOne Kind = 10 * iota\n\t_\n\tThree\n\tOther = 'x'\n\tAgain\n)\n"
    assert [s.signature for s in symbols_of("go", text)] == [
        "const One Kind = 10 * iota",
        "const Three Kind = 10 * 2",
        "const Other = 'x'",
        "const Again = 'x'",
    ]


def test_items_within_the_macros_of_rust_are_symbols_and_other_tokens_are_none():
    text = (
        "net! {\n    /// Opens.\n    pub fn open() {}\n    inner! { pub struct Tin { lid: u8 } }\n}\n"
        "impl Tin { net! { pub fn close(&self) {} } }\nflags! { struct Bits: u8 { const A = 1; } }\n"
    )
    assert [(s.kind, s.qualified_name, s.start_line, s.docstring) for s in symbols_of("rust", text)] == [
        ("function", "open", 3, "Opens."),
        ("struct", "Tin", 4, None),
        ("field", "Tin.lid", 4, None),
        ("method", "Tin.close", 6, None),
    ]


def test_traits_that_impls_name_are_bases_of_their_type_wherever_it_is():
    text = (
        "impl fmt::Debug for Tin<u8> {}\nmod can { pub struct Tin; impl<'a> Open for &'a Tin {} }\nstruct Tin<T>(T);\n"
    )
    assert [(s.qualified_name, s.bases) for s in symbols_of("rust", text)] == [
        ("can", ()),
        ("can.Tin", ("Open",)),
        ("Tin", ("fmt::Debug",)),
    ]


def many(before: str, one: str, after: str = "", joined: str = "") -> str:
    return before + joined.join(one.replace("N", str(n)) for n in range(5000)) + after


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", many("", "XN = N  # c\n")),
        ("python", many("X = ", "aN", " = 1\n", " = ")),
        ("python", many("", "aN", " = b\n'''" + "c" * 200_000 + "'''\n", ", ")),
        ("python", many("", "#: c\n", "X = 1\n")),
        ("python", many("__all__ = [", "'aN'", "]\n", ", ")),
        ("go", many("package a\n// " + "c" * 200_000 + "\nconst (\n", "XN = N\n", ")\n")),
        ("go", many("package a\n// c\nvar ", "XN", " = 1\n", ", ")),
        ("go", many("package a\ntype A struct {\n", "XN int\n", "}\n")),
        ("rust", many("", "m! { fn fN() {} }\n")),
        ("rust", many("", "m!{", "}" * 5000)),
        ("rust", many("", "#[aN]\n", "fn f() {}\n")),
        ("rust", many("struct A;\n", "impl TN for A {}\n")),
        ("java", many("class A { /** " + "c" * 200_000 + " */ int ", "xN", "; }\n", ", ")),
        ("java", many("enum A { ", "XN", " }\n", ", ")),
        ("java", many("class A { ", "@XN ", "int x; }\n")),
    ],
)
def test_contents_take_a_time_that_grows_with_their_number(language, text):
    began = time.process_time()
    symbols = symbols_of(language, text)
    assert time.process_time() - began < 10  # 0.1 to 0.5 s, and a machine ten times slower
    assert sum(len(s.docstring or "") + len(s.signature) + sum(map(len, s.bases)) for s in symbols) < 12_000_000
