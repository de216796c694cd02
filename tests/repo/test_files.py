"""What a file is: scripts without an ending, encodings, marks of generators, other people's code, long lines."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from rotary_batch.core import SourceFile
from rotary_batch.repo.files import PathPatterns, classify
from rotary_batch.repo.generated import generated_mark
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.parse import parse_file
from rotary_batch.repo.source_text import MAX_LINE_NBYTES, read_source
from rotary_batch.repo.symbols import extract, parse
from rotary_batch.testing import ByteCounter

CODE = "def act():\n    return 1\n"


def files(root: Path, include: tuple[str, ...] = (), **options) -> dict[str, SourceFile]:
    found = classify(open_repository(root, **options), docs_dir="docs", patterns=PathPatterns(include=include))
    return {file.path: file for file in found}


def classes(root: Path, include: tuple[str, ...] = (), **options) -> dict[str, str]:
    return {path: file.file_class.value for path, file in files(root, include, **options).items()}


@pytest.mark.parametrize(
    ("first", "language"),
    [
        ("#!/usr/bin/env python3", "python"),
        ("#!/usr/bin/python2.7 -u", "python"),
        ("#! /usr/local/bin/python", "python"),
        ("#!/usr/bin/env -S PYTHONPATH=. python3 -u", "python"),
        ("#!/usr/bin/env -S uv run --script", "python"),
        ("#!/usr/bin/env node\r", "javascript"),
        ("#!/usr/bin/env tsx", "typescript"),
        ("#!/bin/frob", None),
        ("#!", None),
        ("#!/usr/bin/env", None),
        ("x = 1", None),
    ],
)
def test_a_script_without_an_ending_is_read_by_its_first_line(make_repository, first, language):
    root = make_repository({"bin/tool": f"{first}\nx = 1\n", "a.py": CODE})
    for options in ({}, {"worktree": True}):
        found = files(root, **options)["bin/tool"]
        assert (found.language, found.file_class.value) == (language, "source" if language else "text")


def test_what_was_decided_by_its_content_is_not_read_again(make_repository):
    root = make_repository({"tool": f"#!/usr/bin/env python\n{CODE}", "data": "1\n", "a.py": CODE})
    repository = open_repository(root)
    known = {file.path: file for file in classify(repository, docs_dir="docs")}
    repository.read = lambda entries: iter([]) if not list(entries) else pytest.fail("read")  # type: ignore[method-assign]
    assert classify(repository, docs_dir="docs", known=known) == list(known.values())


WORD = "größe"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.py", f"# -*- coding: latin-1 -*-\n\ndef {WORD}(): pass\n".encode("latin-1")),
        ("a.py", f"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\ndef {WORD}(): pass\n".encode("cp1252")),
        ("a.py", codecs.BOM_UTF8 + f"\n\ndef {WORD}(): pass\n".encode()),
        ("a.py", f"\n\ndef {WORD}(): pass\n".encode("utf-16")),
        ("a.py", codecs.BOM_UTF16_BE + f"\r\n\r\ndef {WORD}(): pass\r\n".encode("utf-16-be")),
        ("a.js", f"/* -*- coding: iso-8859-15 -*- */\n\nfunction {WORD}() {{}}\n".encode("iso-8859-15")),
        ("a.java", codecs.BOM_UTF16_LE + f"\n\nclass {WORD} {{}}\n".encode("utf-16-le")),
        ("a.go", codecs.BOM_UTF8 + f"package p\n\nfunc {WORD}() {{}}\n".encode()),
        ("a.c", codecs.BOM_UTF8 + f"\r\n\r\nint {WORD}(void) {{ return 1; }}\r\n".encode()),
    ],
)
def test_every_encoding_gives_the_same_symbols_on_their_lines(make_repository, name, data):
    file = files(make_repository({name: data}))[name]
    assert file.file_class.value == "source"
    source = read_source("a.py", data)
    one = parse_file(file, source, 60, ByteCounter())
    assert [(symbol.name, symbol.start_line) for symbol in one.symbols] == [(WORD, 3)]
    assert b"".join(source[chunk.start_byte : chunk.end_byte] for chunk in one.chunks) == source
    assert source.count(b"\n") == data.count(b"\n") or name.endswith((".py", ".java"))
    assert WORD in one.symbols[0].signature


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: no-such-codec\nx = '\xff'\n",
        b"# coding: punycode\nx = '\xff'\n",
        b"# coding: utf-8\nx = '\xff'\n",
        b"x = '\xff\xfe'\n# \xc3\xa4\n",
        b"# coding: shift_jis\nx = '\xff\xff'\n",
    ],
)
def test_what_cannot_be_decoded_stays_as_it_is(make_repository, data):
    assert read_source("a.py", data) == data
    assert classes(make_repository({"a.py": data})) == {"a.py": "source"}


def test_binaries_are_no_sources_whatever_they_are_called(make_repository):
    root = make_repository(
        {
            "a.py": b"\x7fELF\0\0\1",
            "b.py": b"\xff\xfe\0\0x\0\0\0",
            "tool": b"#!/usr/bin/python\n\0\0",
            "d.c": b"x\0" * 9,
        }
    )
    assert set(classes(root).values()) == {"binary"}


@pytest.mark.parametrize(
    ("name", "long", "code"),
    [
        ("a.py", 'DATA = "{}"', "\n\ndef act():\n    return DATA\n"),
        ("a.js", "const data = [{}];", "\n\nfunction act() {\n  return data;\n}\n"),
        ("a.go", "var data = `{}`", "\n\nfunc act() int {\n\treturn 1\n}\n"),
        ("a.c", "// {}", "\n\nint act(void) {\n  return 1;\n}\n"),
    ],
)
def test_of_a_long_line_in_an_ordinary_file_only_the_middle_is_cut_away(make_repository, name, long, code):
    data = (("package p\n" if name == "a.go" else "") + long.format("1, 2, é, " * 3000) + code).encode()
    file = files(make_repository({name: data}))[name]
    assert file.file_class.value == "source"
    source = read_source("a.py", data)
    assert max(map(len, source.split(b"\n"))) < 1000
    assert source.count(b"\n") == data.count(b"\n")
    assert source.decode().endswith(code)
    before, after = (extract(file.language, text, name, parse(file.language, text)) for text in (data, source))
    assert [(s.name, s.start_line) for s in after.symbols] == [(s.name, s.start_line) for s in before.symbols]


def test_a_file_made_of_long_lines_is_minified(make_repository):
    long = "x=1;" * (MAX_LINE_NBYTES // 3)
    root = make_repository(
        {
            "a.js": f"/*!\n * frob\n * Copyright 2020 A\n */\n{long}\n//# sourceMappingURL=a.map\n",
            "b.js": long,
            "c.js": ("y=2;" * 400 + "\n") * 9,
            "d.js": "z=3;" * 2_500_000,
        }
    )
    assert classes(root) == {"a.js": "minified", "b.js": "minified", "c.js": "minified", "d.js": "oversized"}


@pytest.mark.parametrize(
    "text",
    [
        "// Code generated by frob. DO NOT EDIT.\n\npackage p\n",
        "// Copyright 2020 A\n\n// Code generated by frob v2. DO NOT EDIT.\npackage p\n",
        "/**\n * @generated SignedSource<<1>>\n */\n",
        "// @generated\n",
        "// This file is @generated by frob.\n",
        "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Generated by the frob compiler.  DO NOT EDIT!\n# source: a.frob\nx = 1\n",
        "#ifndef A_H\n#define A_H\n/*\n * This file was automatically generated by frob.\n * Do not edit it by hand.\n */\n",
        "/* DO NOT EDIT THIS FILE - it is machine generated */\n#include <jni.h>\n",
        "<?php\n# AUTO-GENERATED FILE. DO NOT MODIFY.\n",
        '"use strict";\n// @generated by frob\n',
        "/* A Bison parser, made by GNU Bison 3.8.2.  */\n\nint a;\n",
        '#line 1 "a.c"\n\n/* A lexical scanner generated by flex */\n',
    ],
)
def test_a_mark_of_a_generator_is_a_line_of_a_comment_near_the_top(text):
    assert generated_mark(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '"""Finds @generated marks."""\ndef skip(t): return "@generated" in t\n',
        'MARK = "Code generated by frob. DO NOT EDIT."\n',
        "const mark = `\n// Code generated by frob. DO NOT EDIT.\n`\n",
        "# Skips files that say @generated, or that say DO NOT EDIT.\nx = 1\n",
        "// The linter knows the line `Code generated by frob. DO NOT EDIT.`\npackage p\n",
        'TEMPLATE = """\n# @generated\n"""\n',
        "// Handles the generated files.\n\n// Do not edit the list while it is read.\n",
        "x = 1\n# @generated\n",
        "# Generated keys are cached.\n# Values are not.\n",
    ],
)
def test_what_only_speaks_of_such_marks_is_a_source(text):
    assert generated_mark(text.encode()) is None


