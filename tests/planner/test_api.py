"""The job `api`: what a public function takes, gives and raises is known from its code; a model says what each is."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.core import Symbol
from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.parameters import parameters_of, result_of
from rotary_batch.planner.details import details_of
from rotary_batch.sync import sync_all, sync_pending
from rotary_batch.work.index import repositories
from rotary_batch.work.store import WorkStore
from tests.answering import AnsweringEngine
from tests.in_process import drain_all, index_all

CODE = {
    "shop/cart.py": '''
class CartError(Exception):
    pass


def total(goods: list[int], tax: float = 0.2) -> float:
    if not goods:
        raise CartError("nothing to sum up")  # never raise ValueError
    return sum(goods) * (1 + tax)


def told(goods):
    """Sum up.

    Args:
        goods: What is summed up.
    """
    for one in goods:
        one.mark()
    return len(goods)


def _hidden(goods):
    for one in goods:
        one.mark()
    return goods
''',
    "tests/test_cart.py": """from shop.cart import total


def test_long():
    many = [1, 2, 3]
    assert total(many) > 1
    assert total(many, 0) == 6


class TestTotal:
    def test_no_tax(self):
        assert total([1, 2], tax=0) == 3
""",
}
ANSWERS = {
    "`total`": " Adds up the goods, with tax.",
    "`total`, parameter `goods`: The": " prices to add up.",
    "`total`, parameter `tax`: The": " `tax`",  # no sentence
    "`total`, result: Returns": " the sum of all prices, with tax.",
    "`total`, raises `CartError`: Raised if": " there are no goods to sum up.",
    "`told`, result: Returns": " the number of a `Widget`.",  # which does not exist
}
SECTION = """## `total`

