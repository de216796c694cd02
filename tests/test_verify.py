"""`verify` finds and names each kind of damage, and the command that mends it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from kept import Kept, make_kept, put_back

from rotary_batch.commands.database import writing
from rotary_batch.commands.facts import Fact, State
from rotary_batch.config import Settings
from rotary_batch.work.schema import MIGRATIONS


@pytest.fixture(scope="module")
def _made(tmp_path_factory, tiny_pack) -> Kept:
    return make_kept(tmp_path_factory.mktemp("kept"), tiny_pack)


@pytest.fixture
def kept(_made, tmp_path):
    with put_back(_made, tmp_path / "copy") as kept:
        yield kept


def found(kept: Kept) -> list[tuple[str, str, State, str]]:
    """The problems, without what mends them."""
    return [fact[:4] for fact in kept.problems()]


def test_after_a_run_all_agree(kept):
    before = kept.database.read_bytes(), kept.docs
    done = kept.rotary("verify")
    assert done.stdout.splitlines()[-1] == "Everything that was judged agrees."
    assert all(line.startswith("agrees: ") for line in done.stdout.splitlines()[:-1])
    answer = json.loads(kept.rotary("verify", kept.root, "--json").stdout)
    assert answer == {"database": str(kept.database), "facts": [fact._asdict() for fact in kept.facts()]}
    assert [fact["about"] for fact in answer["facts"]] == [
        "database", "schema", "queue", "queue", "queue", "queue", "sources", "pages", "pack",
    ]  # fmt: skip
    assert (kept.database.read_bytes(), kept.docs) == before


def test_an_edited_and_a_lost_page_are_named_and_render_mends_what_it_may(kept):
    docs = kept.root / "rotary-docs"
    box, wrap = docs / "pkg" / "box.py.md", docs / "pkg" / "wrap.py.md"
    text = box.read_text()
    box.write_text(text + "Mine.\n")
    wrap.unlink()
    render = f"`rotary-batch render {kept.root}"
    assert kept.problems() == [
        Fact("pages", str(wrap), State.DIFFERS, "missing", f"{render}`"),
        Fact("pages", str(box), State.DIFFERS, "edited by a person", f"{render} --accept ours|theirs pkg/box.py.md`"),
    ]
    kept.rotary("verify", code=4)
    kept.rotary("render", kept.root)
    kept.rotary("render", kept.root, "--accept", "ours", "pkg/box.py.md")
    assert (box.read_text(), kept.problems()) == (text, [])


def test_changed_sources_are_named_and_index_mends_them(kept, git):
    (kept.root / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    (kept.root / "new.py").write_text("x = 1\n")
    (kept.root / "notes.txt").unlink()
    assert kept.problems() == []  # git repositories are read at HEAD
    git(kept.root, "add", "-A", "--", "pkg", "new.py", "notes.txt")
    git(kept.root, "commit", "-qm", "second")
    index = f"`rotary-batch index {kept.root}`"
    assert kept.problems() == [
        Fact("sources", f"{kept.root}/{path}", State.DIFFERS, f"{how} since it was indexed", index)
        for path, how in (("new.py", "new"), ("notes.txt", "gone"), ("pkg/wrap.py", "changed"))
    ]
    kept.rotary("verify", code=4)
    kept.rotary("index", kept.root)
    assert kept.problems() == []


def test_the_name_of_a_file_cannot_look_like_a_fact(kept, git):
    (kept.root / "x\nagrees: sources y.py").write_text("x = 1\n")
    git(kept.root, "add", "-A", "--", ":(glob)x*")
    git(kept.root, "commit", "-qm", "second")
    lines = kept.rotary("verify", code=4).stdout.splitlines()
    assert [line[:7] for line in lines if "y.py" in line] == ["differs"]


def test_an_untouched_page_of_another_version_is_not_what_the_database_has(kept):
    """A page as it was before its answer: whole and signed, so that no person edited it, but not the newest."""
    kept.sql("update item set shown_text = 'It is put somewhere.', verdict = 'shown' where unit = 'file'")
    words = {(fact.about, fact.words) for fact in kept.problems()}
    assert words == {("pages", "not what the database has")}


def test_a_lost_answer_is_found(kept):
    (key,) = kept.sql("select key from item where state = 'done' limit 1")[0]
    kept.sql("delete from result where key = ?", key)
    (problem,) = kept.problems()
    assert problem[:4] == ("queue", str(kept.root), State.DIFFERS, "1 item answered without an answer that is stored")
    assert f"rotary-batch forget {kept.root}" in problem.mend


def test_a_lease_of_a_run_that_is_gone_and_a_wrong_counter_are_found(kept):
    kept.sql("update item set state = 'leased', run_id = 7 where id = 1")
    kept.sql("update item_count set n = n + 1 where state = 'done' and unit = 'file'")
    words = {fact.words for fact in kept.problems()}
    assert {"1 item held by a run that is gone", "1 item to be asked without a prompt"} <= words
    assert any("counted wrongly" in text for text in words)


def test_a_flipped_byte_of_a_pack_is_found(kept):
    with (kept.pack / "experts.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    name = kept.pack / "experts.safetensors: layer 0 expert 0"
    assert found(kept) == [("pack", str(name), State.DAMAGED, "wrong digest")]
    kept.rotary("verify", code=3)


def test_a_pack_that_is_gone_is_not_judged_and_another_in_its_place_is_named(kept):
    manifest = kept.pack / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    assert found(kept) == [("pack", str(kept.pack), State.UNKNOWN, "not on this machine")]
    kept.rotary("verify")
    manifest.write_text("{")
    assert [fact.state for fact in kept.problems()] == [State.DAMAGED]
    manifest.write_text(text)
    kept.sql("update repository set model_digest = 'of another'")
    assert [fact.state for fact in kept.problems()] == [State.DIFFERS]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_database_is_found(kept, share):
    os.truncate(kept.database, int(share * kept.database.stat().st_size) // 4096 * 4096)
    (problem,) = kept.problems()
    assert problem[:3] == ("database", str(kept.database), State.DAMAGED)
    assert "put back a copy" in problem.mend
    kept.rotary("verify", code=3)


def test_any_page_of_the_database_that_is_lost_is_found(kept):
    """The first page of each table and index: never is anything reported as whole, and never is it a bug."""
    pages = kept.sql("select rootpage from sqlite_master where rootpage > 1")
    whole = kept.database.read_bytes()
    for (page,) in pages[::4]:
        kept.database.write_bytes(whole[: 4096 * (page - 1)] + b"\xa5" * 4096 + whole[4096 * page :])
        assert State.DAMAGED in [fact.state for fact in kept.problems()], page


def test_rows_without_their_parents_and_words_without_their_texts_are_found(kept):
    kept.sql("insert into partial values (99, 0, x'00', 0.0)")  # foreign keys are off in this connection
    assert found(kept) == [("database", str(kept.database), State.DAMAGED, "a row of partial without its item")]
    kept.sql("delete from partial")
    kept.sql("drop trigger search_entry_removed")
    kept.sql("delete from search_entry where id = 1")
    (problem,) = kept.problems()
    assert "the search index is not that of its texts" in problem.words


def test_a_database_of_an_earlier_version_is_said(kept):
    kept.sql(f"pragma user_version = {len(MIGRATIONS) - 1}")
    words = f"version {len(MIGRATIONS) - 1}, and this program knows {len(MIGRATIONS)}"
    assert kept.problems() == [Fact("schema", str(kept.database), State.DIFFERS, words, "`rotary-batch index REPO`")]


def test_an_index_that_was_not_finished_is_said(kept):
    kept.sql("update repository set plan_key = ''")
    (problem,) = kept.problems()
    assert (problem.about, problem.state, problem.mend) == ("pages", State.DIFFERS, f"`rotary-batch index {kept.root}`")


def test_a_repository_that_is_gone_is_said_and_others_are_judged(kept):
    kept.sql(
        "insert into repository select 99, '/nowhere/at/all', name, commit_id, worktree, docs_dir, model_name, pack_dir,"
        " plan_key, link_template, job, notes, demonstration, resolved_by, model_digest, model_by_flag, check_key,"
        " job_by_name from repository"
    )
    (problem,) = kept.problems()
    assert problem[:4] == ("sources", "/nowhere/at/all", State.DIFFERS, "no such folder")
    assert len([fact for fact in kept.facts() if fact.about == "pack"]) == 1  # of both


def test_while_a_driver_works_pages_are_not_judged(kept):
    with writing(Settings(db=kept.database)) as store:
        done = subprocess.run(
            [sys.executable, "-m", "rotary_batch", "verify", "--json", "--db", str(kept.database)],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        with store.transaction():  # nothing is locked
            store.db.execute("update run set command = command")
    assert done.returncode == 0, done.stderr
    unknown = [fact for fact in json.loads(done.stdout)["facts"] if fact["state"] != "agrees"]
    assert [(fact["about"], fact["state"]) for fact in unknown] == [("pages", "not judged")]
    assert f"process {os.getpid()} is at work" in unknown[0]["words"]