def test_attributes_have_the_last_word_in_both_directions(make_repository):
    mark = "# @generated\n"
    root = make_repository(
        {
            "vendor/own/a.py": CODE,
            "vendor/b.py": CODE,
            "gen/c.py": mark + CODE,
            "gen/d_pb2.py": CODE,
            "gen/e.py": mark + CODE,
            "lib/f.min.js": "function act() {}\n",
            "deep/er/g.py": CODE,
            "deep/er/.gitattributes": "g.py linguist-vendored\n",
            "guide/h.py": CODE,
            "guide/i.py": CODE,
            ".gitattributes": (
                "vendor/own/** -linguist-vendored\ngen/* linguist-generated=false\ngen/e.py linguist-generated\n"
                "lib/* linguist-generated=false\nguide/* linguist-documentation\nguide/i.py -linguist-documentation\n"
            ),
        }
    )
    expected = {
        "vendor/own/a.py": "source",
        "vendor/b.py": "vendored",
        "gen/c.py": "source",
        "gen/d_pb2.py": "source",
        "gen/e.py": "generated",
        "lib/f.min.js": "source",
        "deep/er/g.py": "vendored",
        "guide/h.py": "text",
        "guide/i.py": "source",
    }
    for options in ({}, {"worktree": True}):
        assert {path: kind for path, kind in classes(root, **options).items() if path in expected} == expected
    assert classes(root / "vendor") == {"b.py": "source", "own/a.py": "source"}


