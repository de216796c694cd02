"""An index that is interrupted at any statement, and done again, leaves what an undisturbed one leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.commands.isolation import failures
from rotary_batch.config import Settings
from rotary_batch.errors import StorageError
from rotary_batch.planner import index as planner_index
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Deadline, Window
from rotary_batch.work.schema import MIGRATIONS
from rotary_batch.work.store import WorkStore
from tests.in_process import drain_all, index_all

FILES = {
    "pkg/a.py": '"""Module a."""\n\nfrom pkg.b import g\n\ndef f(x):\n    return g(x)\n',
    "pkg/b.py": "def g(x):\n    return x\n",
    "pkg/inner/c.py": "from pkg.b import g\nclass C:\n    def m(self):\n        return g(1)\n",
    "notes.txt": "# text\n",
    "d.py": "from pkg import a\n\n\ndef main():\n    a.f(1)\n",
}
LATER = {
    "pkg/b.py": "def g(x):\n    return x + 1\n\n\ndef h():\n    pass\n",
    "new/e.py": "from pkg.b import g\ndef e():\n    g(1)\n",
}

MOVED = {  # no other file sees a difference but in where the symbols are
    "pkg/b.py": '"""Module b."""\n\n\n' + "def g(x):\n    return x - h()\n\n\ndef h():\n    return 1\n",
    "d.py": "from pkg import a\n\n\ndef main():\n    return a.f(2)\n",
}


class Interrupted(BaseException):
    """Stands for a kill: nothing in the program may catch it."""


class Failing:
    """A connection on which the n-th statement is not reached."""

    def __init__(self, db: sqlite3.Connection, left: int, error: Callable[[], BaseException]) -> None:
        self._db, self._left, self._error = db, left, error

    def __getattr__(self, name: str):
        return getattr(self._db, name)

    def execute(self, statement: str, *arguments):
        if statement != "rollback":
            self._left -= 1
            if self._left == 0:
                raise self._error()
        return self._db.execute(statement, *arguments)

    def executemany(self, statement: str, *arguments):
        self._left -= 1
        if self._left == 0:
            raise self._error()
        return self._db.executemany(statement, *arguments)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Parsed here, and one file a transaction, so that every statement is reached quickly."""
    from rotary_batch.model.tokens import Tokenizer
    from rotary_batch.repo.parse import parse_file

    def parse_files(files, *, tokenizer_dir, budget_tokens, num_workers, begun):
        tokenizer = Tokenizer.load(tokenizer_dir)
        for file, source in files:
            yield parse_file(file, source, budget_tokens, tokenizer)

    monkeypatch.setattr(planner_index, "parse_files", parse_files)
    monkeypatch.setattr(planner_index.Worker, "begin", lambda self: None)
    monkeypatch.setattr(planner_index, "FILES_A_COMMIT", 1)


def index(settings: Settings, root: Path, fail_at: int = 0, error: Callable[[], BaseException] = Interrupted):
    with writing(settings) as store:
        db = store.db
        store.db = Failing(db, fail_at, error)  # type: ignore[assignment]
        try:
            return index_all(store, settings, root)
        finally:
            store.db = db


def contents(settings: Settings) -> dict[str, list[tuple]]:
    """All that the database holds of a repository, but for numbers that only count attempts."""
    db = sqlite3.connect(settings.db)
    queries = {
        "item": """select unit, subject, path, position, state, key, priority, attempts, max_new_tokens,
                     prompt_tokens, error, (select unit || ' ' || subject from item as p where p.id = item.parent_id),
                     (select token_ids from prompt where item_id = item.id) from item order by unit, subject""",
        "file": "select path, blob, class, plan_key, rolled_up from file order by path",
        "symbol": "select path, qualified_name, start_byte from symbol order by path, start_byte",
        "chunk": "select path, start_byte, end_byte, blob from chunk order by path, start_byte",
        "call": "select path, start_byte, callee_path, callee_start_byte from call order by path, id",
        "import": "select path, position, module, name, alias from import order by path, position",
        "inheritance": "select path, start_byte, base_path, base_start_byte from inheritance order by 1, 2, 3, 4",
        "import_target": "select path, target from import_target order by path, target",
        "repository": "select plan_key, commit_id from repository",
    }
    found = {table: db.execute(query).fetchall() for table, query in queries.items()}
    db.close()
    return found


def pages(root: Path) -> dict[str, bytes]:
    docs = root / "rotary-docs"
    return {str(path.relative_to(docs)): path.read_bytes() for path in sorted(docs.rglob("*")) if path.is_file()}


