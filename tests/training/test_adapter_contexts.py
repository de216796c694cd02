"""The context of a training example has the lines that the product writes about the same chunk."""

from __future__ import annotations

import random
from pathlib import Path

from rotary_batch.commands.database import writing
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import Settings
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner.context import context_lines
from rotary_batch.repo.parse import parse_file
from tests.in_process import index_all
from training.adapter.files import Names, read_files
from training.adapter.sources import Package
from training.adapter.surroundings import context_of

LINES = "    things = [things, things, things]\n" * 10  # the corpus takes files of more than 300 bytes
CODE = {
    "shop/bottom.py": "def bottom_one(things):\n" + LINES,
    "shop/middle.py": (
        "from shop.bottom import bottom_one\n\n\nclass Outer:\n    class Inner:\n"
        + "".join(
            f"        def method_{n}(self, things):\n            bottom_one(things)\n            return [{n}, things]\n\n"
            for n in range(40)
        )
    ),
    "shop/told.py": 'def told_twice(things):\n    """Returns the things twice."""\n' + LINES,
    "shop/upper.py": "from shop.told import told_twice\n\n\ndef upper_one(things):\n    told_twice(things)\n" + LINES,
}


class _All(random.Random):
    """Leaves nothing out."""

    def random(self) -> float:
        return 0.0


def _forms(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("Outline: ")]


def test_lines_of_a_context_are_those_of_the_product(make_repository, tmp_path: Path) -> None:
    root, tokenizer = make_repository(CODE), Tokenizer.load(EMBEDDED)
    files = [one for one in read_files(Package("pip", "shop", "1", "MIT", root, ""), root) if one.file.path in CODE]
    names, found = Names(files), {}
    with writing(Settings(db=tmp_path / "work.db")) as store:
        (outcome,) = index_all(store, Settings(db=tmp_path / "work.db"), root)
        repository_id = outcome.indexed.repository.id
        for one in files:
            parsed = parse_file(one.file, one.source, 300, tokenizer)
            for chunk in parsed.chunks:
                text = one.source[chunk.start_byte : chunk.end_byte].decode()
                product = [line.text for line in context_lines(store, repository_id, chunk, {}, ())]
                trained = context_of(one, parsed, chunk, text, names, _All()).lines()
                assert _forms(trained) == _forms(product), chunk
                found[one.file.path] = _forms(product)
    assert found["shop/upper.py"] == ["Imports: told_twice", "Uses `def told_twice(things)`: Returns the things twice."]
    assert found["shop/told.py"] == ["Used in upper.py: def upper_one(things)"]
    assert found["shop/middle.py"][0] == "Within: class Outer / class Inner"
