"""From the database to the docs folder: only what changed, in batches that can be stopped, one bad path alone."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from rotary_batch import sync
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import Chunk, FileClass, ParsedFile, SourceFile, Subject, Symbol, Unit
from rotary_batch.pages import site
from rotary_batch.pages.front import read
from rotary_batch.pages.site import site_paths
from rotary_batch.planner.storing import store_parsed
from rotary_batch.sync import sync_all, sync_pending, sync_some
from rotary_batch.testing import plan_items
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import finish_plan, save_repository
from rotary_batch.work.page_stamps import known_stamps
from rotary_batch.work.rows import PlannedItem, RepositoryRow
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

PATHS = ["a.py", "pkg/b.py", "pkg/c.py", "pkg/deep/d.py"]
OVERVIEWS = {"/", "/onboarding.md", "/llms-full.txt"}
THINGS = {"pkg/", "pkg/deep/", *PATHS, "/llms.txt", "/.mkdocs/mkdocs.yml", "/symbol-index.md", *OVERVIEWS}


def parsed(path: str, text: str = "") -> ParsedFile:
    file = SourceFile(
        path=path,
        blob=f"blob {path} {text}",
        nbytes=9,
        language="python",
        file_class=FileClass.SOURCE,
        reason="source code",
    )
    symbol = Symbol(
        path=path,
        kind="function",
        name="f",
        qualified_name="f",
        start_line=1,
        end_line=2,
        start_byte=0,
        end_byte=9,
        signature="def f()",
        docstring=text or None,
    )
    chunk = Chunk(
        path=path,
        blob=file.blob,
        start_byte=0,
        end_byte=9,
        start_line=1,
        end_line=2,
        tokens=3,
        symbols=("f",),
        breadcrumb="",
    )
    return ParsedFile(file=file, docstring=None, symbols=(symbol,), references=(), chunks=(chunk,), fallback=None)


def planned(paths: list[str]) -> Iterator[PlannedItem]:
    base = {"max_new_tokens": 5, "parent": None}
    for path in paths:
        yield PlannedItem(subject=Subject(Unit.CHUNK, path, span=(0, 9)), key=f"k {path}", prompt_ids=(1,), **base)
        yield PlannedItem(subject=Subject(Unit.FILE, path), **base)
    for folder in ("pkg", "pkg/deep"):
        yield PlannedItem(subject=Subject(Unit.DIRECTORY, folder), **base)
    yield PlannedItem(subject=Subject(Unit.REPOSITORY, ""), **base)


class Place:
    """An index of some files in a database, and a folder for its docs."""

    def __init__(self, folder: Path, paths: list[str] = PATHS) -> None:
        (folder / "repo").mkdir()
        self.database = folder / "work.db"
        db = open_database(self.database)
        migrate(db)
        self.store = WorkStore(db)
        row = RepositoryRow(
            root=str(folder / "repo"),
            name="shop",
            commit_id=None,
            worktree=False,
            docs_dir="docs",
            model_name="m",
            pack_dir=str(EMBEDDED),
            plan_key="k",
            link_template=None,
            job="summarize",
        )
        self.row = replace(row, id=save_repository(self.store, row))
        self.docs = folder / "repo" / "docs"
        self.index(dict.fromkeys(paths, ""))
        plan_items(self.store, self.row.id, "summarize", list(planned(paths)), set(paths))

    def reopen(self) -> None:
        self.store = WorkStore(open_database(self.database))

    def index(self, texts: dict[str, str]) -> None:
        rows = self.store.db.execute("select path from file where class = 'source'").fetchall()
        with self.store.transaction():
            for path, text in sorted(texts.items()):
                store_parsed(self.store, self.row.id, parsed(path, text), "k")
            finish_plan(self.store, self.row.id, "k", [], {row["path"] for row in rows} - texts.keys())

    def answer(self, unit: str, subject: str, text: str) -> None:
        with self.store.transaction():
            self.store.db.execute(
                "update item set state = 'done', verdict = 'shown', shown_text = ? where unit = ? and subject = ?",
                [text, unit, subject],
            )

    def tree(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.docs)): path.read_bytes() for path in self.docs.rglob("*") if path.is_file()}

    def forgotten(self) -> set[str]:
        return THINGS - known_stamps(self.store, self.row.id).keys()


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    yield found
    found.store.db.close()


@pytest.fixture
def rendered(monkeypatch) -> list[str]:
    """The things that are rendered."""
    things: list[str] = []
    real = site._render_one
    monkeypatch.setattr(
        site, "_render_one", lambda view, pages, thing, others: things.append(thing) or real(view, pages, thing, others)
    )
    return things


@pytest.mark.parametrize(
    ("unit", "subject", "shown_on"),
    [
        ("chunk", "pkg/b.py@0-9", {"pkg/b.py"}),
        ("file", "pkg/b.py", {"pkg/b.py", "pkg/"}),
        ("file", "a.py", {"a.py", "/"}),
        ("directory", "pkg/deep", {"pkg/deep/", "pkg/"}),
        ("directory", "pkg", {"pkg/", "/"}),
        ("repository", "", {"/"}),
    ],
)
def test_an_answer_that_no_run_wrote_to_its_page_is_written_by_the_next_and_nothing_else_is(
    unit, subject, shown_on, place, rendered
):
    assert len(sync_pending(place.store, place.row).written) == len(THINGS)
    assert place.forgotten() == set()
    place.answer(unit, subject, "New words.")  # and the run is killed
    assert place.forgotten() == shown_on
    rendered.clear()
    done = sync_pending(place.store, place.row)
    assert (set(rendered), place.forgotten()) == (shown_on | OVERVIEWS, set())
    paths = site_paths(PATHS)
    assert {thing for thing in THINGS if paths[thing] in done.written} <= shown_on | OVERVIEWS
    incremental = place.tree()
    assert sync_all(place.store, place.row).written == []
    assert place.tree() == incremental
    assert any(b"New words." in page for page in incremental.values())


def test_a_run_renders_only_the_pages_of_its_answers(place, rendered):
    sync_pending(place.store, place.row)
    view = sync.load_index_view(place.store, place.row)
    place.answer("file", "pkg/b.py", "New words.")
    rendered.clear()
    done = sync_some(place.store, place.row, view, [Subject(Unit.FILE, "pkg/b.py"), Subject(Unit.FILE, "pkg/gone.py")])
    assert (sorted(rendered), sorted(done.written)) == (["pkg/", "pkg/b.py"], ["pkg/b.py.md", "pkg/index.md"])
    assert place.forgotten() == OVERVIEWS


def test_with_nothing_to_do_no_page_is_rendered_and_the_index_is_not_loaded(place, monkeypatch):
    sync_pending(place.store, place.row)
    monkeypatch.setattr(sync, "load_index_view", None)
    done = sync_pending(place.store, place.row)
    assert (done.written, done.unchanged) == ([], len(THINGS))


@pytest.mark.parametrize("change", ["name", "model_name", "docs_dir", "link_template"])
def test_a_changed_setting_may_reach_any_page(change, place):
    sync_pending(place.store, place.row)
    save_repository(place.store, replace(place.row, **{change: "https://other.example/{path}"}))
    assert place.forgotten() == THINGS


ABOUT_ALL = {thing for thing in THINGS if thing.startswith("/")}


@pytest.mark.parametrize(
    ("texts", "forgotten"),
    [
        ({"pkg/deep/d.py": "Other."}, {"pkg/deep/d.py", "pkg/deep/", "pkg/", *OVERVIEWS}),
        ({"a.py": "Other."}, {"a.py", *OVERVIEWS}),  # llms.txt says which functions there are
        ({"pkg/z.py": ""}, ABOUT_ALL),  # the folders when it is planned
        ({"pkg/c.py": None}, {"pkg/c.py", "pkg/", *ABOUT_ALL}),
    ],
)
def test_a_changed_file_reaches_its_page_and_what_is_above_it(texts, forgotten, place):
    sync_pending(place.store, place.row)
    with place.store.transaction():
        for path, text in texts.items():
            if text is not None:
                store_parsed(place.store, place.row.id, parsed(path, text), "k")
        finish_plan(place.store, place.row.id, "k", [], [path for path, text in texts.items() if text is None])
    assert place.forgotten() == forgotten


def test_an_index_of_the_same_files_and_settings_forgets_nothing(place):
    sync_pending(place.store, place.row)
    save_repository(place.store, replace(place.row, commit_id="another"))
    with place.store.transaction():
        finish_plan(place.store, place.row.id, "k", [parsed(path).file for path in PATHS], [])
        place.store.db.execute("update item set state = 'ready', attempts = 1")
    assert place.forgotten() == set()


def test_files_that_are_no_source_are_counted_on_the_first_page_alone(place):
    sync_pending(place.store, place.row)
    readme = parsed("README.md").file._replace(file_class=FileClass.TEXT, reason="no grammar for .md")
    for file, forgotten in [
        (readme, {"/"}),
        (readme._replace(blob="other"), {"/"}),
        (readme._replace(reason="r"), {"/"}),
    ]:
        with place.store.transaction():
            finish_plan(place.store, place.row.id, "k", [file], [])
        assert place.forgotten() == forgotten
        sync_pending(place.store, place.row)
    with place.store.transaction():
        finish_plan(place.store, place.row.id, "k", [], ["README.md"])
    assert place.forgotten() == {"/"}


def test_pages_that_were_deleted_edited_or_put_back_are_looked_at_again(place, rendered):
    sync_pending(place.store, place.row)
    before = place.tree()
    (place.docs / "a.py.md").unlink()
    (place.docs / "pkg" / "b.py.md").write_text("mine\n")
    (place.docs / "pkg" / "c.py.md").write_bytes(before["pkg/c.py.md"])  # as a checkout does
    (place.docs / "llms.txt").unlink()
    shutil.rmtree(place.docs / "pkg" / "deep")
    for _ in range(2):  # a conflict is told each time
        rendered.clear()
        done = sync_pending(place.store, place.row)
        assert done.conflicts == ["pkg/b.py.md"]
    assert rendered == ["pkg/b.py"]
    after = place.tree()
    assert after.pop("pkg/b.py.md.rotary-new") == before["pkg/b.py.md"]
    assert after == before | {"pkg/b.py.md": b"mine\n"}


@pytest.mark.parametrize("name", ["llms.txt", ".mkdocs/mkdocs.yml"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda old: b"mine\n" + old,
        lambda old: old + b"mine\n",
        lambda old: b"mine\n",
        lambda old: old[:-1] + b" mine\n",
    ],
)
def test_a_line_that_a_person_put_into_a_file_without_front_matter_is_not_lost(place, name, edit):
    sync_all(place.store, place.row)
    ours = (place.docs / name).read_bytes()
    theirs = edit(ours)
    (place.docs / name).write_bytes(theirs)
    assert sync_all(place.store, place.row).conflicts == [name]
    assert ((place.docs / name).read_bytes(), (place.docs / f"{name}.rotary-new").read_bytes()) == (theirs, ours)


def test_another_version_of_the_program_looks_at_every_page(place, monkeypatch, rendered):
    sync_pending(place.store, place.row)
    monkeypatch.setattr(sync, "__version__", "other")
    rendered.clear()
    assert sync_pending(place.store, place.row).written == []
    assert sorted(rendered) == sorted(THINGS)


def test_a_sync_that_is_stopped_keeps_its_batches_and_the_next_one_goes_on(tmp_path, monkeypatch):
    place = Place(tmp_path, PATHS + [f"many/m{n:02}.py" for n in range(40)])
    monkeypatch.setattr(sync, "BATCH_PAGES", 8)
    stops, sizes = iter([False, False, True, True, True]), []
    while True:
        done = sync_pending(place.store, place.row, should_stop=lambda: next(stops, False))
        sizes.append(len(done.written))
        if not done.stopped:
            break
    assert sizes == [24, 8, 8, 13]
    assert sync_all(place.store, place.row).written == []
    assert sync_pending(place.store, place.row, should_stop=lambda: True).stopped is False
    place.store.db.close()


def test_one_bad_path_fails_alone_and_its_page_is_named(place):
    (place.docs / "pkg").mkdir(parents=True)
    (place.docs / "a.py.md").symlink_to(place.docs.parent / "outside")
    (place.docs / "pkg" / "deep").write_text("a file")
    done = sync_pending(place.store, place.row)
    assert {failure.page for failure in done.failed} == {"a.py.md", "pkg/deep/index.md", "pkg/deep/d.py.md"}
    assert len(done.written) == len(THINGS) - 3
    assert place.forgotten() == {"a.py", "pkg/deep/", "pkg/deep/d.py"}
    (place.docs / "a.py.md").unlink()
    (place.docs / "pkg" / "deep").unlink()
    done = sync_pending(place.store, place.row)
    assert (done.failed, sorted(done.written)) == ([], ["a.py.md", "pkg/deep/d.py.md", "pkg/deep/index.md"])


def die_at(count: int, sync_pages: Callable[[], object]) -> bool:
    """Sync in a child that is killed at its count-th sync, rename, removal or commit; returns whether it was."""
    child = os.fork()
    if child == 0:
        left = [count]

        def aimed(call):
            def step(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return step

        for name in ("fsync", "rename", "unlink", "mkdir"):
            setattr(os, name, aimed(getattr(os, name)))
        sync.save_stamps = aimed(sync.save_stamps)
        try:
            sync_pages()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_fifty_kills_of_a_rendering_leave_what_an_undisturbed_one_leaves(tmp_path, monkeypatch):
    place = Place(tmp_path, PATHS + [f"many/m{n:02}.py" for n in range(20)])
    monkeypatch.setattr(sync, "BATCH_PAGES", 5)
    chance, kills, round_number = random.Random(5), 0, 0
    while kills < 50:
        round_number += 1
        for path in chance.sample(PATHS, 2):
            place.answer("file", path, f"Words {round_number}.")
        if round_number % 10 == 0:
            place.index(dict.fromkeys(PATHS, f"Docstring {round_number}."))
        place.store.db.close()
        kills += die_at(chance.randint(1, 30), lambda: place.reopen() or sync_pending(place.store, place.row))
        place.reopen()
        pages = {path: data for path, data in place.tree().items() if path.endswith(".md")}
        assert not any(read(data).is_edited for data in pages.values())
    sync_pending(place.store, place.row)
    stormy = place.tree()
    shutil.rmtree(place.docs)
    sync_all(place.store, place.row)
    assert place.tree() == stormy
    place.store.db.close()


def test_sources_with_names_of_ours_and_names_too_long_have_pages_that_links_and_check_find(make_repository):
    """Each of these ended every run with exit code 74, and the repositories named beside it got nothing."""
    code = "def f():\n    return 1\n"
    names = [
        "index.md/a.py",
        "a.py",
        "a.py.md/b.py",
        "llms.txt/c.py",
        "x.rotary-tmp/d.py",
        "n" * 245 + ".py",
        ".mkdocs/e.py",
    ]
    root = make_repository(dict.fromkeys(names, code))
    other = make_repository({"good.py": code}, name="other")
    command = [sys.executable, "-m", "rotary_batch.cli"]
    done = subprocess.run([*command, "index", root, other, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["pages_failed"], second["pages_failed"]) == ([], [])
    assert (first["pages_written"], second["pages_written"]) == (len(names) + 7 + 4, 7)
    docs = root / "rotary-docs"
    for page in [path for path in docs.rglob("*.md") if path.is_file()]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / unquote(target)).exists(), (page, target)
    for target in re.findall(r"\]\(([^)]+)\)", (docs / "llms.txt").read_text()):
        assert (docs / unquote(target)).is_file()
    assert subprocess.run([*command, "check", root], capture_output=True).returncode == 0


def test_the_index_is_loaded_once_for_one_command(place, monkeypatch):
    loads: list[int] = []
    real = sync.load_index_view
    monkeypatch.setattr(sync, "load_index_view", lambda store, row: loads.append(row.id) or real(store, row))
    views = sync.IndexViews(place.store)
    assert len(sync_pending(place.store, place.row, views).written) == len(THINGS)
    place.answer("file", "a.py", "New.")
    assert sync_pending(place.store, place.row, views).written == ["a.py.md", "index.md", "llms-full.txt"]
    assert loads == [place.row.id]
