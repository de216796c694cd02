"""Python within brackets may go on anywhere, also to the left of the block that it is in."""

from __future__ import annotations

import ast
import time

import pytest

from rotary_batch.repo.languages.python_lines import MAX_JOINED
from rotary_batch.repo.symbols import extract, parse

BROKEN_LINES = [
    "(lid.\n{}hinge)",
    "lid.open(\n{}not\n{}hinge)",
    "[x for x in\n{}hinge]",
    "(lid  # said ( twice\n{}# and once more\n{}.hinge and\n{}'(' + '''\n(''')",
    "{{'lid':\n{}hinge, lid: [lid,\n{}hinge +\n{}lid]}}",
    "f(lambda lid,\n{}hinge: lid)",
]


def spans(source: str) -> list[tuple[str, int, int]]:
    """Qualified name, first and last line of each function and class."""
    found = extract("python", source.encode(), "box.py", parse("python", source.encode())).symbols
    return [(one.qualified_name, one.start_line, one.end_line) for one in found if one.kind != "field"]


def spans_of_python(source: str) -> list[tuple[str, int, int]]:
    """What Python's own parser says of one class with methods."""
    (box,) = ast.parse(source).body
    return [("Box", box.lineno, box.end_lineno), *((f"Box.{one.name}", one.lineno, one.end_lineno) for one in box.body)]


@pytest.mark.parametrize("indent", ["", "   "])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("broken", BROKEN_LINES)
def test_what_follows_brackets_that_go_on_to_the_left_is_found_where_it_is(broken, line_break, indent):
    broken = broken.replace("{}", indent).replace("{{", "{").replace("}}", "}")
    source = f"class Box:\n    def shut(self):\n        {broken}\n        return 1\n\n    def wipe(self):\n        return 2\n"
    source = source.replace("\n", line_break)
    assert spans(source) == spans_of_python(source)


def test_other_errors_stay_where_they_are():
    broken = "def before():\n    (lid.\nhinge)\n    return 1\n\ndef wrong(:\n    pass\n\ndef after():\n    return 2\n"
    assert {("before", 1, 4), ("after", 9, 10)} <= set(spans(broken))


def test_a_bracket_that_is_never_closed_hides_no_more_than_without_joining():
    source = "class Box:\n    def shut(self):\n        lid.open(\n    def wipe(self):\n        return 2\n\ndef after():\n    pass\n"
    assert {"after"} <= {name for name, _, _ in spans(source)}


def test_many_such_line_breaks_take_linear_time():
    source = b"def f():\n" + b"    (lid.\nhinge)\n" * (MAX_JOINED * 50) + b"(\n"
    start = time.process_time()
    parse("python", source)
    assert time.process_time() - start < 10
