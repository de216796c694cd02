"""Declarations on the pages of headers, and their comments on the pages of definitions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import Settings
from rotary_batch.work.connection import open_database
from rotary_batch.work.declared import documented_symbols
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore
from tests.in_process import index_all


@pytest.fixture
def page(tmp_path, make_repository):
    """Index files; returns a function that gives the text of a page."""
    db = open_database(tmp_path / "work.db")
    migrate(db)
    store = WorkStore(db)

    def index(files: dict[str, str], name: str = "project"):
        root = make_repository(files, name)
        index_all(store, Settings(model=EMBEDDED, worktree=True), root)
        return lambda path: (root / "rotary-docs" / f"{path}.md").read_text()

    yield index
    db.close()


def section(page: str, name: str) -> str:
    return re.split(r"(?m)^## ", page.partition(f"## `{name}`")[2])[0]


def test_a_header_shows_what_it_declares(page):
    shown = page(
        {
            "shelf.h": "/* Opens a shelf. */\nstruct shelf *shelf_open(const char *path);\nextern int shelf_debug;\n",
            "shelf.c": "static int helper(int x);\nstatic int helper(int x) { return x; }\n",
        }
    )
    assert "Opens a shelf." in section(shown("shelf.h"), "shelf_open")
    assert "extern int shelf_debug" in section(shown("shelf.h"), "shelf_debug")
    assert shown("shelf.c").count("## `helper`") == 1


def test_the_comment_of_a_declaration_is_that_of_its_definition_too(page):
    shown = page(
        {
            "include/shelf.h": "/** Opens a shelf.\n *\n * Later words. */\nint shelf_open(int n);\n",
            "include/other.h": "int shelf_open(int n);\n",
            "src/shelf.c": "int shelf_open(int n) { return n; }\n",
            "src/own.c": "/* My own words. */\nint own(int n);\nint own(int n) { return n; }\n",
            "src/static.c": "static int shelf_open(int n) { return n; }\n",
        }
    )
    assert "Opens a shelf." in section(shown("src/shelf.c"), "shelf_open")
    assert "Later words." in section(shown("src/shelf.c"), "shelf_open")
    assert "My own words." in section(shown("src/own.c"), "own")
    assert "Opens a shelf." not in shown("src/static.c")


def test_members_of_a_class_have_the_comments_of_its_header(page):
    header = """namespace shop {
class Shelf {
public:
  /// Makes one.
  Shelf(int n);
  /// Puts one.
  void put(int n);
  /// Puts two.
  void put(int n, int m);
};
}
"""
    source = """namespace shop {
Shelf::Shelf(int n) {}
void Shelf::put(int n) {}
}
void shop::Shelf::put(int n, int m) {}
"""
    shown = page({"shelf.hpp": header, "shelf.cpp": source})("shelf.cpp")
    assert "Makes one." in section(shown, "shop.Shelf.Shelf")
    assert "Puts two." in section(shown, "shop.Shelf.put")


def test_comments_that_differ_belong_to_neither_unless_one_header_has_the_same_name(page):
    shown = page(
        {
            "a/one.h": "/* One. */\nint go(int n);\n",
            "b/two.h": "/* Two. */\nint go(int n);\n",
            "b/two.c": "int go(int n) { return n; }\n",
            "c/three.c": "int go(int n) { return n; }\n",
        }
    )
    assert "Two." in section(shown("b/two.c"), "go")
    assert "One." not in shown("c/three.c")
    assert "Two." not in shown("c/three.c")


def test_a_changed_header_changes_the_page_of_the_definition(tmp_path, page, make_repository):
    files = {"x.h": "/* Old words. */\nint go(void);\n", "x.c": "int go(void) { return 0; }\n"}
    shown = page(files)
    assert "Old words." in shown("x.c")
    (tmp_path / "project" / "x.h").write_text("/* New words. */\nint go(void);\n")
    shown = page({})
    assert "New words." in shown("x.c")
    assert "Old words." not in shown("x.c")


def test_a_header_is_read_again_when_the_sources_beside_it_change_its_language(tmp_path, page):
    def language(shown) -> str:
        return re.findall(r"(?m)^```(\w+)$", shown("x.h"))[0]

    assert language(page({"x.h": "int go(void);\n", "y.c": "int y;\n"})) == "c"
    (tmp_path / "project" / "y.c").rename(tmp_path / "project" / "y.cpp")
    assert language(page({})) == "cpp"
    assert Path(tmp_path / "project" / "rotary-docs" / "x.h.md").exists()


def links(page: str, name: str) -> list[str]:
    """Where a symbol is declared or defined, as it is on its page."""
    return re.findall(r"(?m)^(?:Declared|Defined) in .*$", section(page, name))


def test_a_declaration_and_its_definition_link_to_each_other(page):
    shown = page(
        {
            "include/tin.h": "int tin_open(int n);\nextern int tin_debug;\nint tin_lost(void);\n",
            "include/other.h": "int tin_open(int n);\n",
            "src/tin.c": "int tin_debug = 1;\nint tin_open(int n) { return n; }\n",
        }
    )
    source, header = shown("src/tin.c"), shown("include/tin.h")
    assert links(header, "tin_open") == ["Defined in [`src/tin.c`](../src/tin.c.md#tin_open)."]
    assert links(header, "tin_debug") == ["Defined in [`src/tin.c`](../src/tin.c.md#tin_debug)."]
    assert links(header, "tin_lost") == []
    assert links(source, "tin_open") == [
        "Declared in [`include/other.h`](../include/other.h.md#tin_open), "
        "[`include/tin.h`](../include/tin.h.md#tin_open)."
    ]


def test_members_of_a_class_link_to_their_definitions_by_their_parameters(page):
    header = "class Tin {\npublic:\n  static Tin make();\n  void put(int n);\n  void put(int n, int m);\n};\n"
    source = "Tin Tin::make() { return Tin(); }\nvoid Tin::put(int n, int m) {}\n"
    shown = page({"tin.hpp": header, "tin.cpp": source})
    assert links(shown("tin.cpp"), "Tin.make") == ["Declared in [`tin.hpp`](tin.hpp.md#tinmake)."]
    assert len(links(shown("tin.cpp"), "Tin.put")) == 1


@pytest.mark.parametrize(
    "others",
    [
        {"a.c": "static int tin_open(int n) { return n; }\n"},
        {"a.c": "int tin_open(int n, int m) { return n; }\n"},
        {"a.c": "int tin_open(int n) { return n; }\n", "b.c": "int tin_open(int n) { return -n; }\n"},
        {"a.cpp": "namespace shop { int tin_open(int n) { return n; } }\n"},
        {"a.cpp": "namespace { int tin_open(int n) { return n; } }\n"},
        {"a.py": "def tin_open(n): pass\n"},
        {"a.h": "static inline int tin_open(int n) { return n; }\n"},
    ],
)
def test_what_has_another_linkage_or_may_be_something_else_is_not_linked(page, others):
    shown = page({"tin.h": "int tin_open(int n);\n", **others})
    assert all("Defined in" not in shown(path) and "Declared in" not in shown(path) for path in ("tin.h", *others))


def test_links_of_declarations_follow_every_change_of_definitions(tmp_path, page):
    shown = page({"tin.h": "int tin_open(int n);\n", "one.c": "int tin_open(int n) { return n; }\n"})
    root = tmp_path / "project"
    assert links(shown("tin.h"), "tin_open") == ["Defined in [`one.c`](one.c.md#tin_open)."]
    (root / "two.c").write_text("int tin_open(int n) { return -n; }\n")
    shown = page({})
    assert links(shown("tin.h"), "tin_open") == links(shown("one.c"), "tin_open") == []
    (root / "one.c").write_text("int other;\n")
    shown = page({})
    assert links(shown("tin.h"), "tin_open") == ["Defined in [`two.c`](two.c.md#tin_open)."]
    assert links(shown("two.c"), "tin_open") == ["Declared in [`tin.h`](tin.h.md#tin_open)."]


@pytest.mark.parametrize("is_public", [True, False])
def test_a_name_that_thousands_of_files_declare_takes_no_longer(tmp_path, is_public):
    """Counted in steps of SQLite, for one definition."""

    def steps(num_headers: int) -> int:
        db = open_database(tmp_path / f"{num_headers}.db")
        migrate(db)
        with WorkStore(db).transaction():
            db.execute(
                """insert into repository (id, root, name, worktree, docs_dir, model_name, pack_dir, plan_key,
                                           job)
                   values (1, '/r', 'r', 0, 'd', 'm', 'p', '', 'j')"""
            )
            for path, kind, words in [
                *((f"{number:05}.h", "declaration", "Adds.") for number in range(num_headers)),
                ("z.c", "function", None),
            ]:
                db.execute(
                    "insert into file (repository_id, path, blob, nbytes, language, class, reason)"
                    " values (1, ?, 'b', 1, 'c', 'source', '')",
                    [path],
                )
                db.execute(
                    """insert into symbol (repository_id, path, kind, name, qualified_name, start_line, end_line,
                                           start_byte, end_byte, signature, docstring, is_public)
                       values (1, ?, ?, 'add', 'add', 1, 1, 0, 9, 'int add(int n)', ?, ?)""",
                    [path, kind, words, is_public or kind == "function"],
                )
        num_steps = 0

        def count() -> int:
            nonlocal num_steps
            num_steps += 1
            return 0

        db.set_progress_handler(count, 1)
        (symbol,) = documented_symbols(WorkStore(db), 1, "z.c", "c")
        db.set_progress_handler(None, 0)
        assert symbol.docstring == ("Adds." if is_public else None)
        db.close()
        return num_steps

    few, many = steps(200), steps(3000)
    assert many <= few * 1.2, (few, many)


def test_the_parts_of_a_type_link_to_each_other_and_to_no_type_of_another_namespace(page, make_repository):
    files = {
        "a/Lid.cs": "namespace App;\npublic partial class Lid { public void Cut() {} }\n",
        "b/Lid.More.cs": "namespace App { partial class Lid { public void Bend() {} } }\n",
        "c/Lid.cs": "namespace Web;\npartial class Lid { }\n",
        "d/Lid.cs": "namespace App.Tins;\nclass Lid { }\n",
    }
    shown = page(files)
    assert "Other parts in [`b/Lid.More.cs`](../b/Lid.More.cs.md#applid)." in section(shown("a/Lid.cs"), "Lid")
    assert "Other parts in [`a/Lid.cs`](../a/Lid.cs.md#lid)." in section(shown("b/Lid.More.cs"), "App.Lid")
    assert "Other parts" not in shown("c/Lid.cs") + shown("d/Lid.cs")
    shown = page(files | {"b/Lid.More.cs": "namespace App { class Lid { } }\n"})
    assert "Other parts" not in shown("a/Lid.cs")
