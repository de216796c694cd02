"""Notebooks are read as the Python of their cells; outputs, which may be large or secret, never."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.core import FileClass
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.notebooks import python_of


def notebook(*cells: dict, language: str = "python") -> str:
    return json.dumps({"cells": list(cells), "metadata": {"language_info": {"name": language}}, "nbformat": 4})


CODE = {"cell_type": "code", "source": ["%time\n", "x = 1\n", "!ls\n", "y = 2"], "outputs": [{"text": "s3cret"}]}
TEXT = {"cell_type": "markdown", "source": "# Title\n\nWords."}


def test_code_stays_and_all_else_is_a_comment():
    text = "# # Title\n#\n# Words.\n\n# %time\nx = 1\n# !ls\ny = 2\n"
    assert python_of(notebook(TEXT, CODE).encode()).decode() == text
    assert python_of(notebook(CODE, language="julia").encode()).decode() == "# %time\n# x = 1\n# !ls\n# y = 2\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["cells", "source", "cell_type", "metadata", "language_info", "name"]), inner)
    ),
)


@given(JSON)
def test_anything_else_is_an_empty_text_or_comments(table):
    python_of(json.dumps(table).encode()).decode()
    assert python_of(json.dumps(table).encode()[:-1] + b"\xff") == b""


@pytest.mark.parametrize("damaged", [b"", b"{", b"[" * 100_000, b'{"cells": 3}', b'{"cells": [3, {"source": [3]}]}'])
def test_what_is_no_notebook_is_empty(damaged):
    assert python_of(damaged).strip() == b""


def test_a_picture_of_megabytes_does_not_make_a_notebook_minified(make_repository):
    picture = {"cell_type": "code", "source": "plot()", "outputs": [{"data": {"image/png": "x" * 10**6}}]}
    root = make_repository({"a.ipynb": notebook(picture), "b.ipynb": notebook(CODE)})
    assert {file.path: file.file_class for file in classify(open_repository(root), docs_dir="d")} == {
        "a.ipynb": FileClass.SOURCE,
        "b.ipynb": FileClass.SOURCE,
    }
