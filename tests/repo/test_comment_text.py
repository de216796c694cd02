"""The text of comments: marks go, everything behind them stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.repo.comment_text import comment_text


@pytest.mark.parametrize(
    ("comments", "text"),
    [
        (["/** Opens. */"], "Opens."),
        (["/*\n** Opens a shop.\n** Closes it.\n*/"], "Opens a shop.\nCloses it."),
        (["/**\n * Opens.\n *\n * - one\n *   more\n * * two\n */"], "Opens.\n\n- one\n  more\n* two"),
        (["/**\n * **Bold** first.\n * And `more`.\n */"], "**Bold** first.\nAnd `more`."),
        (["/**\n * @example\n\topen()\n * @see x\n */"], "@example\n\topen()\n@see x"),
        (["/*\n  Opens.\n\n  * one\n  * two\n*/"], "Opens.\n\n* one\n* two"),
        (["/* Opens\n   a shop. */"], "Opens\na shop."),
        (["/*!\n * Opens.\n */"], "Opens."),
        (["/******\n * Opens.\n ******/"], "Opens."),
        (["/**< Behind. */"], "Behind."),
        (["///< Behind."], "Behind."),
        (["//<T> is a type."], "<T> is a type."),
        (
            ["/// Opens.", "///", "/// # Example", "/// * one", "/// ```", "/// // why", "/// # hidden", "/// ```"],
            "Opens.\n\n# Example\n* one\n```\n// why\n# hidden\n```",
        ),
        (["//! Opens.\n", "//! More.\n"], "Opens.\nMore."),
        (["// Opens:", "//\topen(", "//\t\tx)", "//   - one"], "Opens:\n\topen(\n\t\tx)\n  - one"),
        (["# Opens.", "#   indented", "#: kept"], "Opens.\n  indented\nkept"),
        (["-- Opens.", "-- More."], "Opens.\nMore."),
        (["--[[ Opens.\nMore. ]]"], "Opens.\nMore."),
        (["/* One. */", "// Two.", "// Three."], "One.\nTwo.\nThree."),
        (["/* ---------- Shops ---------- */"], None),
        (["//===----------===//"], None),
        (["/**/"], None),
        (["/***/"], None),
        (["//"], None),
        ([], None),
    ],
)
def test_marks_go_and_the_rest_stays(comments, text):
    assert comment_text(comments) == text


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r/*"), min_size=1).map("x{}y".format), min_size=1
    )
)
def test_text_reads_as_it_was_whatever_marks_are_around_it(lines):
    text = "\n".join(lines)
    for open_mark, mark, end in [("/**\n", " * ", "\n */"), ("/*\n", "** ", "\n*/"), ("/*\n", "   ", "\n*/")]:
        assert comment_text([open_mark + "\n".join(mark + line for line in lines) + end]) == text
    for mark in ("// ", "/// ", "//! ", "# ", "-- "):
        assert comment_text([mark + line for line in lines]) == text


def test_a_comment_of_megabytes_takes_linear_time():
    start = time.process_time()
    for line in (" * a", "*", "a", " ", "//", "*a*a*a" * 20):
        assert len(comment_text(["/**\n" + f"{line}\n" * (2_000_000 // (len(line) + 1)) + "*/"]) or "") <= 2_000_003
        assert len(comment_text([f"// {line}"] * 100_000) or "") <= 100_000 * (len(line) + 1)
    assert time.process_time() - start < 60, "what is quadratic takes hours"


@pytest.mark.parametrize(
    "comment",
    [
        "/** Words.\n\n  Opens a tin\n\t  with care.\n  Shuts it.\n */",
        "/*\n  Words.\n\n  Opens a tin\n\t  with care.\n  Shuts it.\n*/",
        "//   Words.\n//\n//   Opens a tin\n// \t  with care.\n//   Shuts it.",
    ],
)
def test_a_tab_in_one_line_does_not_indent_all_the_others(comment):
    text = comment_text(comment.split("\n") if comment.startswith("//") else [comment])
    assert text == "Words.\n\nOpens a tin\n        with care.\nShuts it."


def test_code_that_is_indented_by_tabs_alone_keeps_them():
    assert comment_text(["/**\n * Words:\n *\n * \ttin(\n * \t\tlid)\n */"]) == "Words:\n\n\ttin(\n\t\tlid)"
