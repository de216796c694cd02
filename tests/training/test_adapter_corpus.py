"""What the adapter learns from: sentences, sources without their docs, examples of a package on disk, the split."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import bundled
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.prompts import Prompt, load_prompts
from training.adapter.corpus import balanced, shingles, unlike, unrepeated
from training.adapter.corpus import fenced as fenced_text
from training.adapter.examples import Example, examples
from training.adapter.sentences import first_sentence, is_borne_out, with_ticks
from training.adapter.sources import Package, is_permissive

SENTENCES = (
    ("Return the name of a thing and return it.", "get", "Returns the name of a thing and returns it."),
    ("Foo returns the bar of x.", "Foo", "Returns the bar of x."),
    ("Foo is the type of a thing.", "Foo", "The type of a thing."),
    ("This function is used to parse a {@link Foo#bar} thing.", "p", "Parses a `Foo.bar` thing."),
    ("@brief Computes the ``hash`` of :class:`~a.B`.\n\n@param x a", "h", "Computes the `hash` of `B`."),
    ("Parse the line, and store it in a list.\n\nArgs:\n  x: y", "p", "Parses the line, and stores it in a list."),
    ("A function that returns [`Foo`](x) when it can.", "p", "Returns `Foo` when it can."),
    ("Convenience method for converting contents of the buffer", "c", "Converts contents of the buffer."),
    ("Recursively merge two trees of settings", "m", "Recursively merges two trees of settings."),
    ("Set of names in the world.", "names", "Set of names in the world."),
    ("TODO: say what this does", "f", None),
    ("See the other function for what it does.", "f", None),
    ("Copyright 2020 by the authors of this.", "f", None),
    ("We should really do that in another way.", "f", None),
    ("Foo.", "Foo", None),
)


@pytest.mark.parametrize(("docs", "name", "expected"), SENTENCES)
def test_the_first_sentence_of_any_docs_has_the_form_of_an_answer(docs: str, name: str, expected: str | None) -> None:
    assert first_sentence(docs, name, is_callable=True) == expected


def test_names_of_the_code_get_backticks_and_others_do_not() -> None:
    text = with_ticks("Stores max_len items in someBuffer, but no_such name.", frozenset({"max_len", "someBuffer"}))
    assert text == "Stores `max_len` items in `someBuffer`, but no_such name."


def test_a_sentence_is_borne_out_when_its_names_numbers_and_words_are_in_the_prompt() -> None:
    prompt = "def read_lines(path): return open(path).read().splitlines()[:100]"
    assert is_borne_out("Reads at most 100 lines of a `path`.", prompt)
    assert not is_borne_out("Reads at most 200 lines of a `path`.", prompt)
    assert not is_borne_out("Reads the lines of a `file`.", prompt)
    assert not is_borne_out("Transmogrifies quantum entanglement.", prompt)


def test_a_package_gives_chunks_without_the_docs_that_are_asked(tmp_path: Path) -> None:
    code = '"""Reads and writes ledgers."""\n\n\n' + "".join(
        f'def read_ledger_{n}(path, limit):\n    """Read at most `limit` lines of ledger {n}."""\n'
        f"    lines = open(path).read().splitlines()\n    return lines[:limit]\n\n\n"
        for n in range(10, 16)
    )
    (tmp_path / "ledger.py").write_text(code)
    package = Package("pip", "ledger", "1", "MIT", tmp_path, "")
    chunk = Prompt(name="chunk", text="File: $path\n$context\n<$fence>\n$source\n</$fence>")
    tokenizer = Tokenizer.load(EMBEDDED)
    found = examples(package, load_prompts(bundled("prompts")) | {"chunk": chunk}, tokenizer)
    chunks = [one for one in found if one.task == "chunk"]
    answers = dict(pair for one in chunks for pair in one.answers)
    assert answers
    assert all(name in one.prompt for one in chunks for name, _ in one.answers)
    for name, sentence in answers.items():
        assert sentence == f"Reads at most `limit` lines of ledger {name[-2:]}."
        assert f"lines of ledger {name[-2:]}" not in "".join(one.prompt for one in chunks)


def example(language: str, code: str, *answers: tuple[str, str], task: str = "chunk") -> Example:
    return Example(task, language, "p", f"Say.\n<text-1a>\n{code}\n</text-1a>", answers)


def test_what_repeats_held_out_text_is_dropped() -> None:
    words = [f"word{n}" for n in range(40)]
    held_out = frozenset(shingles(fenced_text(example("go", " ".join(words)).prompt)))
    near, far = example("go", " ".join(words[:30] + ["other"] * 9)), example("go", " ".join(words[:14] + ["x"] * 30))
    assert list(unlike([near, far], held_out)) == [far]


def test_code_stands_once_and_a_sentence_a_few_times() -> None:
    many = [example("go", f"code {n}", (f"f{n}", "Returns it all.")) for n in range(20)]
    kept = list(unrepeated([*many, many[0]]))
    assert [one.prompt for one in kept] == [one.prompt for one in many[:6]]


def test_no_language_has_more_than_its_share() -> None:
    draw = random.Random(1)
    counts = {"python": 800, "go": 300, "rust": 200, "java": 200, "c": 200}
    many = [example(name, f"{name} {n}", ("f", "x")) for name, count in counts.items() for n in range(count)]
    kept = balanced(many, draw)
    found = {name: sum(one.language == name for one in kept) for name in counts}
    assert found["python"] <= 0.5 * len(kept) + 2
    assert all(found[name] <= 0.2 * len(kept) + 2 for name in counts if name != "python")
    assert found["rust"] == 200


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("BSD-3-Clause", True),
        ("(BSD-3-Clause OR GPL-2.0)", True),
        ("GPL-3", False),
        ("Apache, MPL, MIT", False),
        ("", False),
        ("LGPL-2.1+", False),
    ],
)
def test_licences(licence: str, *, expected: bool) -> None:
    assert is_permissive(licence) == expected
