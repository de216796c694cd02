"""What is no summary: licences, guards, lines for tools, rulers; what is behind them is."""

from __future__ import annotations

import re
import time

import pytest

from rotary_batch.core import Symbol
from rotary_batch.repo.notices import about_the_code
from rotary_batch.repo.symbols import extract, parse

MIT = (
    "Copyright (c) 2019-2023 The Frob Authors. All rights reserved.\n\n"
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated\n"
    'documentation files (the "Software"), to deal in the Software without restriction.\n\n'
    "The above copyright notice shall be included in all copies or substantial portions of the Software.\n\n"
    'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.'
)
GPL = (
    "This file is part of Frob.\n\nFrob is free software: you can redistribute it and/or modify it under the terms of the\n"
    "GNU General Public License as published by the Free Software Foundation.\n\nFrob is distributed in the hope that it "
    "will be useful,\nbut WITHOUT ANY WARRANTY.\n\nYou should have received a copy of the GNU General Public License\n"
    "along with Frob.  If not, see <https://www.gnu.org/licenses/>."
)
LLVM = (
    "Part of the Frob Project, under the Apache License v2.0 with Frob Exceptions.\n"
    "See https://frob.org/LICENSE.txt for license information.\nSPDX-License-Identifier: Apache-2.0"
)
BSD = (
    "Copyright 2001 A. Person\n\nRedistribution and use in source and binary forms, with or without modification, are "
    "permitted\nprovided that the following conditions are met:\n\n1. Redistributions of source code must retain the above "
    "notice.\n2. Neither the name of the author may be used to endorse products.\n\nTHIS SOFTWARE IS PROVIDED BY THE "
    "AUTHOR ``AS IS''\nAND ANY EXPRESS WARRANTIES ARE DISCLAIMED."
)
MPL = (
    "This Source Code Form is subject to the terms of the Mozilla Public\nLicense, v. 2.0. If a copy of the MPL was not "
    "distributed with this\nfile, You can obtain one at http://mozilla.org/MPL/2.0/."
)
ODD = "frob\nCopyright(c) 2009 Some Body\nMIT Licensed"
NETLIB = (
    "The author of this software is A. Person.\n\nCopyright (c) 1991 by Frob Technologies.\n\nPermission to use, copy, "
    "modify, and distribute this software for any\npurpose without fee is hereby granted."
)
NOTICES = [
    *(MIT, GPL, NETLIB, LLVM, BSD, MPL, ODD),
    *("$Id: frob.c,v 1.2 2001/02/03 a Exp $", "@author A. Person", "Author: A. Person <a@b.org>\nVersion: 1.2"),
    *("-*- mode: c; coding: latin-1 -*-", "vim: set ts=4 sw=4:", "-----------------------------", "====  ====  ===="),
    *("Adapted from https://example.org/other.c", "Ported from Frob's hashing code, by A. Person.", "frob.c"),
    *("Created by A. Person on 3/4/12.", "Last modified: 2020-01-02", "based on the work of A. Person"),
    "Please send bug reports to A. Person (person at frob dot org).",
]
HASH = {"python", "ruby", "bash"}
CODE = {
    "python": "import os\n\ndef act():\n    return 1\n",
    "go": "package p\n\nfunc act() int { return 1 }\n",
    "rust": "use a::b;\n\nfn act() {}\n",
    "java": "import a.b;\n\nclass Act { void act() {} }\n",
    "javascript": '"use strict";\n\nfunction act() {}\n',
    "typescript": 'import a from "b";\n\nexport function act(): void {}\n',
    "c": "#include <stdio.h>\n\nint act(void) { return 1; }\n",
    "kotlin": "import a.b\n\nfun act() {}\n",
    "swift": "import A\n\nfunc act() {}\n",
    "scala": "import a.b\n\nobject Act {}\n",
    "c_sharp": "using A;\n\nclass Act {}\n",
    "ruby": 'require "a"\n\ndef act\nend\n',
    "bash": "set -e\n\nact() { echo 1; }\n",
    "cpp": "#include <vector>\n\nint act() { return 1; }\n",
}


