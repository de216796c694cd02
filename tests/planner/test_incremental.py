"""After any edits, renames and removals, an index leaves what a fresh one leaves; one changed file renders few pages."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from benchmarks.scale_tree import write_repository
from rotary_batch.commands.database import writing
from rotary_batch.commands.docs import accept_page, check
from rotary_batch.config import Settings
from rotary_batch.pages import site
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.testing import FakeEngine
from tests.in_process import drain_all, index_all
from tests.planner.test_interrupted_index import _in_this_process, contents, pages  # noqa: F401 - a fixture

NAMES = ["load", "Store", "save", "flush", "Shelf"]
FOLDERS = ["", "app/", "app/core/", "lib/"]


def python(draw: random.Random) -> str:
    module, name, other = draw.choice(["app.core.a", "lib.a", "a", "app.b"]), draw.choice(NAMES), draw.choice(NAMES)
    words = draw.choice(["", f'"""Words {draw.randrange(5)}."""\n'])
    return (
        f"{words}from {module} import {other}\n\nclass {name}({other}):\n"
        f"    {words.strip()}\n    def run(self):\n        return {other}(self.run())\n"
        f"\ndef use_{name}(x):\n    return {name}().run()\n"
    )


def script(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    place = draw.choice(["./a", "../lib/a", "./core/b", "shop/a"])
    return f"import {{ {other} }} from '{place}';\nexport function {name}(x) {{ return {other}(x); }}\n"


def go(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    words = draw.choice(["", f"// Package p counts {draw.randrange(5)}.\n"])
    return f"{words}package p\n\nfunc {name}() int {{\n\treturn {other}()\n}}\n"


def header(draw: random.Random) -> str:
    name = draw.choice(NAMES)
    return draw.choice(["", f"/** Words {draw.randrange(5)}. */\n"]) + f"int {name}(int x);\nint other(void);\n"


def c(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return f'#include "a.h"\nint {name}(int x) {{\n  return {other}(x);\n}}\n'


def rust(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return f"//! Words {draw.randrange(5)}.\nuse crate::b::{other};\npub fn {name}() {{ {other}(); }}\n"


def java(draw: random.Random) -> str:
    name, other, member = draw.choice(NAMES), draw.choice(NAMES), draw.choice(NAMES)
    return (
        f"package app.core;\nimport lib.{other};\npublic class {name} extends {draw.choice(NAMES)} {{\n"
        f"  {other} field;\n  void {member}() {{ field.{draw.choice(NAMES)}(); {draw.choice(NAMES)}(); }}\n}}\n"
    )


def sharp(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return (
        f"using static Lib.{other};\nnamespace {draw.choice(['App', 'Lib'])};\n"
        f"{draw.choice(['partial ', ''])}class {name} : {draw.choice(NAMES)} {{\n"
        f"  {other} kept;\n  void {draw.choice(NAMES)}() {{ kept.{draw.choice(NAMES)}(); {draw.choice(NAMES)}(); }}\n}}\n"
    )


def php(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return (
        f"<?php\nnamespace App;\nuse App\\{other} as Kept;\nclass {name} extends {draw.choice(NAMES)} {{\n"
        f"  function {draw.choice(NAMES)}() {{ $this->{draw.choice(NAMES)}(); return new Kept(); }}\n}}\n"
        f"function {draw.choice(NAMES)}x() {{ return {draw.choice(NAMES)}x(); }}\n"
    )


def ruby(draw: random.Random) -> str:
    name, other = draw.choice(NAMES).title(), draw.choice(NAMES).title()
    return (
        f"require_relative 'a'\nclass {name} < {draw.choice(NAMES).title()}\n  include {other}\n"
        f"  def {draw.choice(NAMES)}\n    {draw.choice(NAMES)}()\n    {other}.new.{draw.choice(NAMES)}\n  end\nend\n"
    )


def swift(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return (
        f"{draw.choice(['public ', 'private ', ''])}class {name}: {draw.choice(NAMES)} {{\n  var kept: {other}\n"
        f"  func {draw.choice(NAMES)}() {{ kept.{draw.choice(NAMES)}(); {draw.choice(NAMES)}() }}\n}}\n"
        f"extension {other} {{ func {draw.choice(NAMES)}() {{ {draw.choice(NAMES)}() }} }}\n"
    )


def lua(draw: random.Random) -> str:
    name, other = draw.choice(NAMES), draw.choice(NAMES)
    return f"local a = require('lib.a')\nlocal M = {{}}\nfunction M.{name}() return a.{other}() + M.{other}() end\nreturn M\n"


def readme(draw: random.Random) -> str:
    return draw.choice(["", f"Says {draw.randrange(9)}.\n"])


WRITERS = {
    "a.py": python,
    "b.py": python,
    "A.py": python,
    "a.pyi": python,
    "__init__.py": python,
    "a.js": script,
    "b.js": script,
    "a.go": go,
    "b.go": go,
    "a.h": header,
    "a.c": c,
    "b.c": c,
    "core.rs": rust,
    "b.rs": rust,
    "A.java": java,
    "a.cs": sharp,
    "b.cs": sharp,
    "a.php": php,
    "b.php": php,
    "a.rb": ruby,
    "b.rb": ruby,
    "a.swift": swift,
    "b.swift": swift,
    "a.lua": lua,
    "README.md": readme,
    "package.json": lambda draw: f'{{"name": "{draw.choice(["shop", "x"])}"}}\n',
    "a": lambda draw: "not a source\n",
}


def edit(root: Path, draw: random.Random) -> None:
    """Write, rename or remove one file, or a folder; or change a file where no other file looks."""
    path = root / (draw.choice(FOLDERS) + draw.choice(list(WRITERS)))
    present = sorted(one for one in root.rglob("*") if one.is_file() and one.relative_to(root).parts[0] in TOPS)
    kind = draw.randrange(13)
    if kind == 0 and present:
        draw.choice(present).unlink()
    elif kind == 1 and present:
        old = draw.choice(present)
        new = root / draw.choice(FOLDERS) / old.name
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    elif kind == 2:
        shutil.rmtree(root / draw.choice(FOLDERS[1:]), ignore_errors=True)
    elif kind > 9 and present:
        edit_within(draw.choice(present), draw)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(WRITERS[path.name](draw))


def edit_within(path: Path, draw: random.Random) -> None:
    """Move all symbols of a source, use another name in one of its functions, rename one, or define more."""
    text, mark = path.read_text(), MARKS.get(path.suffix, "//")
    kind = draw.randrange(4)
    if kind == 0:
        path.write_text(f"{mark} {'more ' * draw.randrange(9)}\n{text}" if path.suffix != ".php" else text)
    elif kind == 1:
        path.write_text(text.replace("return ", f"return {draw.choice(NAMES)}() + ", 1))
    elif kind == 2:
        path.write_text(text.replace(draw.choice(NAMES), draw.choice(NAMES), draw.randrange(1, 3)))
    elif path.name in WRITERS:
        more = WRITERS[path.name](draw)
        path.write_text(text + more.removeprefix("<?php\n"))


MARKS = {".py": "#", ".pyi": "#", ".rb": "#", ".lua": "--"}
TOPS = {*WRITERS, "app", "lib"}


C_FILES = {"one.c": "int load(int x) {\n  return x;\n}\n", "api.h": "/** Loads it. */\nint load(int x);\n"}
PYTHON_FILES = {"lib.py": "def f(): pass\nclass F: pass\n", "user.py": "from lib import F\ndef use():\n    F()\n"}
GO_FILES = {"p/a.go": "package p\nfunc F() {}\n", "p/b.go": "package p\nfunc G() { F() }\n"}
RUST_FILES = {"src/lib.rs": "mod net;\n", "src/net.rs": "//! Sends.\n", "src/net/tcp.rs": "pub fn send() {}\n"}
JS_FILES = {
    "package.json": '{"name": "root", "workspaces": ["a", "b"]}',
    "a/package.json": '{"name": "a", "main": "index.js"}',
    "a/index.js": "export function f() {}\n",
    "b/b.js": "import { f } from 'a';\nexport function g() { f(); }\n",
}
CASE_FILES = {"d/Lib.py": "def f(): pass\n", "d/lib.py": "def g(): pass\n", "d/u.py": "from d.lib import g\ng()\n"}
STUB_FILES = {"m.py": "def f(x): pass\n", "m.pyi": "def f(x: int) -> int: ...\n"}
CALLER = {"d/u.py": "from d.lib import g\ndef h():\n    g()\n"}


@pytest.mark.parametrize(
    ("files", "edits"),
    [
        (C_FILES, {"api.h": "/** Reads it. */\nint load(int x);\n"}),
        (C_FILES, {"api.h": "int load(int x);\n"}),
        (C_FILES, {"api.h": None}),
        (C_FILES, {"other.h": "/** Stores it. */\nint load(int x);\n"}),
        ({**C_FILES, "api.h": "int load(int x);\n"}, {"api.h": C_FILES["api.h"]}),
        (PYTHON_FILES, {"lib.py": "def g(): pass\nclass F: pass\n"}),  # the anchor of F is another
        (PYTHON_FILES, {"lib.py": None}),
        (PYTHON_FILES, {"user.py": "def use(): pass\n"}),
        (GO_FILES, {"p/c.go": "package p\nfunc F() {}\n"}),  # now the name is ambiguous
        ({**GO_FILES, "p/c.go": "package p\nfunc F() {}\n"}, {"p/c.go": None}),
        (RUST_FILES, {"src/net.rs": "//! Receives.\n"}),
        (JS_FILES, {"a/package.json": '{"name": "other", "main": "index.js"}'}),
        (JS_FILES, {"a/package.json": None}),
        ({**CASE_FILES, **CALLER}, {"d/Lib.py": None}),
        ({**CASE_FILES, **CALLER, "d/Lib.py": None}, {"d/Lib.py": CASE_FILES["d/Lib.py"]}),
        (STUB_FILES, {"m.pyi": "def f(x: str) -> str: ...\n"}),
        (STUB_FILES, {"m.pyi": None}),
    ],
)
def test_an_edit_that_another_page_shows_reaches_it(files, edits, make_repository, tmp_path):
    root = make_repository({path: text for path, text in files.items() if text is not None})
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    with writing(settings) as store:
        index_all(store, settings, root)
        first = pages(root)
        for path, text in edits.items():
            (root / path).unlink() if text is None else (root / path).write_text(text)
        index_all(store, settings, root)
    second = pages(root)
    assert second != first
    assert differing(second, fresh_pages(root, tmp_path)) == set()


def differing(some: dict[str, bytes], others: dict[str, bytes]) -> set[str]:
    return {path for path in some.keys() | others if some.get(path) != others.get(path)}


def exclude_docs(root: Path) -> None:
    """Pages of an earlier index are then no files of the repository; a fresh one has none."""
    (root / ".git" / "info" / "exclude").write_text("rotary-docs\n")


def different_rows(some: dict[str, list[tuple]], others: dict[str, list[tuple]]) -> dict[str, set[tuple]]:
    """Table -> rows that only one of two databases has; those of a table come in the same order otherwise."""
    return {table: set(rows) ^ set(others[table]) for table, rows in some.items() if rows != others[table]}


def fresh_pages(root: Path, folder: Path) -> dict[str, bytes]:
    """The pages that an index makes that knows nothing of an earlier one; the docs folder is left as it was."""
    return fresh_index(root, folder)[1]


def fresh_index(root: Path, folder: Path, job: str | None = None) -> tuple[dict[str, list[tuple]], dict[str, bytes]]:
    """What is stored by an index that knows nothing of an earlier one, and its pages."""
    shutil.move(root / "rotary-docs", folder / "kept")
    settings = Settings(db=folder / "fresh.db", worktree=True, job=job)
    settings.db.unlink(missing_ok=True)
    with writing(settings) as store:
        index_all(store, settings, root)
    found = contents(settings), pages(root)
    shutil.rmtree(root / "rotary-docs")
    shutil.move(folder / "kept", root / "rotary-docs")
    return found


@pytest.mark.parametrize(("seed", "job"), [(0, None), (1, None), (2, None), (3, "summarize")])
def test_after_any_edits_database_and_docs_are_those_of_a_fresh_index(seed, job, make_repository, tmp_path):
    draw = random.Random(seed)
    root = make_repository({"a.py": python(draw)})
    exclude_docs(root)
    for _ in range(25):
        edit(root, draw)
    settings = Settings(db=tmp_path / "work.db", worktree=True, job=job)
    with writing(settings) as store:
        for step in range(10):
            index_all(store, settings, root)
            fresh_contents, fresh = fresh_index(root, tmp_path, job)
            assert different_rows(contents(settings), fresh_contents) == {}, step
            assert differing(pages(root), fresh) == set(), step
            for _ in range(draw.randrange(1, 4)):
                edit(root, draw)


USED = '"""Words."""\n\n\nclass Base:\n    def run(self):\n        return helper()\n\n\ndef helper():\n    return 1\n'
USER = "from used import Base, helper\n\n\nclass Own(Base):\n    def go(self):\n        return helper(self.run())\n"


@pytest.mark.parametrize(
    ("old", "new", "are_all_resolved"),
    [
        ("Words.", "Other words, and more of them.", False),
        ("return 1", "return 1 + Base().run()", False),
        ("Words.", "", False),
        ("def helper():", "def helper(first, second=2):", False),
        ("class Base:", "class Base(Exception):", True),
        ("def run", "def walk", True),
        ("return 1", "return 1\n\n\ndef more():\n    return 2", False),
        ("return 1", "return 1\n\n\ndef go():\n    return 2", False),
        ("return 1", "return 1\n\n\ndef other():\n    return helper()\n\n\nhelper = other", True),
        ('"""Words."""', '"""Words."""\nfrom user import Own', True),
        ("helper():", "helper() -> Base:", True),
    ],
)
def test_names_are_resolved_again_in_all_files_only_when_these_see_a_difference(
    old, new, are_all_resolved, make_repository, tmp_path, monkeypatch
):
    root = make_repository({"used.py": USED, "user.py": USER})
    exclude_docs(root)
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    resolved: set[str] = set()
    real = Resolver.target
    monkeypatch.setattr(
        Resolver, "target", lambda self, reference: resolved.add(reference.path) or real(self, reference)
    )
    with writing(settings) as store:
        index_all(store, settings, root)
        resolved.clear()
        (root / "used.py").write_text(USED.replace(old, new))
        index_all(store, settings, root)
    assert resolved == ({"used.py", "user.py"} if are_all_resolved else {"used.py"})
    assert (contents(settings), pages(root)) == fresh_index(root, tmp_path)


def test_another_version_of_the_program_resolves_all_names_again(make_repository, tmp_path):
    root = make_repository({"used.py": USED, "user.py": USER})
    exclude_docs(root)
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    with writing(settings) as store:
        index_all(store, settings, root)
        with store.transaction():  # as an earlier version may have stored it
            store.db.execute("update repository set resolved_by = '0.0.1'")
            store.db.execute("delete from call where path = 'user.py'")
        (root / "used.py").write_text(USED.replace("Words", "Other words"))
        index_all(store, settings, root)
    assert contents(settings) == fresh_index(root, tmp_path)[0]


def test_one_changed_file_renders_few_pages(tmp_path, monkeypatch):
    root = tmp_path / "tree"
    write_repository(root, 300)
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    rendered: list[str] = []
    real = site._render_one
    monkeypatch.setattr(
        site,
        "_render_one",
        lambda view, pages, thing, others: rendered.append(thing) or real(view, pages, thing, others),
    )
    with writing(settings) as store:
        index_all(store, settings, root)
        rendered.clear()
        leaf = root / "area0" / "part2" / "m299.go"
        leaf.write_text(leaf.read_text().replace("value > ", "1 + value > "))
        index_all(store, settings, root)
    folders = {"area0/part2/", "area0/"}
    linked = {"area0/part2/m299.go"}
    assert folders | linked <= set(rendered)
    assert len([thing for thing in rendered if thing[0] != "/"]) <= 8


@pytest.mark.parametrize("job", ["summarize-small", "summarize"])
def test_a_moved_folder_of_the_same_text_asks_a_model_nothing_new(job, make_repository, tmp_path):
    root = make_repository({"app/a.py": USED, "app/b.py": USER.replace("used", "a")})
    settings = Settings(db=tmp_path / "work.db", worktree=True, job=job)
    with writing(settings) as store:
        index_all(store, settings, root)
        engines = [FakeEngine(answer_tokens=6), FakeEngine(answer_tokens=6)]
        drain_all(store, settings, [root], lambda: engines[0])
        (root / "app").rename(root / "lib")
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: engines[1])
        asked = "from item where unit in ('chunk', 'symbol') and state = 'done'"
        ((number, reused),) = store.db.execute(f"select count(*), sum(reused) {asked}").fetchall()
    assert number == reused >= 2
    assert set(pages(root)) >= {"lib/a.py.md", "lib/b.py.md"}
    assert "app/a.py.md" not in pages(root)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_an_edited_page_whose_source_was_renamed_is_settled(whose, make_repository, tmp_path):
    root = make_repository({"app/a.py": "def f():\n    return 1\n"})
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    with writing(settings) as store:
        index_all(store, settings, root)
        page = root / "rotary-docs" / "app" / "a.py.md"
        page.write_text(page.read_text() + "My words.\n")
        (root / "app" / "a.py").rename(root / "app" / "c.py")
        index_all(store, settings, root)
        assert "My words." in page.read_text()
        assert check(settings, root).orphaned == ["app/a.py.md"]
        accept_page(store, root, "app/a.py.md", whose)
        assert check(settings, root).num_found == 0
        index_all(store, settings, root)
        assert page.exists() == (whose == "theirs")
        assert check(settings, root).num_found == 0


def test_a_source_with_a_stub_is_not_read_again(make_repository, tmp_path):
    root = make_repository(STUB_FILES)
    settings = Settings(db=tmp_path / "work.db", worktree=True)
    with writing(settings) as store:
        for _ in range(3):
            (outcome,) = index_all(store, settings, root)
    assert (outcome.indexed.parsed, outcome.sync_result.written) == (0, [])
