"""Nothing that a model wrote is undone in silence, and no page goes because something could not be read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_cli import answer, docs_of, rotary

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.pages.markdown import DEMONSTRATION

CODE = {
    "pkg/box.py": '''"""Boxes."""


def parse_size(text):
    """Parse a size such as 10GB and return bytes."""
    number, unit = text[:-2], text[-2:]
    return int(number) * {"KB": 1000, "MB": 10**6, "GB": 10**9}[unit]
''',
    "pkg/wrap.py": '''def wrap(thing):
    """Wrap a thing in a list."""
    return [thing]
''',
    "LICENCE.txt": "Free.\n",
}


def texts(root: Path) -> dict[str, bytes]:
    return {path: data for path, (data, _) in docs_of(root).items()}


@pytest.fixture(scope="module")
def bold_pack(tmp_path_factory) -> Path:
    """The embedded model, all of whose sentences are shown."""
    pack = tmp_path_factory.mktemp("pack") / "bold"
    shutil.copytree(EMBEDDED, pack)
    manifest = json.loads((pack / "manifest.json").read_text())
    (pack / "manifest.json").write_text(json.dumps(manifest | {"name": "bold", "min_mean_logprob": -100.0}))
    return pack


@pytest.fixture(scope="module")
def _night(tmp_path_factory, bold_pack) -> Path:
    """A folder with a repository whose pages hold a model's text, committed, and with the state of its run."""
    night = tmp_path_factory.mktemp("night")
    root = night / "project"
    for path, text in CODE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(root)]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    state = {"XDG_STATE_HOME": str(night / "state")}
    answer("run", root, "--model", bold_pack, **state)
    for command in (["add", "-A"], ["commit", "-qm", "docs"]):
        subprocess.run([*git, *command], check=True)
    answer("index", root, **state)
    return night


@pytest.fixture
def written(_night, tmp_path) -> Path:
    """A copy of that repository and its state, as if it had been run here."""
    root, state = tmp_path / "project", Path(os.environ["XDG_STATE_HOME"])
    subprocess.run(["cp", "-a", str(_night / "project"), str(root)], check=True)
    state.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(_night / "state"), str(state)], check=True)
    with closing(sqlite3.connect(state / "rotary-batch" / "work.db")) as db:
        db.execute("update repository set root = ?", [str(root)])
        db.commit()
    assert {"onboarding.md", "pkg/wrap.py.md"} <= set(with_text(root))
    assert all(DEMONSTRATION.encode() in texts(root)[page] for page in with_text(root))
    return root


def with_text(root: Path) -> list[str]:
    return sorted(path for path, data in texts(root).items() if path.endswith(".md") and b"\ncoverage: " in data)


def test_another_database_keeps_the_pages_that_hold_a_models_text(written, tmp_path):
    before, kept = texts(written), with_text(written)
    (index,) = answer("index", written, "--db", tmp_path / "other.db")
    assert (sorted(index["pages_kept"]), index["pages_written"], texts(written)) == (kept, 0, before)
    done = rotary("index", written, "--db", tmp_path / "other.db")
    assert f"{len(kept)} pages keep the text that a model wrote" in " ".join(done.stdout.split())
    assert "rotary-batch drain" in done.stdout
    assert "render --overwrite" in done.stdout
    assert sorted(answer("render", written, "--db", tmp_path / "other.db")["kept"]) == kept
    assert texts(written) == before


def test_a_fresh_clone_keeps_them_too_and_a_drain_takes_them_over(written, tmp_path, git):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(written), str(clone)], check=True)
    lost = {"XDG_STATE_HOME": str(tmp_path / "lost")}
    (index,) = answer("index", clone, **lost)
    assert sorted(index["pages_kept"]) == with_text(written)
    assert git(clone, "status", "--porcelain") == ""
    answer("drain", clone, "--limit", 1, code=75, **lost)
    assert set(with_text(clone)) >= set(with_text(written))
    (rest,) = answer("drain", clone, **lost)
    assert rest["open"] == 0
    (again,) = answer("index", clone, **lost)
    assert (again["pages_kept"], again["pages_written"]) == ([], 0)


