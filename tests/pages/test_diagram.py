"""Maps: the same graph as Mermaid text and as SVG, in which no name of a repository acts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.pages.diagram import MAX_EDGES, MAX_NODES, Diagram, diagram, mermaid, read_mermaid
from rotary_batch.pages.drawing import svg, with_drawings

USES = {("cli", "core"): 5, ("cli", "db.py"): 2, ("db.py", "core"): 1, ("tests", "core"): 9, ("core", "core"): 3}
TEXT = '```mermaid\nflowchart TD\n  n0["cli"]\n  n1["core"]\n  n2["db.py"]\n  n0 --> n1\n  n0 --> n2\n  n2 --> n1\n```'


def body(block: str) -> str:
    return block.removeprefix("```mermaid\n").removesuffix("\n```")


def test_a_diagram_is_mermaid_text_without_what_is_left_out():
    graph = diagram(USES, ["tests"])
    assert mermaid(graph) == TEXT
    assert read_mermaid(body(TEXT)) == graph


def test_nothing_is_drawn_where_nothing_uses_another_part():
    assert diagram({}) is None
    assert diagram({("a", "a"): 3}) is None


def test_only_the_heaviest_parts_are_drawn():
    graph = diagram({(f"p{a}", f"p{b}"): a + b for a in range(40) for b in range(40) if a != b})
    assert (len(graph.labels), len(graph.edges)) == (MAX_NODES, MAX_EDGES)
    assert graph.labels[-1] == "p39"


NAMES = st.text(max_size=60)


@given(st.dictionaries(st.tuples(NAMES, NAMES), st.integers(1, 9), max_size=30))
def test_names_mean_nothing_to_mermaid_and_to_svg(uses):
    graph = diagram(uses)
    if graph is None:
        return
    assert read_mermaid(body(mermaid(graph))) == graph
    drawing = svg(graph, dict.fromkeys(graph.labels, 'x" onload="y'))
    tree = ET.fromstring(drawing)
    tags = {node.tag.rpartition("}")[2] for node in tree.iter()}
    assert tags <= {"svg", "defs", "marker", "path", "g", "a", "rect", "text"}
    assert not any(name.startswith("on") for node in tree.iter() for name in node.attrib)
    assert sorted(node.text for node in tree.iter() if node.tag.endswith("text")) == sorted(graph.labels)


def test_boxes_do_not_overlap_and_are_inside():
    graph = Diagram(tuple(f"part-{n}" for n in range(12)), tuple((a, b) for a in range(4) for b in range(4, 10)))
    drawing = svg(graph, {})
    width, height = (float(size) for size in re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing).groups())
    boxes = [tuple(map(float, box)) for box in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawing)]
    assert len(boxes) == 12
    for n, (x, y, w) in enumerate(boxes):
        assert 0 <= x <= width - w
        assert 0 <= y <= height - 32
        assert all(oy != y or ox + ow < x or x + w < ox for ox, oy, ow in boxes[n + 1 :])


def test_a_cycle_is_drawn_too():
    assert svg(Diagram(("a", "b", "c"), ((0, 1), (1, 2), (2, 0))), {}).count("rb-edge") == 3


def test_only_diagrams_of_ours_are_drawn_on_a_page():
    theirs = '```mermaid\nflowchart TD\n  a["x"] --> b\n  click a href "javascript:x"\n```'
    page = with_drawings(f"# x\n\n{TEXT}\n\n{theirs}\n", {"core": "core/index.html"})
    assert page.count("<svg") == 1
    assert '<a href="core/index.html">' in page
    assert theirs in page
