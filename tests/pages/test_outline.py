"""The order of a page, and anchors that are unique and the same wherever the page is rendered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.core import Symbol
from rotary_batch.pages.outline import Part, is_test_file, outline
from tests.link_check import forge_slug, toc_slug
from tests.pages.test_pages import body, make_view, render_site


def symbols(*rows: tuple[str, str], public: bool = True) -> list[Symbol]:
    """Symbols of (kind, qualified name), one on each line."""
    return [
        Symbol(
            path="a.x",
            kind=kind,
            name=name.rpartition(".")[2],
            qualified_name=name,
            start_line=line,
            end_line=line,
            start_byte=10 * line,
            end_byte=10 * line + 9,
            signature=name,
            docstring=None,
            is_public=public,
        )
        for line, (kind, name) in enumerate(rows, 1)
    ]


def anchors(*rows: tuple[str, str]) -> list[str]:
    arranged = outline("a.x", symbols(*rows))
    return [arranged.headings[symbol.id].anchor for symbol in arranged.sections]


def test_names_that_differ_by_case_have_anchors_of_their_own():
    rows = [("struct", "Put"), ("function", "put"), ("function", "PUT"), ("class", "Box.Put"), ("method", "boxPut")]
    assert anchors(*rows) == ["put", "put-function", "put-function-line-3", "boxput", "boxput-method"]


def test_a_type_and_a_function_of_one_name_both_have_a_section():
    arranged = outline("a.x", symbols(("struct", "stat"), ("function", "stat"), ("function", "stat")))
    assert [(symbol.kind, arranged.headings[symbol.id].anchor) for symbol in arranged.sections] == [
        ("struct", "stat"),
        ("function", "stat-function"),
    ]
    assert [len(others) for others in arranged.others.values()] == [0, 1]
    assert [arranged.anchor(symbol.id) for symbol in symbols(("a", "x"), ("a", "x"), ("a", "x"))] == [
        "stat",
        "stat-function",
        "stat-function",
    ]


def test_a_name_that_renderers_disagree_on_has_an_explicit_anchor():
    arranged = outline(
        "a.x", symbols(("method", "operator--"), ("function", "größe"), ("function", "$"), ("macro", "f"))
    )
    shown = [arranged.headings[symbol.id] for symbol in arranged.sections]
    assert [(heading.anchor, heading.is_explicit) for heading in shown] == [
        ("line-1", True),
        ("line-2", True),
        ("line-3", True),
        ("f", False),
    ]
    assert shown[0].markdown == '<a id="line-1"></a>\n\n## `operator--` (method, line 1)'
    assert shown[3].markdown == "## `f`"


NAMES = st.text(alphabet="aAbB_-.$ ß漢\u0130", min_size=1, max_size=5) | st.sampled_from(["a.x", "ax", "line-1", "put"])


@given(st.lists(st.tuples(st.sampled_from(["function", "class", "field"]), NAMES), max_size=8))
def test_every_link_finds_one_anchor_on_every_renderer(rows):
    arranged = outline("a.x", symbols(*rows))
    headings = [arranged.headings[symbol.id] for symbol in arranged.sections]
    for slug in (forge_slug, toc_slug):
        plain = [slug("a.x"), *(slug(heading.text.replace("`", "")) for heading in headings)]
        explicit = [heading.anchor for heading in headings if heading.is_explicit]
        found = [*plain, *explicit]
        assert all(found.count(heading.anchor) == 1 for heading in headings)


def test_public_symbols_come_first_then_private_ones_then_tests():
    rows = [("function", "_hidden"), ("class", "Box"), ("method", "Box._inner"), ("method", "Box.__init__")]
    rows += [("function", "go"), ("function", "go.local"), ("module", "tests"), ("function", "tests.check")]
    arranged = outline("a.x", symbols(*rows))
    assert {part: [symbol.qualified_name for symbol in inside] for part, inside in arranged.parts.items()} == {
        Part.PUBLIC: ["Box", "Box.__init__", "go"],
        Part.PRIVATE: ["_hidden", "Box._inner", "go.local"],
        Part.TESTS: ["tests", "tests.check"],
    }
    assert list(outline("a.x", symbols(("function", "go"), public=False)).parts) == [Part.PRIVATE]


def test_what_is_in_a_private_container_is_private():
    arranged = outline(
        "a.x", symbols(("class", "_Box"), ("method", "_Box.put"), ("class", "_Box.In"), ("field", "free"))
    )
    assert {part: len(inside) for part, inside in arranged.parts.items()} == {Part.PUBLIC: 1, Part.PRIVATE: 3}


def test_fields_are_in_their_container_and_links_to_them_lead_there():
    rows = [("struct", "Opts"), ("field", "Opts.verbose"), ("enum", "Col"), ("member", "Col.RED"), ("field", "lost.x")]
    arranged = outline("a.x", symbols(*rows))
    assert [symbol.qualified_name for symbol in arranged.sections] == ["Opts", "Col", "lost.x"]
    assert [[member.name for member in inside] for inside in arranged.members.values()] == [["verbose"], ["RED"]]
    assert [arranged.anchor(symbol.id) for symbol in symbols(*rows)] == ["opts", "opts", "col", "col", "lostx"]


def test_a_hundred_thousand_fields_are_arranged_in_linear_time():
    rows = [("struct", "Big"), *(("field", f"Big.f{n}") for n in range(100_000))]
    arranged = outline("a.x", symbols(*rows))
    assert [len(inside) for inside in arranged.members.values()] == [100_000]


def test_test_files_are_known_by_their_names():
    tests = [
        "tests/a.py",
        "pkg/test_a.py",
        "a_test.go",
        "src/a.test.ts",
        "spec/a_spec.rb",
        "src/FooTest.java",
        "conftest.py",
    ]
    others = ["contest.py", "latest.go", "src/attest.ts", "testimony/a.py", "Test.java"]
    assert ([is_test_file(path) for path in tests], [is_test_file(path) for path in others]) == (
        [True] * 7,
        [False] * 5,
    )


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        (
            "Tin.java",
            "class Tin {\n  @Deprecated @Size(max = 3) public int lid;\n}\n",
            "@Deprecated @Size(max = 3) public int lid",
        ),
        ("tin.ts", "export class Tin {\n  @Input() lid: string;\n}\n", "@Input() lid: string"),
        ("tin.rs", "pub struct Tin {\n    #[serde(skip)]\n    pub lid: u8,\n}\n", "#[serde(skip)] pub lid: u8"),
        ("tin.cs", "class Tin {\n  [Obsolete] public int lid;\n}\n", "[Obsolete] public int lid"),
        ("tin.php", "<?php\nclass Tin {\n  #[Lid] public int $lid;\n}\n", "#[Lid] public int $lid"),
        ("tin.kt", "class Tin(@Deprecated val lid: Int)\n", "@Deprecated val lid: Int"),
    ],
)
def test_the_table_of_fields_shows_their_decorators(path, text, shown):
    page = body(render_site(make_view({path: text}), {})[f"{path}.md"])
    assert f"| `{shown}` |" in page
