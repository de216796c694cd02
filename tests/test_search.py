"""Questions to the index: search, views, the graph; and what leaves the database with `forget`."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from rotary_batch import __version__
from rotary_batch.cli import app
from rotary_batch.commands.database import database_path, writing
from rotary_batch.config import Settings
from rotary_batch.core import FileClass, ParsedFile, SourceFile, Symbol
from rotary_batch.errors import UnavailableError
from rotary_batch.pages.graph_formats import Node, dot, graphml, mermaid
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import save_parsed, save_repository
from rotary_batch.work.lock import driver_lock
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.schema import migrate
from rotary_batch.work.search import find, words
from rotary_batch.work.store import WorkStore

CODE = {
    "shop/cart.py": '"""Carts of customers."""\n\n\ndef add_line(cart, goods):\n    """Put goods into a cart."""\n'
    "    return totalPrice(cart + [goods])\n\n\ndef totalPrice(cart):\n    return sum(cart)\n",
    "shop/HTTPServer.go": "package shop\n\n// ServeCart answers one request.\nfunc ServeCart() int { return parseBody() }\n\n"
    "func parseBody() int { return 1 }\n",
    "web/cart.ts": "/** Draws the cart. */\nexport class CartView {\n  redrawAll(): void {}\n}\n",
    "web/plain.js": "var x = 1;\n",
}


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done.stdout


def answer(*arguments: object) -> object:
    return json.loads(run(*arguments, "--json"))


def found(*arguments: object) -> list[tuple[str, str, int]]:
    return [(one["kind"], one["qualified_name"], one["line"]) for one in answer("search", *arguments)]


def raised(*arguments: object) -> BaseException:
    error = CliRunner().invoke(app, list(map(str, arguments))).exception
    assert error is not None
    return error


@pytest.fixture
def shop(make_repository) -> Path:
    root = make_repository(CODE, "shop")
    run("index", root)
    return root


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parseHTTPBody_v2", ["parse", "HTTP", "Body", "v2"]),
        ("snake_case.dotted", ["snake", "case", "dotted"]),
        ("XMLHttpRequest", ["XML", "Http", "Request"]),
        ("ÜberGröße", ["Über", "Größe"]),
        ("operator<<", ["operator"]),
        ("#private $get", ["private", "get"]),
        ("数据库", ["数据库"]),
        ("A" * 5, ["AAAAA"]),
        ("aB" * 3, ["a", "Ba", "Ba", "B"]),
        ("<<", []),
    ],
)
def test_identifiers_are_split_into_words(text, parts):
    assert words(text) == parts


SPELLINGS = {
    "add_line": ("function", "add_line", 4),
    "addLine": ("function", "add_line", 4),
    "addline": ("function", "add_line", 4),
    "total price": ("function", "totalPrice", 9),
    "total_price": ("function", "totalPrice", 9),
    "TOTALPRICE": ("function", "totalPrice", 9),
    "tot": ("function", "totalPrice", 9),
    "body": ("function", "parseBody", 6),
    "redraw": ("method", "CartView.redrawAll", 3),
    "CartView": ("class", "CartView", 2),
    "cartview.redrawall": ("method", "CartView.redrawAll", 3),
    "answers request": ("function", "ServeCart", 4),
    "customers": ("file", "shop/cart.py", 1),
    "HTTPServer.go": ("file", "shop/HTTPServer.go", 1),
    "http server": ("file", "shop/HTTPServer.go", 1),
    "web": ("directory", "web", 1),
    "draws nonsense": ("class", "CartView", 2),  # no entry has all of them
}


def test_a_name_is_found_however_it_is_spelt(shop):
    assert {text: found(text)[0] for text in SPELLINGS} == SPELLINGS


def test_results_have_the_documented_fields_and_come_from_the_named_repositories(shop, make_repository):
    other = make_repository({"cart.py": "def add_line():\n    return 0\n"}, "other")
    run("index", other)
    (first, second) = answer("search", "add_line")
    by_root = {first["repository"]: first, second["repository"]: second}
    assert by_root[str(shop)] == {
        "repository": str(shop),
        "kind": "function",
        "qualified_name": "add_line",
        "path": "shop/cart.py",
        "line": 4,
        "page": "rotary-docs/shop/cart.py.md",
        "summary": "Put goods into a cart.",
    }
    assert (shop / first["page"]).exists() or (other / first["page"]).exists()
    assert [one["repository"] for one in answer("search", "add", "line", "--repo", other)] == [str(other)]
    assert len(answer("search", "cart", "--limit", "2")) == 2
    text = run("search", "add_line")
    assert f"function add_line  {shop}/shop/cart.py:4\n    Put goods into a cart.\n" in text


def test_no_text_is_an_expression_of_the_search_engine(shop):
    for text in ['"', "add_line*", "a AND", "NEAR(", "name:x", "-x", "(", "x'; drop table item", "\x00a"]:
        done = CliRunner().invoke(app, ["search", "--", text])
        assert done.exit_code == 0 or "give a word" in str(done.exception)


def test_changed_and_deleted_sources_are_not_found_any_more(shop, git):
    (shop / "shop/cart.py").write_text("def remove_line():\n    return 0\n")
    git(shop, "rm", "-q", "-r", "web")
    git(shop, "commit", "-qam", "second")
    run("index", shop)
    assert found("remove_line")[0] == ("function", "remove_line", 1)
    assert [found(gone) for gone in ("add_line", "redrawAll", "customers", "web")] == [[], [], [], []]
    check_search_index()


def check_search_index() -> None:
    """FTS5 compares its index with the entries, and raises when they differ."""
    with sqlite3.connect(database_path(Settings())) as db:
        db.execute("insert into search (search, rank) values ('integrity-check', 1)")


def test_answers_are_found_when_they_come_and_forgotten_with_their_items(shop):
    with writing(Settings(), create=False) as store:
        store.db.execute(
            "update item set shown_text = 'Wraps marzipan.' where unit = 'chunk' and path = 'shop/cart.py'"
        )
        store.db.execute("update item set shown_text = 'About nougat.' where unit = 'directory' and path = 'web'")
    assert [found("marzipan"), found("nougat")] == [[("chunk", "shop/cart.py", 1)], [("directory", "web", 1)]]
    check_search_index()
    with writing(Settings(), create=False) as store:
        store.db.execute("update item set shown_text = null where unit = 'chunk'")
        store.db.execute("delete from item where unit = 'directory'")
    assert [found("marzipan"), found("nougat"), found("web")[:1]] == [[], [], [("file", "web/cart.ts", 1)]]
    check_search_index()


def test_what_earlier_versions_stored_is_found_after_the_next_index(shop):
    with sqlite3.connect(database_path(Settings())) as db:
        db.execute("update repository set plan_key = ''")
    done = CliRunner().invoke(app, ["search", "cart"])
    assert f"run `rotary-batch index {shop}`" in " ".join(done.stderr.split())


def store_many(folder: Path, num_files: int) -> WorkStore:
    db = open_database(folder / f"{num_files}.db")
    migrate(db)
    store, random_ = WorkStore(db), random.Random(0)
    row = RepositoryRow(root="/r", name="r", commit_id=None, worktree=False, docs_dir="d", model_name="m",
                        pack_dir="/p", plan_key="k", link_template=None, job="j")  # fmt: skip
    repository_id = save_repository(store, row)
    with store.transaction():
        for number in range(num_files):
            save_parsed(store, repository_id, many_symbols(f"d/f{number}.py", random_), "k")
    return store


def many_symbols(path: str, random_: random.Random) -> ParsedFile:
    names = [f"get{random_.randrange(9)}Item_{random_.randrange(9**6)}" for _ in range(20)]
    file = SourceFile(path=path, blob="b", nbytes=1, language="python", file_class=FileClass.SOURCE, reason="")
    symbols = [
        Symbol(path=path, kind="function", name=name, qualified_name=name, start_line=1, end_line=1, start_byte=place,
               end_byte=place + 1, signature="", docstring="Gets one thing.")
        for place, name in enumerate(names)
    ]  # fmt: skip
    return ParsedFile(file=file, docstring=None, symbols=tuple(symbols), references=(), chunks=(), fallback=None)


def test_entering_a_file_takes_no_longer_in_a_large_database(tmp_path):
    """By the rows that SQLite visits, which the machine's load does not change."""
    visits = []
    for num_files in (50, 800):
        store = store_many(tmp_path, num_files)
        store.db.set_progress_handler(lambda: visits.append(1) or 0, 1000)
        with store.transaction():
            for number in range(20):
                save_parsed(store, 1, many_symbols(f"d/f{number}.py", random.Random(1)), "k")
        store.db.set_progress_handler(None, 0)
        visits.append(0)
        assert len(find(store, "get Item", [1], 5)) == 5
        store.db.close()
    first, second = visits.index(0), len(visits) - visits.index(0) - 2
    assert second < 2 * first + 10