def read(language: str, text: str) -> tuple[str | None, dict[str, str | None]]:
    """The docstrings of a file and of its symbols."""
    found = extract(language, text.encode(), "x", parse(language, text.encode()))
    return found.docstring, {symbol.name.lower(): symbol.docstring for symbol in found.symbols}


def comments(language: str, text: str) -> list[str]:
    """A text as comments in every way that a language has."""
    mark = "#" if language in HASH else "//"
    ways = ["".join(f"{mark} {line}".rstrip() + "\n" for line in text.split("\n"))]
    ruler = mark + ("#" if mark == "#" else "/") * 60 + "\n"
    ways.append(ruler + ways[0] + ruler)
    if language in HASH:
        return [*ways, "".join(f"# {line:<100} #\n" for line in text.split("\n"))]
    stars = "".join(f" * {line}".rstrip() + "\n" for line in text.split("\n"))
    ways += [f"/*\n{stars} */\n", f"/**\n{stars} */\n", f"/*!\n{stars} */\n", f"/* {text} */\n"]
    ways.append(f"/{'*' * 60}\n{stars} {'*' * 60}/\n")
    ways.append("/*" + "".join(f"** {line}".rstrip() + "\n" for line in text.split("\n")).lstrip("*") + "*/\n")
    return ways


@pytest.mark.parametrize("language", CODE)
@pytest.mark.parametrize("notice", NOTICES)
def test_a_notice_is_no_summary_and_what_is_behind_it_is(language, notice):
    for way in comments(language, notice):
        assert read(language, f"{way}\n{CODE[language]}") == (None, read(language, CODE[language])[1]), way
        behind = comments(language, "Counts the frobs.")[0]
        assert read(language, f"{way}\n{behind}\n{CODE[language]}")[0] == "Counts the frobs.", way


@pytest.mark.parametrize("language", CODE)
@pytest.mark.parametrize(
    "notice", [MIT, BSD, "---------- Helpers ----------", "@author A. Person", "Adapted from Frob."]
)
def test_a_notice_is_no_summary_of_a_symbol(language, notice):
    before, after = CODE[language].rsplit("\n\n", 1)
    if language == "python":
        after, before = "class A:\n    pass\n", "import os"
    for way in comments(language, notice):
        _, symbols = read(language, f"{before}\n\n{way}{after}")
        assert not any(symbols.values()), way


@pytest.mark.parametrize(
    ("language", "directives", "code"),
    [
        (
            "typescript",
            [
                '/// <reference types="node" />',
                "// eslint-disable-next-line no-alert",
                "/* eslint-disable */",
                "// @ts-check",
                "/* global jQuery, $ */",
                "// prettier-ignore",
                "//#region parts",
                "/* istanbul ignore file */",
                "// tslint:disable:no-any",
                "// biome-ignore lint: x",
            ],
            "export function act(): void {}\n",
        ),
        ("javascript", ["#!/usr/bin/env node", "/* jshint esversion: 6 */", "// @flow strict"], "function act() {}\n"),
        ("go", ["//go:build linux && amd64", "// +build linux", "//nolint:all"], "package p\n\nfunc act() {}\n"),
        (
            "c",
            ["// clang-format off", "/* NOLINT(readability) */", "#pragma once", "/* -*- mode: C++ -*- */"],
            "int act(void) { return 1; }\n",
        ),
        ("cpp", ["// NOLINTNEXTLINE", "#pragma once", "// IWYU pragma: private"], "int act() { return 1; }\n"),
        ("rust", ["#![allow(dead_code)]", "// rustfmt::skip", "#![no_std]"], "fn act() {}\n"),
        ("java", ["// CHECKSTYLE:OFF", "// @formatter:off", "// noinspection unused"], "class Act {}\n"),
        (
            "python",
            [
                "#!/usr/bin/env python3",
                "# -*- coding: utf-8 -*-",
                "# pylint: disable=all",
                "# type: ignore",
                "# mypy: strict",
                "# ruff: noqa: E501",
                "# flake8: noqa",
                "# fmt: off",
                "# isort: skip_file",
            ],
            "class Act:\n    pass\n",
        ),
    ],
)
def test_a_line_for_a_tool_is_no_summary(language, directives, code):
    mark = "#" if language in HASH else "//"
    for directive in directives:
        assert read(language, f"{directive}\n\n{code}")[0] is None, directive
        assert read(language, f"{directive}\n{code}")[0] is None, directive
        assert not any(read(language, f"{directive}\n{code}")[1].values()), directive
        text = f"{directive}\n\n{mark} Counts the frobs.\n\n{code}"
        assert read(language, text)[0] == "Counts the frobs.", directive
    together = "\n".join(sorted(directives, key=lambda line: not line.startswith("#!/")))
    assert read(language, f"{together}\n\n{mark} Counts the frobs.\n\n{code}")[0] == "Counts the frobs."


