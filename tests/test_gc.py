"""`gc` deletes what nothing needs, within its time, and nothing else: pages, queue and answers stay as they are."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from kept import Kept, make_kept, put_back
from test_kill_commands import killed_at

from rotary_batch.commands import leftovers
from rotary_batch.commands.cleaning import clean
from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.engine.packs.journal import JOURNAL_NAME, locked_journal
from rotary_batch.window import Deadline, Window, open_window
from rotary_batch.work import connection, unneeded

DAY_S = 86400
DEAD = "insert into result values (?, zeroblob(4000), 'No more.', -1.0, 1, 'stop', '{}', ?)"
OLD_RUN = (
    "insert into run (started_at, ended_at, pid, command, outcome, report) values ('2020', '2020', 1, 'x', 'failed', ?)"
)


@pytest.fixture(scope="module")
def _made(tmp_path_factory, tiny_pack) -> Kept:
    return make_kept(tmp_path_factory.mktemp("kept"), tiny_pack)


@pytest.fixture
def kept(_made, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    with put_back(_made, tmp_path / "copy") as kept:
        yield kept


def old_file(path: Path, age_s: float, nbytes: int = 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(nbytes))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def fill(kept: Kept) -> set[Path]:
    """One of everything that goes; returns the files and folders."""
    for number in range(3):
        kept.sql(DEAD, f"dead{number}", int(time.time()) - 31 * DAY_S)
        kept.sql(DEAD, f"young{number}", int(time.time()) - 29 * DAY_S)
    (item,) = kept.sql("select id from item where state = 'done' limit 1")[0]
    kept.sql("insert into partial values (?, 0, zeroblob(400), 0.0)", item)
    kept.sql("insert into prompt (item_id, token_ids) values (?, zeroblob(400))", item)
    kept.sql("insert into written_page values (1, 'gone.py', 'a'), (1, 'gone/', 'b')")
    kept.sql("insert into draft values (1, 'gone.py', 0, x'00')")
    state, database = kept.database.parent, kept.database
    for table, column in (("run", "id"), ("run_repository", "run_id"), ("run_sample", "run_id")):
        kept.sql(f"update {table} set {column} = 1000000")
    kept.sql(OLD_RUN, json.dumps({"file": f"{state}/reports/2020-01-01-000000.md"}))
    kept.sql("update run set id = 1 where started_at = '2020'")
    kept.sql(
        """insert into run (id, started_at, ended_at, pid, command)
           select value + 2, '2021', '2021', 1, 'x' from json_each(?)""",
        json.dumps(list(range(unneeded.KEPT_RUNS))),
    )
    copy = Path(os.environ["TMPDIR"]) / "rotary-batch-a1b2c3d4"
    pack = Path(os.environ["XDG_CACHE_HOME"]) / "rotary-batch" / "packs" / "begun"
    old_file(copy / "work.db", 2 * DAY_S)
    old_file(pack / "experts.safetensors.part", 40 * DAY_S)
    found = {
        old_file(Path(f"{database}.schema-3"), 31 * DAY_S),
        old_file(Path(f"{database}.schema-4.part"), 0),
        old_file(state / "reports" / "tmpab12cd_9", 2 * 3600),
        old_file(state / "reports" / "2020-01-01-000000.md", 0),
        old_file(state / "reports" / "2020-01-01-000000.html", 0),
        old_file(pack / JOURNAL_NAME, 40 * DAY_S).parent,
        copy,
    }
    os.utime(copy, (time.time() - 2 * DAY_S,) * 2)
    return found


def test_it_deletes_what_nothing_needs_and_nothing_else(kept, tmp_path):
    report = Path(kept.sql("select report ->> 'file' from run")[0][0])
    assert report.is_file()
    before = {
        name: kept.sql(f"select * from {name} order by 1, 2") for name in ("item", "result", "written_page", "draft")
    }
    gone = fill(kept)
    stays = {
        old_file(Path(f"{kept.database}.schema-5"), 29 * DAY_S),
        old_file(Path(f"{kept.database}.schema-x"), 99 * DAY_S),
        old_file(kept.database.parent / "reports" / "tmpab12cd_8", 60),
        old_file(tmp_path / "tmp" / "rotary-batch-00000000" / "mine", 99 * DAY_S),
        Path(f"{kept.database}.ballast"),
        kept.database,
        report,
    }
    with writing(Settings(db=kept.database)):
        kept.rotary("gc", code=6)
    dry = json.loads(kept.rotary("gc", "--dry-run", "--json").stdout)
    assert all(path.exists() for path in gone)
    docs = kept.docs
    done = json.loads(kept.rotary("gc", "--json").stdout)
    assert done["freed"] == dry["freed"]
    assert {each["what"]: each["number"] for each in done["freed"]} == {
        "copies of the database before an upgrade": 2,
        "files of interrupted commands": 1,
        "copies of the database that interrupted commands made": 1,
        "packs that were begun and not finished": 1,
        "reports of old runs": 2,
        "answers that nothing uses": 3,
        "begun answers of answered items": 1,
        "prompts of answered items": 1,
        "drafts of files that are gone": 1,
        "records of pages that are gone": 2,
        "records of old runs": 2,
    }
    assert all(each["nbytes"] > 0 for each in done["freed"])
    assert (done["is_complete"], [path for path in gone if path.exists()]) == (True, [])
    assert [path for path in stays if not path.exists()] == []
    after = {name: kept.sql(f"select * from {name} order by 1, 2") for name in before}
    after["result"] = [row for row in after["result"] if not row[0].startswith("young")]
    assert after == before
    again = json.loads(kept.rotary("gc", "--json").stdout)
    assert sum(each["number"] for each in again["freed"]) == 0

    kept.rotary("render", kept.root)
    assert kept.docs == docs
    (indexed,) = json.loads(kept.rotary("index", kept.root, "--json").stdout)
    assert (indexed["queued"], indexed["removed"], kept.docs) == (0, 0, docs)
    assert kept.problems() == []


def test_an_answer_is_kept_for_thirty_days_after_its_last_item_let_go_of_it(kept, git):
    """Its source is changed and changed back: within the time the answer is used again, and after it, it is gone."""
    path, settings = kept.root / "pkg" / "wrap.py", Settings(db=kept.database)
    text = path.read_text()
    keys = {key for (key,) in kept.sql("select key from result")}

    def commit(content: str) -> None:
        path.write_text(content)
        git(kept.root, "commit", "-qam", "change")
        kept.rotary("index", kept.root)

    commit(text.replace("[thing]", "{thing}"))
    unused = {key for (key,) in kept.sql("select key from result where unused_since is not null")}
    assert unused
    for days, left in ((29, keys), (31, keys - unused)):
        with writing(settings) as store:
            clean(store, Window(), now=time.time() + days * DAY_S)
        assert {key for (key,) in kept.sql("select key from result")} == left


def test_answers_of_an_earlier_version_have_their_thirty_days(kept):
    kept.sql(DEAD, "dead", None)
    now = time.time()
    for days, number in ((0, 1), (29, 1), (31, 0)):
        with writing(Settings(db=kept.database)) as store:
            clean(store, Window(), now=now + days * DAY_S)
        assert kept.sql("select count(*) from result where key = 'dead'") == [(number,)]


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_hundred_thousand_rows_go_within_the_time_and_the_file_becomes_small(kept, journal_mode, monkeypatch):
    monkeypatch.setattr(connection, "journal_mode_for", lambda _: journal_mode)
    before = kept.database.stat().st_size
    with writing(Settings(db=kept.database)) as store, store.transaction():
        rows = ((f"dead{number}",) for number in range(100_000))
        store.db.executemany("insert into result values (?, zeroblob(100), '', 0.0, 1, 'stop', '{}', 1)", rows)
    grown = kept.database.stat().st_size
    left = [100_000]
    while left[-1]:  # a run closes at its thirtieth look at the clock, which comes before each batch but the first
        looks = iter(range(1_000_000))
        with writing(Settings(db=kept.database)) as store:
            done = clean(store, Window(deadlines=[Deadline(30, lambda looks=looks: float(next(looks)))]))
        left += [kept.sql("select count(*) from result where unused_since = 1")[0][0]]
        freed = {each.what: each.number for each in done.freed}["answers that nothing uses"]
        assert freed == left[-2] - left[-1]
        assert 10_000 <= freed <= 30_000 or not left[-1]
    with writing(Settings(db=kept.database)) as store:
        assert store.db.execute("pragma journal_mode").fetchone()[0] == journal_mode
        assert clean(store, open_window(until=None, duration="5m")).is_complete
    assert grown > 100 * 100_000
    assert before <= kept.database.stat().st_size < before + 200_000
    assert kept.problems() == []


def test_out_of_time_is_said_and_nothing_is_lost(kept):
    gone = fill(kept)
    with writing(Settings(db=kept.database)) as store:
        done = clean(store, Window(deadlines=[Deadline(0.0, time.time)]))
    assert (done.is_complete, sum(each.number for each in done.freed)) == (False, 0)
    assert all(path.exists() for path in gone)
    assert kept.problems() == []


def test_killed_at_any_call_it_loses_nothing_and_the_next_one_ends_it(kept, tmp_path):
    """Of the calls that change something, some drawn over all of them."""
    fill(kept)
    docs = kept.docs
    words = ["gc", "--db", str(kept.database)]
    shutil.copytree(kept.database.parent, tmp_path / "state")
    calls = killed_at(0, *words)
    for count in range(1, calls, max(1, calls // 8)):
        shutil.rmtree(kept.database.parent)
        shutil.copytree(tmp_path / "state", kept.database.parent)
        killed_at(count, *words, may_end=True)
        assert kept.problems() == [], count
        with writing(Settings(db=kept.database)) as store:
            assert clean(store, Window()).is_complete
        assert kept.sql("select count(*) from result where key like 'dead%'") == [(0,)]
        assert kept.sql("select count(*) from result where key like 'young%'") == [(3,)]
        assert (kept.problems(), kept.docs) == ([], docs)


def test_a_pack_that_is_being_written_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    journal = old_file(tmp_path / "rotary-batch" / "packs" / "begun" / JOURNAL_NAME, 40 * DAY_S, 0)
    (found,) = [each for each in leftovers.leftovers(tmp_path / "work.db", time.time(), []) if each.paths]
    assert found.paths == [journal.parent]
    with locked_journal(journal.parent):
        assert leftovers.remove(found, lambda: False) == (0, 0)
    assert leftovers.remove(found, lambda: False)[0] == 1
    assert not journal.parent.exists()


def test_less_time_than_a_search_takes_frees_something_all_the_same(kept):
    """Whoever gives `gc` a second each night on a slow disk has a clean database in the end."""
    kept.sql(DEAD, "dead", 1)
    looks = iter(range(1_000_000))
    with writing(Settings(db=kept.database)) as store:
        closed_at_the_second_look = Window(deadlines=[Deadline(0.5, lambda: float(next(looks)))])
        done = clean(store, closed_at_the_second_look)
    assert (done.is_complete, sum(each.number for each in done.freed)) == (False, 1)
    assert kept.sql("select count(*) from result where key = 'dead'") == [(0,)]