def test_a_sqlite_without_full_text_search_is_explained(tmp_path):
    class Without(sqlite3.Connection):
        def execute(self, sql, *given):
            return super().execute("select 1 where false" if "pragma_module_list" in sql else sql, *given)

    db = sqlite3.connect(tmp_path / "x.db", factory=Without, isolation_level=None)
    with pytest.raises(UnavailableError, match="no full-text search") as caught:
        migrate(db)
    assert (caught.value.exit_code, db.execute("pragma user_version").fetchone()) == (69, (0,))
    db.close()


def rows_of(view: str) -> list[dict[str, object]]:
    db = sqlite3.connect(database_path(Settings()))
    db.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in db.execute(f"select * from {view}")]
    finally:
        db.close()


def test_the_views_answer_in_sql(shop):
    with writing(Settings(), create=False) as store:
        store.db.execute(
            "update item set state = 'parked', error = 'too long', attempts = 3 where path = 'web/plain.js'"
        )
        store.db.execute("delete from page where thing in ('web/', 'shop/cart.py')")
    coverage = {row["path"]: row for row in rows_of("coverage")}
    assert coverage["shop/cart.py"] == {
        "repository_id": 1,
        "repository": "shop",
        "path": "shop/cart.py",
        "language": "python",
        "class": "source",
        "nbytes": len(CODE["shop/cart.py"]),
        "symbols": 2,
        "documented_symbols": 1,
        "items": 2,
        "items_shown": 0,
    }
    assert sorted(row["thing"] for row in rows_of("stale")) == ["shop/cart.py", "web/"]
    assert {(row["unit"], row["path"], row["error"]) for row in rows_of("parked")} == {
        ("chunk", "web/plain.js", "too long"),
        ("file", "web/plain.js", "too long"),
    }
    assert sum(row["items"] for row in rows_of("cost")) == len(run("inspect", "items", shop).splitlines())
    assert [(row["caller"], row["callee"]) for row in rows_of("graph")] == [
        ("ServeCart", "parseBody"),
        ("add_line", "totalPrice"),
    ]


