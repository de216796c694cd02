"""The first page: what the project is, in the words of its README, and how to find a way in."""

from __future__ import annotations

import time

import pytest

from rotary_batch.pages.overview import MostUsed, Overview
from rotary_batch.readme import MAX_CHARACTERS, first_paragraphs, readme_of
from tests.pages.test_pages import body, make_view, render_site

MARKDOWN = """\
<!-- header -->
<p align="center"><img src="https://evil.example/logo.png"></p>

# Kettle

[![Build](https://evil.example/b.svg)](https://evil.example) [![x](y)](z)

**Kettle** boils [water](https://evil.example/water) with `steam`. It is
small and quick.

- a list
- of things

Nothing else is `needed` to use it.

## Install

Run the installer, which is not shown here.
"""
REST = "Kettle\n======\n\n.. image:: logo.png\n\nKettle boils `water <https://evil.example>`_ quickly.\n\nUsage\n-----\n\nSee the docs for it.\n"


def test_the_first_paragraphs_of_a_readme_are_its_sentences():
    assert first_paragraphs(MARKDOWN) == [
        "Kettle boils water with `steam`. It is small and quick.",
        "Nothing else is `needed` to use it.",
    ]
    assert first_paragraphs(REST) == ["Kettle boils water quickly."]
    links = "# Kettle\n\nA [Kettle] for [tea], [hot][tea] and [so on].\n\n[kettle]: https://evil.example\n[tea]: <https://evil.example>\n"
    assert first_paragraphs(links) == ["A Kettle for tea, hot and [so on]."]
    assert first_paragraphs("# Kettle\nBoils water for tea.\n") == ["Boils water for tea."]
    assert first_paragraphs("```\nThis is a block of code.\n```\n\nThis is a sentence.\n") == ["This is a sentence."]
    assert first_paragraphs("") == first_paragraphs("# Kettle\n\nTODO\n") == []


def test_the_readme_of_the_top_folder_is_found_by_its_name():
    assert readme_of(["src/README.md", "Readme.rst", "a.py"]) == "Readme.rst"
    assert readme_of(["README", "readme.md"]) == "readme.md"
    assert readme_of(["docs/README.md"]) is None


@pytest.mark.parametrize("piece", ["<!--", "[", "![", "<a ", "*", "`", "```\n", "# ", "[a](", "\n\n", "a. "])
def test_a_hostile_readme_is_read_in_linear_time_and_cut(piece):
    start = time.process_time()
    shown = first_paragraphs(piece * (2_000_000 // len(piece)))
    assert time.process_time() - start < 20, "what is quadratic takes hours"
    assert sum(map(len, shown)) <= 3 * MAX_CHARACTERS


def test_the_first_page_says_what_the_project_is_and_where_to_begin():
    sources = {
        "README.txt": "# Kettle\n\nKettle boils water quickly.\n",
        "kettle/__main__.py": '"""Run it."""\n\n\ndef main():\n    boil()\n',
        "kettle/heat.py": 'def boil():\n    """Make it hot."""\n',
        "bin/start.py": "print(1)\n",
        "tests/test_heat.py": "def main():\n    pass\n",
    }
    view = make_view(sources)
    (boil,) = view.symbols["kettle/heat.py"]
    mains = [*view.symbols["kettle/__main__.py"], *view.symbols["tests/test_heat.py"]]
    overview = Overview(main_functions=mains, most_used=[MostUsed(boil, 7)], num_symbols=4, num_described=1)
    uses = {"": {("bin", "kettle"): 2, ("tests", "kettle"): 9}}
    view = make_view(
        sources,
        docstrings=view.docstrings | {"README.txt": "Kettle boils water quickly."},
        overview=lambda: overview,
        text_counts=lambda: (8, 2),
        uses=uses,
    )
    page = body(render_site(view, {})["index.md"])
    assert page.startswith(
        "# shop\n\nKettle boils water quickly.\n\n"
        "New here? [Onboarding](onboarding.md): overview, architecture, entry points.\n\n"
        '## Map\n\nWhat uses what:\n\n```mermaid\nflowchart TD\n  n0["bin"]\n  n1["kettle"]\n  n0 --> n1\n```\n\n'
        "## Entry points\n\n"
        "- [`bin/start.py`](bin/start.py.md)\n"
        "- [`main`](kettle/__main__.py.md#main) in [`kettle/__main__.py`](kettle/__main__.py.md): Run it.\n\n"
        "## Files and folders\n\n"
        "| Name | Summary |\n| --- | --- |\n| [`bin/`](bin/index.md) |"
    )
    assert "\n\n| Tests | Summary |\n| --- | --- |\n| [`tests/`](tests/index.md) |" in page
    assert (
        "## Most used\n\n| Symbol | Kind | Used by | Summary |\n| --- | --- | --- | --- |\n"
        "| [`boil`](kettle/heat.py.md#boil) | function | 7 | Make it hot. |\n\n"
        "Every public symbol is in the [symbol index](symbol-index.md).\n" in page
    )
    assert (
        "| Files read | 4 | 5 | 80 % |\n| Files with words of their author | 1 | 4 | 25 % |\n"
        "| Symbols with words of their author | 1 | 4 | 25 % |\n| Texts written by the model | 2 | 8 | 25 % |\n" in page
    )


def test_the_map_of_the_first_page_is_that_of_the_folder_with_all_the_code():
    sources = {"src/kettle/a.py": "def a(): pass\n", "src/kettle/b.py": "def b(): pass\n", "tests/t.py": "x = 1\n"}
    view = make_view(sources, uses={"src/kettle": {("a.py", "b.py"): 1}})
    page = body(render_site(view, {})["index.md"])
    assert "## Map\n\nWhat uses what in [`src/kettle`](src/kettle/index.md):\n\n```mermaid\n" in page
