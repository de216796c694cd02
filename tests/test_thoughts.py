"""Pages show what a model says to their reader: with whatever thoughts and channels around it, they are the same bytes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import docs_of

from rotary_batch.commands.database import writing
from rotary_batch.commands.jobs import bundled
from rotary_batch.config import Settings
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from tests.answering import AnsweringEngine
from tests.in_process import drain_all, index_all

CODE = {
    "README.md": "# Shop\n\nSells things.\n",
    "Makefile": "test:\n\tpytest\n",
    "shop/cart.py": (
        "def total(prices, tax):\n    result = 0\n    for price in prices:\n        if price < 0:\n"
        "            raise ValueError('price')\n        result += price\n    return result * (1 + tax)\n"
    ),
    "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1], 0) == 1\n",
}
THINKING = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
HARMONY = "<|start|>user<|message|>{{ messages[0].content }}<|end|><|start|>assistant{# <|channel|> #}"
MARKS = {
    THINKING: ("<think>", "</think>"),
    HARMONY: ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
}
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>SECRET thought about `total`.<|end|><|start|>assistant"
# Template, variables of the job, and what is around each answer.
FORMS = {
    "thinking off, and thought all the same": (THINKING, "", "<think>SECRET `total` adds.</think>\n{}"),
    "thinking on": (THINKING, "enable_thinking = true", "<think>\nSECRET `total` adds.\n</think>\n\n{}"),
    "a channel opened for it, and another behind": (
        HARMONY,
        "",
        FINAL + "{}<|end|><|start|>assistant<|channel|>commentary<|message|>SECRET",
    ),
    "a channel of its own": (
        HARMONY,
        'reasoning_effort = "high"',
        ANALYSIS + FINAL + "{}<|return|>",
    ),
}


class ThoughtfulEngine(AnsweringEngine):
    """Says the same of everything, with something around it, which is control text."""

    def __init__(self, pack: Path, around: str) -> None:
        super().__init__(pack)
        self._around = around

    def ids(self, answer: str) -> tuple[int, ...]:
        return tuple(self._tokenizer._control.encode(answer, add_special_tokens=False).ids)

    def answer(self, prompt: str) -> str:
        # Only behind this word may a channel be opened; else the prompt has opened the final one.
        around = self._around if prompt.endswith("assistant") else self._around.removeprefix(FINAL)
        return around.format(" Adds up prices and a tax.")


def pack_with(template: str, tiny_pack: Path, folder: Path) -> Path:
    """A pack with the control tokens of a template, and room for the prompts of all jobs."""
    pack = shutil.copytree(tiny_pack, folder)
    table = json.loads((pack / "tokenizer.json").read_text())
    first = table["added_tokens"][0]
    table["added_tokens"] += [
        first | {"id": 260 + place, "content": mark, "special": template == HARMONY}
        for place, mark in enumerate(MARKS[template])
    ]
    (pack / "tokenizer.json").write_text(json.dumps(table))
    (pack / "chat_template.jinja").write_text(template)
    replace(
        Manifest.load(pack),
        context_tokens=8192,
        min_mean_logprob=-100.0,
        tokenizer_sha256=Tokenizer.load(pack).digest,
    ).save(pack)
    return pack


def jobs_with(variables: str, folder: Path) -> Path:
    """The bundled jobs, asked with variables of the template."""
    shutil.copytree(bundled("jobs"), folder)
    for job in folder.glob("*.toml"):
        job.write_text(f"{job.read_text()}\n[template]\n{variables}\n")
    return folder


@pytest.mark.parametrize("job", ["summarize", "api", "onboarding"])
@pytest.mark.parametrize("form", FORMS)
def test_pages_show_no_thought(form, job, tiny_pack, make_repository, tmp_path):
    template, variables, around = FORMS[form]
    pack = pack_with(template, tiny_pack, tmp_path / "pack")
    jobs = jobs_with(variables, tmp_path / "jobs")
    plain = f"{FINAL}{{}}" if template == HARMONY else "{}"
    found = []
    for number, words in enumerate((around, plain)):
        settings = Settings(model=pack, job=job, jobs=jobs, db=tmp_path / f"{number}.db")
        root = make_repository(CODE, f"{number}/shop")
        with writing(settings) as store:
            index_all(store, settings, root)
            (report,) = drain_all(store, settings, [root], lambda words=words: ThoughtfulEngine(pack, words))
        assert (report.outcome, report.open, report.parked) == ("done", 0, 0)
        found.append({path: data for path, (data, _) in docs_of(root).items()})
    assert found[0] == found[1]
    text = b"".join(found[0].values())
    assert (b"Adds up prices and a tax." in text, b"SECRET" in text) == (True, False)