def test_the_graph_is_printed_as_json_lines_and_in_the_formats_of_other_programs(shop):
    lines = [json.loads(line) for line in run("inspect", "graph", shop, "--jsonl").splitlines()]
    assert lines[1] == {
        "caller_path": "shop/cart.py",
        "caller": "add_line",
        "caller_line": 4,
        "callee_path": "shop/cart.py",
        "callee": "totalPrice",
        "callee_line": 9,
        "cycle": None,
    }
    drawn = {name: run("inspect", "graph", shop, "--format", name) for name in ("graphml", "mermaid", "dot")}
    assert len(ElementTree.fromstring(drawn["graphml"]).findall(".//{*}edge")) == 2
    assert '  n0["ServeCart"]\n  n1["parseBody"]\n  n0 --> n1\n' in drawn["mermaid"]
    assert '  n1 [label="parseBody", tooltip="shop/HTTPServer.go:6"];\n  n0 -> n1;\n' in drawn["dot"]
    assert "is not one of" in str(raised("inspect", "graph", shop, "--format", "png"))
    assert "only the graph" in str(raised("inspect", "files", shop, "--format", "dot"))


def test_calls_within_a_cycle_have_its_number(make_repository):
    code = {
        "even.py": "def even(n):\n    return odd(n - 1)\n\n\ndef odd(n):\n    return even(n - 1)\n\n\ndef ask():\n    even(4)\n",
        "walk.js": "function visit(n) { enter(n); }\nfunction enter(n) { visit(n); leave(n); }\nfunction leave(n) {}\n",
    }
    root = make_repository(code, "rings")
    run("index", root)
    calls = [json.loads(line) for line in run("inspect", "graph", root).splitlines()]
    cycles = {(call["caller"], call["callee"]): call["cycle"] for call in calls}
    ring = cycles["even", "odd"]
    assert cycles == {
        ("even", "odd"): ring,
        ("odd", "even"): ring,
        ("ask", "even"): None,
        ("visit", "enter"): 3 - ring,
        ("enter", "visit"): 3 - ring,
        ("enter", "leave"): None,
    }


