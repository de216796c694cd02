"""Code in comments that is indented by less than Markdown asks for."""

from __future__ import annotations

import time

import pytest

from rotary_batch.pages.authored.blocks import CodeBlock
from rotary_batch.pages.authored.reading import read_authored

CODE = "tin.open({\n  lid: 'red',\n\n  rims: [\n    1\n  ]\n});"


def code_in(text: str, language: str) -> list[str]:
    return [block.text for block in read_authored(text, language).blocks if isinstance(block, CodeBlock)]


@pytest.mark.parametrize("indent", [2, 3, 4])
@pytest.mark.parametrize("language", ["javascript", "typescript", "php", "ruby", "kotlin", "swift", "c"])
def test_code_below_a_colon_is_a_code_block_however_little_it_is_indented(language, indent):
    code = "\n".join(" " * indent * bool(line) + line for line in CODE.split("\n"))
    assert code_in(f"Opens a tin.\n\nExamples:\n\n{code}\n\nMore words.\n", language) == [CODE]


@pytest.mark.parametrize(
    "text",
    [
        "Opens a tin.\n\nNotes:\n\n   Words that are\n   only indented.\n",
        "Opens a tin.\n\nNotes:\n\n  - one(1);\n  - two(2);\n",
        "Opens a tin.\n\nNo colon\n\n  tin.open();\n",
        "- An item:\n\n  tin.open();\n",
    ],
)
def test_indented_words_and_lists_are_no_code(text):
    assert code_in(text, "javascript") == []


def test_a_fenced_block_stays_as_it_is():
    code = "lid:\n\n  tin.open();"
    assert code_in(f"Opens a tin.\n\n```js\n{code}\n```\n", "javascript") == [code]


def test_many_colons_take_linear_time():
    text = "Opens a tin.\n\n" + "Examples:\n\n   words\n\n" * 20_000
    began = time.process_time()
    read_authored(text, "javascript")
    read_authored("Opens.\n\nExamples:\n\n" + "   word\n" * 50_000, "javascript")
    assert time.process_time() - began < 20