Function, [lines 6-9](../../shop/cart.py#L6-L9)

```python
def total(goods: list[int], tax: float = 0.2) -> float
```

Adds up the goods, with tax.

| Parameter | Type | Default | Meaning |
| --- | --- | --- | --- |
| `goods` | `list[int]` |  | The prices to add up. |
| `tax` | `float` | `0.2` |  |

Result: `float`. Returns the sum of all prices, with tax.

| Raises | Meaning |
| --- | --- |
| `CartError` | Raised if there are no goods to sum up. |

Example, from [`TestTotal.test_no_tax`](../tests/test_cart.py.md#testtotaltest_no_tax):

```python
def test_no_tax(self):
    assert total([1, 2], tax=0) == 3
```
"""


class ApiEngine(AnsweringEngine):
    """Answers what a prompt begins."""

    def __init__(self, pack: Path) -> None:
        super().__init__(pack)
        self.asked: set[str] = set()

    def answer(self, prompt: str) -> str:
        opening = re.search(r"`[^`\n]+`(?:, [^\n]*)?:[^\n:]*\Z", prompt)[0].removesuffix(":")
        self.asked.add(opening)
        return ANSWERS.get(opening, " Says what it is.")


@pytest.fixture
def settings(tmp_path, tiny_pack) -> Settings:
    """A model with room for a context, whose tokens are bytes."""
    pack = shutil.copytree(tiny_pack, tmp_path / "pack")
    replace(Manifest.load(pack), context_tokens=4096).save(pack)
    return Settings(model=pack, db=tmp_path / "work.db", job="api")


def asked(store: WorkStore, settings: Settings, root: Path) -> set[str]:
    """Index and drain; what the model was asked about."""
    index_all(store, settings, root)
    engine = ApiEngine(Path(str(settings.model)))
    (report,) = drain_all(store, settings, [root], lambda: engine)
    assert (report.outcome, report.open, report.parked) == ("done", 0, 0)
    return engine.asked


def test_what_the_code_says_is_shown_and_what_each_part_means_is_asked(make_repository, git, settings):
    root = make_repository(CODE)
    page = root / "rotary-docs/shop/cart.py.md"
    with writing(settings) as store:
        assert asked(store, settings, root) == set(ANSWERS), "not what is private, trivial, or told by its author"
        text = page.read_text()
        assert SECTION in text, text
        assert "Widget" not in text
        row = repositories(store)[0]
        assert sync_all(store, row).written == []
        assert asked(store, settings, root) == set(), "what was answered once is stored"
        (root / "tests/test_cart.py").write_text(CODE["tests/test_cart.py"].replace("tax=0) == 3", "tax=1) == 6"))
        git(root, "commit", "-qam", "another test")
        assert asked(store, settings, root) == set(), "no prompt tells what a test of it does"
        assert body(page.read_text()) == body(text).replace("tax=0) == 3", "tax=1) == 6")
        (root / "tests/test_cart.py").unlink()
        git(root, "commit", "-qam", "no test")
        asked(store, settings, root)
        assert "Example" not in page.read_text()
        assert sync_pending(store, repositories(store)[0]).written == []


def body(page: str) -> str:
    """A page without its front matter, which has its digest."""
    return page.partition("\n---\n")[2]


def function(signature: str, kind: str = "function", docstring: str | None = None) -> Symbol:
    name = re.search(r"(\w+)(?:<[^()]*>)?\(", signature.replace("(s *Shop) ", ""))[1]
    return Symbol(
        path="a",
        kind=kind,
        name=name,
        qualified_name=name,
        start_line=1,
        end_line=1,
        start_byte=0,
        end_byte=1,
        signature=signature,
        docstring=docstring,
    )


@pytest.mark.parametrize(
    ("language", "signature", "parameters", "result"),
    [
        (
            "python",
            "def f(self, a: int, *, b: dict[str, int] = {}, c=lambda x: x == 1, *args, **kw: str) -> dict[str, int]",
            [
                ("a", "int", ""),
                ("b", "dict[str, int]", "{}"),
                ("c", "", "lambda x: x == 1"),
                ("args", "", ""),
                ("kw", "str", ""),
            ],
            "dict[str, int]",
        ),
        (
            "typescript",
            "function f(a?: string, cb: (x: number) => void = noop, ...rest: T[]): Promise<void>",
            [("a", "string", ""), ("cb", "(x: number) => void", "noop"), ("rest", "T[]", "")],
            "Promise<void>",
        ),
        (
            "go",
            "func (s *Shop) Rate(day, hour int, opts ...Option) (int, error)",
            [("day", "", ""), ("hour", "int", ""), ("opts", "...Option", "")],
            "(int, error)",
        ),
        ("go", "func f(int, string)", [], ""),
        ("rust", "fn f<'a>(&self, mut x: &'a str) -> Result<(), E>", [("x", "&'a str", "")], "Result<(), E>"),
        ("java", "T f(final Map<String, T> m, int... n)", [("m", "Map<String, T>", ""), ("n", "int...", "")], ""),
        (
            "c",
            "int f(const char *name, char buf[2], void (*cb)(int))",
            [("name", "char *", ""), ("buf", "char[2]", "")],
            "",
        ),
        ("c", "int f(void)", [], ""),
        ("c", "int f(int, unsigned int, char *)", [], ""),
        ("cpp", "void f(const std::string& s, int n = 3)", [("s", "std::string&", ""), ("n", "int", "3")], ""),
        ("php", "function f(?string $x = null, ...$z)", [("$x", "?string", "null"), ("$z", "", "")], ""),
        ("ruby", "def f(a, b = 1, *c, d:, &e)", [(one, "", "1" * (one == "b")) for one in "abcde"], ""),
    ],
)
def test_parameters_are_read_from_signatures(language, signature, parameters, result):
    symbol = function(signature)
    assert [tuple(one) for one in parameters_of(symbol, language)] == parameters
    assert result_of(symbol, language) == result


@pytest.mark.parametrize(
    ("language", "code", "raised"),
    [
        (
            "python",
            'def f():\n    "raise A"\n    raise B(1)  # raise C\n    if x: raise m.D\n    raise\n',
            ["B", "m.D"],
        ),
        ("java", 'void f() { throw new A("throw new B()"); /* throw new C() */ throw e; }', ["A"]),
        ("javascript", "function f() { throw new A(`throw new B()`) }", ["A"]),
        ("go", "func f() { throw new A() }", []),
    ],
)
def test_exceptions_are_those_that_code_raises(language, code, raised):
    found = details_of(function("def f()"), code, language, ["raises"])
    assert [one.name for one in found] == raised