HOSTILE = [
    'a"]; evil --> b["',
    'a"];\nsubgraph x',
    "</data></node><script>alert(1)</script>",
    "]]>&amp;&#0;",
    "\x00\x08\x1b[31m\ufffe\uffff",
    "1. item",
    "- item",
    "end",
    r"\N\G\l \" \\",
    "`md` **b** <b>x</b> %%{init: {}}%%",
    "click n0 href 'javascript:x'",
    "\u202egnirts\u2066",
    "x" * 100_000,
]


def test_hostile_names_stay_names_in_every_format():
    nodes = [Node(f"{name}/f.c", name, number) for number, name in enumerate(HOSTILE)]
    edges = [(nodes[0], node) for node in nodes[1:]]
    graph = ElementTree.fromstring("\n".join(graphml(edges)))
    assert len(graph.findall(".//{*}node")) == len(nodes)
    assert {element.tag.rpartition("}")[2] for element in graph.iter()} == {
        "graphml", "key", "graph", "node", "data", "edge",
    }  # fmt: skip
    string = r'"(?:[^"\\\n]|\\.)*"'
    node = rf"  n\d+ \[label={string}, tooltip={string}\];"
    drawn = list(dot(edges))
    assert all(
        re.fullmatch(rf"digraph calls {{|  node \[shape=box\];|}}|{node}|  n\d+ -> n\d+;", line) for line in drawn
    )
    label = r"(?:[A-Za-z0-9_./ ]|#\d+;)*"
    drawn = list(mermaid(edges))
    assert drawn[0] == "flowchart LR"
    assert all(re.fullmatch(rf'  n\d+\["{label}"\]|  n\d+ --> n\d+', line) for line in drawn[1:])
    assert max(map(len, drawn)) < 3000


def test_forget_takes_a_repository_out_and_leaves_its_pages_and_all_others(shop, make_repository):
    twin = make_repository({"cart.py": CODE["shop/cart.py"]}, "twin")
    run("run", shop, twin, "--limit", 4, code=75)
    pages = sorted((shop / "rotary-docs").rglob("*"))
    with driver_lock(database_path(Settings())):
        assert raised("forget", shop).exit_code == 6
    assert found("CartView")
    text = run("forget", shop)
    assert f"its pages stay: {shop}/rotary-docs" in " ".join(text.split())
    assert sorted((shop / "rotary-docs").rglob("*")) == pages
    assert [row["root"] for row in answer("status")["repositories"]] == [str(twin)]
    assert found("CartView") == []
    assert found("add_line") == [("function", "add_line", 4)]
    check_search_index()
    db = sqlite3.connect(database_path(Settings()))
    tables = [
        name
        for (name,) in db.execute("select name from sqlite_master where type = 'table' and sql like '%repository_id%'")
    ]
    assert len(tables) > 8
    for table in tables:
        assert db.execute(f"select count(*) from {table} where repository_id = 1").fetchone() == (0,), table
    used = "select count(*) from result where key not in (select key from item where key is not null)"
    assert db.execute(used).fetchone() == (0,)
    assert db.execute("pragma foreign_key_check").fetchall() == []
    db.close()
    assert "not indexed yet" in str(raised("forget", shop))


def test_a_repository_that_is_gone_can_be_forgotten(shop):
    shop.rename(shop.with_name("moved"))
    assert answer("forget", shop)["repository"] == str(shop)
    assert answer("status")["repositories"] == []


def test_the_report_of_a_repository_is_its_own_last_run(shop, make_repository):
    other = make_repository({"lid.py": "def close():\n    return None\n"}, "other")
    run("index", other)
    run("run", shop, "--limit", 1, code=75)
    assert "no run of" in str(raised("report", other))
    run("run", other, "--limit", 1, code=75)
    reports = [answer("report", *roots)["run"] for roots in ([], [shop], [other], [shop, other])]
    assert reports == [2, 1, 2, 2]


def test_the_version_is_printed():
    assert run("--version") == f"rotary-batch {__version__}\n"
