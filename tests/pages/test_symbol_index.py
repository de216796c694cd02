"""The symbol index: one page, or pages of bounded size, each of whose links leads to its symbol."""

from __future__ import annotations

import re

from rotary_batch.pages import symbol_index
from rotary_batch.pages.symbol_index import INDEX, is_index_thing
from tests.pages.test_pages import body, make_view, render_site

SOURCES = {
    "a.py": "def Zoo(): pass\n\n\ndef zoo(): pass\n\n\ndef _no(): pass\n\n\nclass Ant:\n    def run(self): pass\n",
    "b.py": "def ant(): pass\n\n\ndef größe(): pass\n",
    "test_c.py": "def test_x(): pass\n",
}


def test_public_symbols_are_listed_by_letter():
    assert body(render_site(make_view(SOURCES), {})["symbol-index.md"]) == (
        "# Symbol index\n\n6 public symbols, without those of tests.\n\n"
        "## A\n\n- [`Ant`](a.py.md#ant) class, `a.py`\n- [`ant`](b.py.md#ant) function, `b.py`\n\n"
        "## G\n\n- [`größe`](b.py.md#line-4) function, `b.py`\n\n"
        "## R\n\n- [`Ant.run`](a.py.md#antrun) method, `a.py`\n\n"
        "## Z\n\n- [`Zoo`](a.py.md#zoo) function, `a.py`\n- [`zoo`](a.py.md#zoo-function) function, `a.py`\n"
    )


def test_many_symbols_are_on_pages_of_bounded_size(monkeypatch):
    monkeypatch.setattr(symbol_index, "MAX_ENTRIES", 10)
    names = [f"{letter}{n:02}" for letter in "ab" for n in range(15)]
    view = make_view({"m.py": "".join(f"def {name}(): pass\n" for name in names)})
    index = view.symbol_index
    assert index.things == [INDEX, *(f"/symbol-index-{part}.md" for part in ("a-1", "a-2", "b-1", "b-2"))]
    assert all(map(is_index_thing, index.things))
    first = "\n".join(index.blocks(INDEX, view.paths))
    assert re.findall(r"\]\((.*?)\)", first) == [thing[1:] for thing in index.things[1:]]
    shown = ["\n".join(index.blocks(thing, view.paths)) for thing in index.things[1:]]
    assert [re.findall(r"\[`(\w+)`\]", page) for page in shown] == [names[:10], names[10:15], names[15:25], names[25:]]
    assert shown[1].startswith("# Symbols: A, part 2 of 2\n[Symbol index](symbol-index.md)\n- [`a10`](m.py.md#a10) ")


def test_only_pages_of_the_index_are_taken_for_them():
    others = [
        "/symbol-index-a.md",
        "/symbol-index-A-1.md",
        "symbol-index.md",
        "/symbol-index-a-1.md/x",
        "/symbol-index",
    ]
    assert not any(map(is_index_thing, others))
