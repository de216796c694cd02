"""Which examples are looked at: a sample that depends on the examples and a purpose, never on their order.

Knows digests and lengths; knows nothing of what is done with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example
from training.model import Shape
from training.quality.generation import longest_answer

SEED = "rotary-demo 1"
ASIDE_SHARE = 0.03  # of the training examples, whole packages, left out of the counts while weights are fitted
LARGEST_ASIDE = 0.1  # a package with a larger share stays


def pick(examples: Iterable[Example], count: int, purpose: str, tokenizer: Tokenizer) -> list[Example]:
    """Up to `count` examples that fit the context, in the order of a digest."""
    found: list[Example] = []
    for example in sorted(examples, key=lambda one: _digest(purpose, one.prompt)):
        if len(found) == count:
            break
        if fits(example, tokenizer):
            found.append(example)
    return found


def fits(example: Example, tokenizer: Tokenizer) -> bool:
    """Whether the prompt and the longest answer that its job allows fit the model's context."""
    return len(tokenizer.encode_chat(example.prompt)) + longest_answer(example.task) <= Shape.max_position


def set_aside(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Training examples to count, and those of a few whole packages to fit weights on."""
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.package] = sizes.get(example.package, 0) + 1
    aside: set[str] = set()
    for package in sorted(sizes, key=lambda name: _digest("aside", name)):
        if sum(sizes[name] for name in aside) >= ASIDE_SHARE * len(examples):
            break
        if sizes[package] <= LARGEST_ASIDE * len(examples):
            aside.add(package)
    return [one for one in examples if one.package not in aside], [one for one in examples if one.package in aside]


def _digest(purpose: str, text: str) -> str:
    return hashlib.sha256(f"{SEED}\0{purpose}\0{text}".encode("utf-8", "replace")).hexdigest()