def test_a_line_for_a_tool_between_a_comment_and_its_symbol_is_passed_over():
    text = "/** Counts. */\n// eslint-disable-next-line no-alert\nfunction act() {}\n"
    assert read("javascript", text)[1] == {"act": "Counts."}
    assert read("c", "/* Counts. */\n/* NOLINTNEXTLINE */\nint act(void) { return 1; }\n")[1] == {"act": "Counts."}


@pytest.mark.parametrize(
    "text",
    [
        "Black boxes are opened here.",
        "Standard input: read line by line.",
        "Global state of the parser.",
        "Region of memory that is shared.",
        "Copies the licence of a book to its reader.",
        "Checks the permission to read a file.",
        "Created by the factory when a client connects.",
        "Modified entries are written back.",
        "Authors of a book, by name.",
        "Line 3 of the poem.",
        "End of the list.",
        "Taken from the pool until it is given back.",
        "C++ names -> C names.",
    ],
)
def test_words_that_notices_have_too_are_kept(text):
    for language in CODE:
        for is_file in (True, False):
            assert about_the_code(text, is_file=is_file) == text
        mark = "#" if language in HASH else "//"
        assert read(language, f"{mark} {text}\n\n{CODE[language]}")[0] == text


GUARDS = [
    "#ifndef FROB_H\n#define FROB_H\n{}\n#endif /* FROB_H */\n",
    "#pragma once\n{}\n",
    "#ifndef F\n#define F 1\n\n{}\n#endif\n",
]


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("language", ["c", "cpp"])
def test_the_comment_inside_an_include_guard_is_the_files(language, guard):
    inside = "/* Fast frobs. */\n\n#include <stdio.h>\n\n/* Counts. */\nint act(int x);\n"
    assert read(language, guard.format(inside))[0] == "Fast frobs."
    licence = comments(language, MIT)[0]
    assert read(language, licence + "\n" + guard.format(inside))[0] == "Fast frobs."
    assert read(language, guard.format(licence + "\n" + inside))[0] == "Fast frobs."
    assert read(language, guard.format("int act(int x);\n"))[0] is None
    own = read(language, guard.format("/* Counts. */\nint act(int x);\n"))
    assert own == (None, {"act": "Counts."})


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("go", "/*\nPackage kv is a tiny store.\n*/\npackage kv\n", "Package kv is a tiny store."),
        ("go", "// Copyright 2020 A\n\n// Package kv stores.\npackage kv\n", "Package kv stores."),
        ("rust", "// Copyright 2020 A\n//! Crate words.\n//! More.\n\nfn f() {}\n", "Crate words.\nMore."),
        ("rust", "#![allow(x)]\n//! Crate words.\nfn f() {}\n", "Crate words."),
        ("rust", "/*! Crate words. */\nfn f() {}\n", "Crate words."),
        (
            "javascript",
            "/**\n * @fileoverview Draws things.\n * @author A. Person\n */\nfunction f() {}\n",
            "Draws things.",
        ),
        (
            "javascript",
            "/**\n * Draws things.\n * @module draw/things\n */\n\nfunction f() {}\n",
            "Draws things.\n@module draw/things",
        ),
        ("typescript", "/** @file Draws things. */\nexport const a = () => 1;\n", "Draws things."),
        (
            "c",
            "/**\n * @file frob.h\n * @brief Counts frobs.\n *\n * At length.\n */\nint f(int x);\n",
            "Counts frobs.\n\nAt length.",
        ),
        ("c", "/**\n * \\file\n * Counts frobs.\n */\n#include <a.h>\nint f(int x);\n", "Counts frobs."),
        (
            "cpp",
            "//===-- frob/a.h - Frob counting -----*- C++ -*-===//\n//\n// Part of the Frob Project, under the Apache\n\nint f();\n",
            "Frob counting",
        ),
        ("java", "/*\n * Copyright 2020 A\n */\npackage a.b;\n\n/** Words. */\nclass A {}\n", None),
        ("java", "/** Everything that counts. */\npackage a.b;\n", "Everything that counts."),
        (
            "python",
            '"""\nfrob.counting\n~~~~~~~~~~~~~\n\nCounts.\n\n:copyright: (c) 2020 by A.\n:license: BSD\n"""\n',
            "Counts.",
        ),
        ("python", '"""Copyright 2020 A. All rights reserved."""\n\n# Counts.\n\nimport os\n', "Counts."),
        ("python", "#!/usr/bin/env python\n# Counts.\nimport os\n", "Counts."),
    ],
)
def test_what_speaks_for_a_file(language, text, expected):
    assert read(language, text)[0] == expected