LICENCES = {
    "ours": "MIT License\n\nCopyright 2020 Us\n\nPermission is granted.\n",
    "theirs": "BSD\n\nCopyright 1999 Them\n",
}


def test_other_peoples_code_is_recognised_by_its_folder_or_its_own_licence(make_repository):
    root = make_repository(
        {
            "LICENSE": LICENCES["ours"],
            "a.py": CODE,
            "third-party/b.py": CODE,
            "deps/one/COPYING": LICENCES["theirs"],
            "deps/one/src/c.c": "int c;\n",
            "deps/two/LICENSE.md": LICENCES["theirs"],
            "deps/three/d.c": "int d;\n",
            "lib/far/LICENSE": LICENCES["theirs"],
            "lib/far/e.py": CODE,
            "lib/near/LICENSE": LICENCES["ours"].replace("2020", "2021"),
            "lib/near/f.py": CODE,
            "lib/own.py": CODE,
            "packages/x/LICENSE": LICENCES["theirs"],
            "packages/x/g.py": CODE,
            "src/random/LICENSE.md": LICENCES["theirs"],
            "src/random/h.py": CODE,
        }
    )
    found = files(root)
    vendored = {path for path, file in found.items() if file.file_class.value == "vendored" and "LI" not in path}
    assert vendored == {"third-party/b.py", "deps/one/src/c.c", "deps/three/d.c", "lib/far/e.py", "deps/one/COPYING"}
    assert found["lib/far/e.py"].reason == (
        "in `lib/far/`, which has a licence of its own, `LICENSE`; `lib/far/** -linguist-vendored` in .gitattributes "
        "or `lib/far/` in the setting `include` reads it"
    )
    assert found["third-party/b.py"].reason.startswith("in `third-party/`, a folder of other people's code; ")
    back = classes(root, include=("*.py", "lib/far/"))
    assert (back["lib/far/e.py"], back["third-party/b.py"]) == ("source", "vendored")