def full() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(
    ("error", "stride"),
    [
        (Interrupted, 13),
        (full, 29),
        pytest.param(Interrupted, 1, marks=pytest.mark.faults),
        pytest.param(full, 1, marks=pytest.mark.faults),
    ],
)
def test_an_index_interrupted_at_any_statement_is_finished_by_the_next(
    make_repository, git, tiny_pack, tmp_path, error, stride
):
    """A first index and one after a change; every `stride`th statement is the last one in turn."""
    root = make_repository(FILES)
    calm = Settings(model=tiny_pack, db=tmp_path / "calm.db")
    index(calm, root)
    first = contents(calm), pages(root)
    answer_everything(calm, root)
    storm = Settings(model=tiny_pack, db=tmp_path / "storm.db")
    interrupted = 0
    for fail_at in range(1, 10_000, stride):
        storm.db.unlink(missing_ok=True)
        if not fails(storm, root, fail_at, error):
            break
        interrupted += 1
        index(storm, root)
        assert (contents(storm), pages(root)) == first, fail_at
    assert interrupted * stride > 80

    answered = tmp_path / "answered.db"
    answered.write_bytes(calm.db.read_bytes())
    for path, text in LATER.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    git(root, "rm", "-q", "pkg/inner/c.py")
    git(root, "add", "pkg", "new")
    git(root, "commit", "-q", "-m", "second")
    index(calm, root)
    second = contents(calm), pages(root)
    assert {row[4] for row in second[0]["item"]} == {"done", "ready", "waiting"}
    assert interrupted_at_each(storm, answered, root, stride, error, second) > 60

    answered.write_bytes(calm.db.read_bytes())
    for path, text in MOVED.items():
        (root / path).write_text(text)
    git(root, "commit", "-q", "-a", "-m", "third")
    index(calm, root)
    third = contents(calm), pages(root)
    assert {row[2:] for row in third[0]["call"]} == {("pkg/a.py", 38), ("pkg/b.py", 18), ("pkg/b.py", 49)}
    assert interrupted_at_each(storm, answered, root, stride, error, third) > 60


def interrupted_at_each(
    storm: Settings,
    start: Path,
    root: Path,
    stride: int,
    error: Callable[[], BaseException],
    expected: tuple[dict[str, list[tuple]], dict[str, bytes]],
) -> int:
    """Interrupt an index at every `stride`th statement in turn; returns the number of its last one."""
    for fail_at in range(1, 10_000, stride):
        storm.db.write_bytes(start.read_bytes())
        if not fails(storm, root, fail_at, error):
            break
        index(storm, root)
        assert (contents(storm), pages(root)) == expected, fail_at
    return fail_at


def fails(settings: Settings, root: Path, fail_at: int, error: Callable[[], BaseException]) -> bool:
    try:
        index(settings, root, fail_at, error)
    except (Interrupted, StorageError, sqlite3.OperationalError):
        return True
    return False


def answer_everything(settings: Settings, *roots: Path) -> list[object]:
    with writing(settings) as store:
        return drain_all(store, settings, roots, lambda: FakeEngine(answer_tokens=6))


def test_what_is_not_indexed_to_its_end_is_not_drained_and_the_others_are(make_repository, tiny_pack, tmp_path):
    root, other = make_repository(FILES), make_repository({"a.py": "x = 1\n"}, name="other")
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    with pytest.raises(Interrupted):
        index(settings, root, 160)
    index(settings, other)
    (failure,) = failures(answer_everything(settings, root, other))
    assert (failure.repository, failure.exit_code) == (str(root), 3)
    assert f"run `rotary-batch index {root}` again" in failure.error
    states = dict(
        sqlite3.connect(settings.db).execute("select repository_id, min(state = 'done') from item group by 1")
    )
    assert states == {1: 0, 2: 1}


def test_a_database_whose_items_an_earlier_version_lost_is_healed(make_repository, tiny_pack, tmp_path):
    """It stored all files in one transaction and all items in another; a kill between was never noticed."""
    root = make_repository(FILES)
    calm = Settings(model=tiny_pack, db=tmp_path / "calm.db")
    index(calm, root)
    damaged = Settings(model=tiny_pack, db=tmp_path / "damaged.db")
    as_version_3_left_it(calm.db, damaged.db)
    (outcome,) = index(damaged, root)
    assert outcome.indexed.counts.queued == len(contents(calm)["item"]) > 0
    assert contents(damaged) == contents(calm)


def as_version_3_left_it(source: Path, target: Path) -> None:
    """Schema 3, every file read under its plan key, and no item."""
    copy_at_schema(3, source, target, ("repository", "file", "symbol", "reference", "chunk"))


def copy_at_schema(version: int, source: Path, target: Path, tables: Sequence[str]) -> None:
    """A database of an earlier version with these tables of a present one."""
    from rotary_batch.work.connection import open_database

    db = open_database(target)
    for script in MIGRATIONS[:version]:
        db.executescript(script)
    db.execute(f"pragma user_version = {version}")
    db.execute("attach ? as source", [str(source)])
    for table in tables:
        names = ", ".join(row["name"] for row in db.execute(f"pragma main.table_info({table})"))
        db.execute(f"insert into main.{table} ({names}) select {names} from source.{table}")
    assert db.execute("select count(*) from file where plan_key is not null").fetchone()[0] == 4
    db.close()