@pytest.mark.parametrize("words", ["For fputs() below", "needed for size_t", "only for tests", "Required by others."])
@pytest.mark.parametrize("language", ["c", "cpp", "java", "javascript", "swift", "kotlin", "scala", "c_sharp"])
def test_what_an_import_is_for_does_not_sum_up_the_file(language, words):
    before, after = CODE[language].rsplit("\n\n", 1)
    before = 'import a from "a";' if language == "javascript" else before
    assert read(language, f"/* {words} */\n{before}\n\n{after}")[0] is None
    assert read(language, f"/* Counts for others. */\n{before}\n\n{after}")[0] == "Counts for others."


def test_marks_of_comments_are_no_words():
    assert read("c", "/*\n** Parse a row.\n** Returns 0.\n*/\nint row(void){return 0;}\n")[1] == {
        "row": "Parse a row.\nReturns 0."
    }
    lists = "/**\n * Kinds:\n * - one\n *   more\n * - two\n *\n *     code(1);\n */\nint f(void){return 0;}\n"
    assert read("c", lists)[1] == {"f": "Kinds:\n- one\n  more\n- two\n\n    code(1);"}
    heading = "/// Adds.\n///\n/// # Examples\n///\n/// ```\n/// # let a = 1;\n/// f(a);\n/// ```\nfn f(a: i32) {}\n"
    assert read("rust", heading)[1] == {"f": "Adds.\n\n# Examples\n\n```\n# let a = 1;\nf(a);\n```"}
    assert read("c", "/* Adds **two** *numbers*. */\nint f(void){return 0;}\n")[1] == {"f": "Adds **two** *numbers*."}


def test_a_huge_comment_takes_linear_time():
    start = time.process_time()
    for line in (
        "-" * 299,
        "- " * 149,
        "x" * 299,
        "/" * 150 + " " * 149,
        "(c) " * 74,
        "a." * 149,
        "-*-" * 99,
        " " * 298 + "x",
    ):
        for text in ("\n".join([line] * 3000), line.replace("\n", "") * 3000):
            assert len(about_the_code(text, is_file=True) or "") <= len(text)
            read("c", f"/* {text} */\nint f(void) {{ return 1; }}\n")
    assert time.process_time() - start < 100, "what is quadratic takes hours"