def test_a_page_whose_source_changed_is_replaced_and_counted(written, tmp_path, git):
    (written / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    git(written, "commit", "-qam", "change")
    before = with_text(written)
    (index,) = answer("index", written, "--db", tmp_path / "other.db")
    assert "pkg/wrap.py.md" in before
    assert "pkg/wrap.py.md" in index["pages_without_text"]
    assert sorted(index["pages_kept"]) == sorted(set(before) - set(index["pages_without_text"]))
    assert with_text(written) == sorted(index["pages_kept"])
    note = next(note for note in index["notes"] if "show less of it" in note or "shows less of it" in note)
    assert note.startswith(f"{len(index['pages_without_text'])} page")


def test_pages_can_be_overwritten_on_purpose(written, tmp_path):
    other = tmp_path / "other.db"
    kept = with_text(written)
    answer("index", written, "--db", other)
    done = answer("render", written, "--overwrite", "--db", other)
    assert (set(done["written"]) >= set(kept), done["kept"], with_text(written)) == (True, [], [])
    (index,) = answer("index", written, "--db", other)  # its own pages now
    assert (index["pages_kept"], index["pages_written"]) == ([], 0)


def test_pages_are_written_although_the_pack_is_gone(make_repository, tiny_pack, tmp_path):
    root = make_repository(CODE)
    pack = tmp_path / "pack"
    shutil.copytree(tiny_pack, pack)
    answer("index", root, "--model", pack)
    before = texts(root)
    shutil.rmtree(pack)
    shutil.rmtree(root / "rotary-docs")
    answer("render", root)
    assert texts(root) == before


def test_a_moved_repository_is_recognised(written, tmp_path):
    new = tmp_path / "elsewhere" / "project"
    new.parent.mkdir()
    written.rename(new)
    done = rotary("status", new)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert f"{written}, which is gone" in done.stderr
    assert f"rotary-batch index {new}" in done.stderr
    before = texts(new)
    (index,) = answer("index", new)
    assert f"moved from {written}; what is stored of it is used" in index["notes"]
    assert (index["queued"], index["pages_written"], texts(new)) == (0, 0, before)
    assert [one["root"] for one in answer("status")["repositories"]] == [str(new)]


def test_a_moved_folder_without_git_is_recognised(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.py").write_text("def f():\n    return 1\n")
    answer("index", old)
    old.rename(new)
    assert f"continues {old}, which is gone" in rotary("status", new).stderr
    (index,) = answer("index", new)
    assert index["parsed"] == 0
    other = tmp_path / "unlike"
    other.mkdir()
    (other / "b.py").write_text("x = 1\n")
    shutil.rmtree(new)
    assert "which is gone" not in rotary("status", other).stderr


def test_a_clone_is_not_taken_for_the_repository_that_is_still_there(written, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(written), str(clone)], check=True)
    assert rotary("status", clone).stderr.endswith(f"run `rotary-batch index {clone}` first\n")
    answer("index", clone)
    assert {one["root"] for one in answer("status")["repositories"]} == {str(written), str(clone)}


def rotary_without_privileges(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The superuser may read every file, unless it gives that up."""
    dropped = "-dac_override,-dac_read_search"
    prefix = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"] if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("first", [True, False])
def test_a_damaged_object_keeps_its_page_and_the_rest_is_done(first, written, git, tmp_path):
    """`first`: the database knows nothing of the file."""
    (written / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    (written / "pkg" / "new.py").write_text("def new():\n    return 1\n")
    git(written, "add", "-A")
    git(written, "commit", "-qm", "change")
    blob = git(written, "rev-parse", "HEAD:pkg/wrap.py").strip()
    file = written / ".git" / "objects" / blob[:2] / blob[2:]
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    page = texts(written)["pkg/wrap.py.md"]
    done = rotary("index", written, "--json", *(["--db", tmp_path / "other.db"] if first else []))
    assert done.returncode == 3, done.stderr
    index, failure = json.loads(done.stdout)
    assert (index["parsed"], failure["exit_code"]) == (2 if first else 1, 3)
    assert "pkg/wrap.py" in failure["error"]
    assert failure["error"] in done.stderr
    assert texts(written)["pkg/wrap.py.md"] == page
    assert "pkg/new.py.md" in texts(written)


@pytest.mark.parametrize("first", [True, False])
def test_a_file_that_may_not_be_read_keeps_its_page(first, written, tmp_path):
    before = texts(written)
    (written / "pkg" / "wrap.py").chmod(0)
    other = ["--db", tmp_path / "other.db"] if first else []
    done = rotary_without_privileges("index", written, "--worktree", "--json", *other)
    assert done.returncode == 3, done.stderr
    assert "pkg/wrap.py" in done.stderr
    assert texts(written)["pkg/wrap.py.md"] == before["pkg/wrap.py.md"]
    assert first or texts(written) == before
    assert rotary_without_privileges("index", written, "--worktree", *other).returncode == 3
    (written / "pkg" / "wrap.py").chmod(0o644)
    assert rotary("index", written, "--worktree", *other).returncode == 0


def test_a_folder_that_may_not_be_read_keeps_its_pages(tmp_path):
    root = tmp_path / "plain"
    for path, text in CODE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "top.py").write_text("def top():\n    return 1\n")
    answer("index", root)
    before = texts(root)
    (root / "pkg").chmod(0)
    try:
        done = rotary_without_privileges("index", root)
        assert (done.returncode, "pkg" in done.stderr) == (3, True)
        now = texts(root)
        assert {path: now[path] for path in before if "/" in path} == {p: d for p, d in before.items() if "/" in p}
    finally:
        (root / "pkg").chmod(0o755)
    assert rotary("index", root).returncode == 0


def test_a_subfolder_stands_for_the_repository_around_it(written):
    sub = written / "pkg"
    for command in ("check", "render", "status", "plan", "report"):
        for where, arguments in ((sub, ()), (sub, (".",)), (written.parent, (sub,))):
            done = rotary(command, *arguments, "--json", cwd=where)
            assert done.returncode == 0, (command, where, arguments, done.stderr)
    assert [one["root"] for one in answer("status", sub)["repositories"]] == [str(written)]
    assert rotary("inspect", "files", sub).stdout == rotary("inspect", "files", written).stdout
    assert f"{written} is checked" in rotary("check", sub).stderr
    assert not (sub / "rotary-docs").exists()
    answer("agents", sub)
    assert (written / "AGENTS.md").is_file()
    done = rotary("forget", sub)
    assert (done.returncode, f"rotary-batch forget {written}" in done.stderr) == (3, True)


def test_a_part_that_is_indexed_by_itself_is_said_to_be_one(written):
    sub = written / "pkg"
    (index,) = answer("index", sub)
    assert index["docs"] == str(sub / "rotary-docs")
    assert (
        f"only this part of {written} is read; to read all of it, run `rotary-batch index {written}`" in index["notes"]
    )
    assert [one["root"] for one in answer("status", sub)["repositories"]] == [str(sub)]
    assert answer("check", sub)["missing"] == []
    assert rotary("forget", sub).returncode == 0


def test_pages_of_ours_are_not_counted_as_files_that_were_not_read(make_repository, git):
    root = make_repository(CODE)
    (plain,) = answer("index", root)
    answer("index", root, "--out", "docs/generated")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "docs")
    (index,) = answer("index", root)
    assert {name: number for name, number in index["files"].items() if name != "docs"} == plain["files"]
    assert index["files"]["docs"] == 2 * len(texts(root))  # in both docs folders
    assert any("docs/generated" in note for note in index["notes"])
    (again,) = answer("index", root)
    assert again["files"] == index["files"]
    answer("index", root, "--out", "docs/generated")
    (own,) = answer("index", root, "--out", "docs/generated")
    assert (own["files"], [note for note in own["notes"] if "generated" in note]) == (index["files"], [])
    num_others = sum(plain["files"].values()) - plain["files"]["source"]
    assert f"\nNot read: {num_others} in no language that is read.\n" in rotary("index", root).stdout