def test_after_a_migration_calls_are_resolved_again(make_repository, tiny_pack, tmp_path):
    """Versions before schema 7 resolved them each time that pages were written."""
    root = make_repository(FILES)
    calm = Settings(model=tiny_pack, db=tmp_path / "calm.db")
    index(calm, root)
    expected = contents(calm)
    assert [(caller, callee) for caller, _, callee, _ in expected["call"]] == [
        ("d.py", "pkg/a.py"),
        ("pkg/a.py", "pkg/b.py"),
        ("pkg/inner/c.py", "pkg/b.py"),
    ]
    settings = Settings(model=tiny_pack, db=tmp_path / "old.db")
    copy_at_schema(6, calm.db, settings.db, ("repository", "file", "symbol", "reference", "chunk", "item", "prompt"))
    (outcome,) = index(settings, root)
    assert (outcome.indexed.parsed, contents(settings)) == (4, expected)


def test_files_whose_items_are_gone_are_read_again(make_repository, tiny_pack, tmp_path):
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    expected = contents(settings)
    with writing(settings) as store:
        store.db.execute("delete from item where path = 'pkg/a.py'")
    (outcome,) = index(settings, root)
    assert (outcome.indexed.parsed, contents(settings)) == (1, expected)


@pytest.mark.parametrize("change", ["removed", "ignored"])
def test_after_a_migration_nothing_of_a_file_that_is_no_source_any_more_is_queued(
    make_repository, git, tiny_pack, tmp_path, change
):
    """Migrations set the plan keys to null, so that every file is read again; this one is not there to be read."""
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    with writing(settings) as store:
        store.db.execute("update file set plan_key = null")
        store.db.execute("update repository set plan_key = ''")
    if change == "removed":
        git(root, "rm", "-q", "pkg/b.py")
    else:
        (root / ".rotaryignore").write_text("pkg/b.py\n")
        git(root, "add", ".rotaryignore")
    git(root, "commit", "-q", "-m", "second")
    index(settings, root)
    anew = Settings(model=tiny_pack, db=tmp_path / "anew.db")
    index(anew, root)
    assert contents(settings) == contents(anew)
    assert "pkg/b.py@0-26" not in {row[1] for row in contents(settings)["item"]}


def test_a_damaged_object_leaves_database_and_pages_as_they_were(make_repository, git, tiny_pack, tmp_path):
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    before = contents(settings), pages(root)
    (root / "d.py").write_text("def changed():\n    pass\n")
    git(root, "commit", "-q", "-a", "-m", "second")
    oid = git(root, "rev-parse", "HEAD:d.py").strip()
    (root / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    (_, failure) = index(settings, root)
    assert (failure.repository, failure.exit_code) == (str(root), 3)
    assert f"not read, and its pages kept: d.py (its object {oid} is missing or damaged); " in failure.error
    after = contents(settings), pages(root)
    assert after[0].pop("repository") != before[0].pop("repository")  # the commit
    assert after == before


def test_a_window_that_closes_while_files_are_classified_stops_the_index(make_repository, git, tiny_pack, tmp_path):
    root = make_repository(FILES | {".rotaryignore": "x\n"})
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    before = contents(settings)
    (root / "notes.txt").write_text("# other text\n")
    git(root, "commit", "-q", "-a", "-m", "second")
    looks = iter(range(10_000))
    window = Window(deadlines=[Deadline(4, lambda: next(looks))])
    with writing(settings) as store:
        (failure,) = index_all(store, settings, root, window=window)
    assert next(looks) == 6, "after the first look at a closed window there is one more, for the reason"
    assert (failure.exit_code, contents(settings)) == (75, before)


def test_an_index_again_reads_no_file_and_changes_nothing(make_repository, tiny_pack, tmp_path, monkeypatch):
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    before = contents(settings)
    monkeypatch.setattr("rotary_batch.repo.files._by_content", lambda data: pytest.fail("a file was read again"))
    monkeypatch.setattr(WorkStore, "save_prompt", lambda *_: pytest.fail("an item was queued again"))
    (outcome,) = index(settings, root)
    assert (outcome.indexed.counts.queued, outcome.indexed.counts.unchanged) == (0, len(before["item"]))
    assert contents(settings) == before


def test_what_the_content_of_a_file_says_of_it_is_read_again_only_when_it_may_say_something_else(
    make_repository, git, tiny_pack, tmp_path, monkeypatch
):
    others = {
        "made.py": "# @generated\nx = 1\n",
        "wide.js": f"x = '{'y' * 30_000}'\n",
        "zero.py": b"a\0b",
        "run": "x\n",
    }
    root = make_repository(FILES | others)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    before = contents(settings)
    with monkeypatch.context() as patch:
        patch.setattr("rotary_batch.repo.files._by_content", lambda *_: pytest.fail("a file was read again"))
        index(settings, root)
    assert contents(settings) == before
    (root / ".gitattributes").write_text("made.py linguist-generated=false\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "second")
    (outcome,) = index(settings, root)
    assert outcome.indexed.parsed == 1
    assert "generated" not in outcome.indexed.files


def test_a_run_without_work_reads_no_symbol(make_repository, tiny_pack, tmp_path, monkeypatch):
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    index(settings, root)
    answer_everything(settings, root)
    monkeypatch.setattr("rotary_batch.sync.documented_symbols", lambda *_: pytest.fail("a symbol was read"))
    (outcome,) = answer_everything(settings, root)
    assert (outcome.exit_code, outcome.as_dict()["done"]) == (0, 0)