# Language -> the marks of a title, and two functions or the like of one line each.
PLAIN = ("/*\n * {}\n */\n", "/*\n   {}\n*/\n", "//\n// {}\n//\n")
TITLED = {
    "c": (PLAIN, "int act(void) { return 1; }\n"),
    "cpp": (PLAIN, "int act() { return 1; }\n"),
    "go": (PLAIN, "func act() {}\n"),
    "rust": (PLAIN, "fn act() {}\n"),
    "java": (PLAIN, "class Act {}\n"),
    "javascript": (PLAIN, "function act() {}\n"),
    "typescript": (PLAIN, "function act() {}\n"),
    "kotlin": (PLAIN, "fun act() {}\n"),
    "swift": (PLAIN, "func act() {}\n"),
    "scala": (PLAIN, "object Act {}\n"),
    "c_sharp": (PLAIN, "class Act {}\n"),
    "php": (PLAIN, "function act() {}\n"),
    "python": (("#\n# {}\n#\n",), "ACT = 1\n"),
    "ruby": (("#\n# {}\n#\n",), "def act\nend\n"),
    "bash": (("#\n# {}\n#\n",), "act() { echo 1; }\n"),
    "lua": (("--\n-- {}\n--\n",), "function act() end\n"),
    "sql": (("--\n-- {}\n--\n",), "CREATE VIEW act AS SELECT 1;\n"),
}


@pytest.mark.parametrize("language", TITLED)
def test_the_title_of_a_section_is_no_summary_of_the_symbol_below_it(language):
    marks, code = TITLED[language]
    last, begin = re.sub("act", "last", code, flags=re.IGNORECASE), "<?php\n" if language == "php" else ""
    for mark in marks:
        sections = "".join(mark.format(title) + "\n" + code for title in ("Reading input", "Writing output"))

        def docstring(before: str, words: str, mark: str = mark) -> list[str | None]:
            text = f"{begin}{before}\n{mark.format(words)}{last}"
            return [_symbols(language, text.replace("\n", eol))[-1].docstring for eol in ("\n", "\r\n")]

        assert docstring(sections, "Memory management") == [None, None]
        assert docstring(sections, "Manages memory.") == ["Manages memory."] * 2, "a sentence is no title"
        assert docstring(code, "Memory management") == ["Memory management"] * 2, "no other title stands alone"


def test_the_words_of_the_symbol_itself_stay_below_a_title():
    section = "#\n# {}\n#\n\ndef act(): pass\n"
    text = section.format("Reading") + section.format("Writing") + "#\n# Memory\n#\ndef act():\n    '''Acts.'''\n"
    assert [s.docstring for s in _symbols("python", text)] == [None, None, "Acts."]


@pytest.mark.parametrize("language", ["c", "java", "javascript", "php"])
def test_a_documenting_comment_is_no_title(language):
    code = TITLED[language][1]
    doc = "/**\n * {}\n */\n"
    text = "".join(doc.format(title) + "\n" + code for title in ("Reading", "Writing")) + doc.format("Memory") + code
    begin = "<?php\n" if language == "php" else ""
    assert _symbols(language, begin + text)[-1].docstring == "Memory"


def _symbols(language: str, text: str) -> list[Symbol]:
    return list(extract(language, text.encode(), "x", parse(language, text.encode())).symbols)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("typescript", "/** @file Draws things. */\nexport const a = 1;\n"),
        ("javascript", "/**\n * Draws things.\n * @module draw\n */\nfunction a() {}\n"),
        ("c", "/**\n * @file a.h\n * Draws things.\n */\nint a(void);\n"),
    ],
)
def test_a_comment_that_says_that_it_is_about_its_file_is_not_about_the_symbol_below_it(language, text):
    found = extract(language, text.encode(), "a", parse(language, text.encode()))
    assert (found.docstring or "").startswith("Draws things.")
    assert [symbol.docstring for symbol in found.symbols] == [None]
