"""One golden file a language: every symbol and reference of it, whole."""

from __future__ import annotations

import pytest

from rotary_batch.repo.symbols import extract, parse

SOURCES = {
    "python": '''"""A module."""
import os
from json import dumps as d

@decorated
class Box(Base):
    """Holds things."""

    def put(self, thing: int) -> None:  # a remark
        """Put it in."""
        d(os.getpid())

def alone(): return Box()
''',
    "javascript": """// A file.

import { a as b } from "x";

/** Adds. */
export function add(x, y) { return b(x) + y; }
class Box { put(thing) { return new Other(thing); } }
const arrow = (x) => add(x, 1);
""",
    "typescript": """interface Shape { area(): number }
type Name = string;
enum Colour { Red }
// Squares.
export class Square implements Shape { area(): number { return make(2); } }
""",
    "tsx": "function View(p: Props) { return <div>{render(p)}</div>; }\n",
    "go": """// Package box holds things.
package box

// Box is one.
type Box struct { n int }
type Putter interface { Put(int) }

// Put adds.
func (b *Box) Put(n int) { b.n = add(n) }
func add(n int) int { return n }
""",
    "rust": """//! A crate.

/// A box.
#[derive(Debug)]
struct Box { n: i32 }
impl Box {
    /// Puts.
    fn put(&mut self, n: i32) { self.n = add(n); }
}
trait Putter { fn put(&self); }
fn add(n: i32) -> i32 { n }
""",
    "java": """/** A box. */
public class Box {
    /** Makes. */
    public Box() { super(); }
    int put(int n) { return add(n); }
    enum Kind { A }
}
""",
    "c": """#include <stdio.h>
/* Adds. */
static int add(int a, int b) { return a + b; }
int *find(void);
struct box { int n; };
#define TWICE(x) (2 * (x))
int main(void) { return add(1, TWICE(2)); }
""",
    "cpp": """namespace shop {
// A box.
class Box { public: void put(int n); int get() { return n_; } };
void Box::put(int n) { n_ = add(n); }
}
""",
}
EXPECTED = {
    "python": (
        "A module.",
        [
            ("class", "Box", 5, 11, "class Box(Base)", "Holds things."),
            ("method", "Box.put", 9, 11, "def put(self, thing: int) -> None", "Put it in."),
            ("function", "alone", 13, 13, "def alone()", None),
        ],
        [("d", "Box.put"), ("getpid", "Box.put"), ("Box", "alone")],
    ),
    "javascript": (
        "A file.",
        [
            ("function", "add", 6, 6, "function add(x, y)", "Adds."),
            ("class", "Box", 7, 7, "class Box", None),
            ("method", "Box.put", 7, 7, "put(thing)", None),
            ("function", "arrow", 8, 8, "arrow = (x)", None),
        ],
        [("b", "add"), ("Other", "Box.put"), ("add", "arrow")],
    ),
    "typescript": (
        None,
        [
            ("interface", "Shape", 1, 1, "interface Shape", None),
            ("method", "Shape.area", 1, 1, "area(): number", None),
            ("type", "Name", 2, 2, "type Name", None),
            ("enum", "Colour", 3, 3, "enum Colour", None),
            ("class", "Square", 5, 5, "class Square implements Shape", "Squares."),
            ("method", "Square.area", 5, 5, "area(): number", None),
        ],
        [("make", "Square.area")],
    ),
    "tsx": (None, [("function", "View", 1, 1, "function View(p: Props)", None)], [("render", "View")]),
    "go": (
        None,
        [
            ("struct", "Box", 5, 5, "Box struct { n int }", "Box is one."),
            ("interface", "Putter", 6, 6, "Putter interface { Put(int) }", None),
            ("method", "Box.Put", 9, 9, "func (b *Box) Put(n int)", "Put adds."),
            ("function", "add", 10, 10, "func add(n int) int", None),
        ],
        [("add", "Box.Put")],
    ),
    "rust": (
        "A crate.",
        [
            ("struct", "Box", 5, 5, "struct Box", "A box."),
            ("method", "Box.put", 8, 8, "fn put(&mut self, n: i32)", "Puts."),
            ("trait", "Putter", 10, 10, "trait Putter", None),
            ("method", "Putter.put", 10, 10, "fn put(&self);", None),
            ("function", "add", 11, 11, "fn add(n: i32) -> i32", None),
        ],
        [("add", "Box.put")],
    ),
    "java": (
        None,
        [
            ("class", "Box", 2, 7, "public class Box", "A box."),
            ("constructor", "Box.Box", 4, 4, "public Box()", "Makes."),
            ("method", "Box.put", 5, 5, "int put(int n)", None),
            ("enum", "Box.Kind", 6, 6, "enum Kind", None),
        ],
        [("add", "Box.put")],
    ),
    "c": (
        None,
        [
            ("function", "add", 3, 3, "static int add(int a, int b)", "Adds."),
            ("declaration", "find", 4, 4, "int *find(void);", None),
            ("struct", "box", 5, 5, "struct box", None),
            ("macro", "TWICE", 6, 7, "#define TWICE(x)", None),
            ("function", "main", 7, 7, "int main(void)", None),
        ],
        [("add", "main"), ("TWICE", "main")],
    ),
    "cpp": (
        None,
        [
            ("namespace", "shop", 1, 5, "namespace shop", None),
            ("class", "shop.Box", 3, 3, "class Box", "A box."),
            ("declaration", "shop.Box.put", 3, 3, "void put(int n);", None),
            ("method", "shop.Box.get", 3, 3, "int get()", None),
            ("function", "shop.Box.put", 4, 4, "void Box::put(int n)", None),
        ],
        [("add", "shop.Box.put")],
    ),
}


@pytest.mark.parametrize("language", SOURCES)
def test_symbols_and_references(language):
    source = SOURCES[language].encode()
    found = extract(language, source, "file", parse(language, source))
    names = {symbol.id: symbol.qualified_name for symbol in found.symbols}
    symbols = [(s.kind, s.qualified_name, s.start_line, s.end_line, s.signature, s.docstring) for s in found.symbols]
    references = [(r.name, names[r.caller] if r.caller else None) for r in found.references if r.caller]
    assert (found.docstring, symbols, references) == EXPECTED[language]
