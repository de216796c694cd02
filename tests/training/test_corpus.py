"""Examples have the shape of the project's prompts, leak no docstring, and no held-out text."""

from __future__ import annotations

import textwrap

import pytest

from rotary_batch.config import bundled
from rotary_batch.prompts import load_prompts
from training import corpus, sources
from training.reading import Example, directory_examples, first_sentence, read_file

PROMPTS = load_prompts(bundled("prompts"))
MODULE = '''
"""Boxes that hold things.

More of it.
"""
import os


class Box:
    """A box for one thing at a time."""

    def put(self, thing, *, force=False):
        """Put `thing` in, replacing what is there.  More."""
        if self.thing is None or force:
            self.thing = os.fspath(thing)
'''


@pytest.fixture
def facts(tmp_path):
    path = tmp_path / "boxes" / "box.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(MODULE))
    (path.parent / "__init__.py").write_text('"""All that is needed to keep things."""\n')
    return [read_file(path.parent / name, "boxes", PROMPTS) for name in ("__init__.py", "box.py")]


def test_a_symbol_is_asked_as_a_chunk_is_without_its_docstring(facts):
    (put,) = [one for one in facts[1].examples if one.task == "symbol" and "force" in one.answer + one.prompt][-1:]
    assert put.answer == "Put `thing` in, replacing what is there."
    assert "class Box\nimports: os\n<text-" in put.prompt
    assert "replacing" not in put.prompt


def test_a_name_is_its_signature_and_its_sentence(facts):
    names = [one for one in facts[1].examples if one.task == "name"]
    assert [one.prompt for one in names] == [
        "File: box.py\nclass Box",
        "File: box.py\nclass Box\ndef put(self, thing, *, force=False)",
    ]


def test_a_file_and_a_directory_are_asked_from_notes(facts):
    (file,) = [one for one in facts[1].examples if one.task == "file"]
    (directory,) = directory_examples(facts, "boxes", PROMPTS)
    assert file.answer == "Boxes that hold things."
    assert "\n- Box: A box for one thing at a time.\n" in file.prompt
    assert directory.answer == "All that is needed to keep things."
    assert "\n- box.py: Boxes that hold things.\n" in directory.prompt


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the sum of both.", "Return the sum of both."),
        ("Return the sum\nof both", "Return the sum of both."),
        ("Make a :class:`~a.Box` of ``it``.  Then stop.", "Make a `a.Box` of `it`."),
        ("See the manual of it.", None),
        ("lower case is no sentence", None),
        ("Too short.", None),
        ("Gives ☃ to all who ask.", None),
        (None, None),
    ],
)
def test_first_sentences(docstring, sentence):
    assert first_sentence(docstring) == sentence


def test_what_repeats_held_out_text_is_a_near_duplicate(monkeypatch):
    held_out = "def put(self, thing): self.thing = thing; self.count += 1; return self.count"
    monkeypatch.setattr(corpus, "_held_out_shingles", frozenset(corpus._shingles([held_out])))
    assert corpus._repeats(Example("text", "", held_out, "p"))
    assert corpus._repeats(Example("text", "", held_out + " # a remark", "p"))
    assert not corpus._repeats(Example("text", "", "x = 1\n" * 9 + "a b c d e f g h i j", "p"))


def test_an_answer_that_fits_everything_stands_only_a_few_times():
    same = [Example("name", f"def f{n}()", "Return the value of it.", "p") for n in range(9)]
    assert corpus._unique([*same, same[0]]) == same[: corpus.MAX_SAME_ANSWER]


def test_no_package_is_on_both_sides_and_all_are_permissive():
    assert not set(sources.TRAINING) & set(sources.HELD_OUT)
    for package in [*sources.packages(held_out=False), *sources.packages(held_out=True)]:
        assert not sources._COPYLEFT.search(package.licence), package


def test_a_copyleft_licence_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "_licence", lambda _: "Mozilla Public License 2.0")
    with pytest.raises(ValueError, match="Mozilla"):
        sources.packages(held_out=True)
