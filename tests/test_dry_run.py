"""A dry run says what a run would do, and leaves every folder as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rotary_batch.work.lock import driver_lock

CODE = {
    "pkg/__init__.py": '"""A small package."""\n',
    "pkg/box.py": "def put(thing):\n    '''Put it in.'''\n    return wrap(thing)\n\n\ndef take(box):\n    return box.pop()\n",
    "pkg/wrap.py": "def wrap(thing):\n    return [thing]\n",
    "old/gone.py": "x = 1\n",
}


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


def rotary(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=200)


def answer(*arguments: object, code: int = 0) -> Any:
    done = rotary(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def everything(*folders: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of all that is in some folders."""
    found = {}
    for folder in folders:
        for path in sorted([folder, *folder.rglob("*")]):
            status = path.lstat()
            # closing a file that this process has locked would release its lock
            is_read = path.is_file() and not path.is_symlink() and path.suffix != ".lock"
            content = path.read_bytes() if is_read else b""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def dry(command: str, root: Path, *options: object) -> dict[str, Any]:
    """The answer of a dry run of one repository, after which nothing differs from before."""
    before = everything(Path(os.environ["HOME"]), root)
    result = answer(command, root, "--dry-run", *options)
    assert everything(Path(os.environ["HOME"]), root) == before
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
    return result


def docs_of(root: Path) -> dict[str, bytes]:
    docs = root / "rotary-docs"
    return {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}


def check_prediction(root: Path) -> dict[str, Any]:
    """Compare what a dry run says with what `index` does then; returns what both agree on."""
    (said,) = dry("index", root)["repositories"]
    assert dry("run", root)["repositories"] == [said]
    before = docs_of(root)
    (done,) = answer("index", root)
    after = docs_of(root)
    changed = {path for path in after if path not in before or after[path] != before[path]}
    assert (said["files_to_read"], said["items_to_queue"], said["items_to_remove"]) == (
        done["parsed"],
        done["queued"],
        done["removed"],
    )
    assert set(said["pages_to_write"]) == {path for path in changed if not path.endswith(".rotary-new")}
    assert set(said["pages_to_remove"]) == {path for path in before if path not in after}
    assert said["conflicts"] == done["conflicts"]
    assert len(said["pages_to_write"]) == done["pages_written"]
    plan = answer("plan", root)["repositories"][0]["open"].values()
    assert (said["open_items"], said["prompt_tokens"]) == (
        sum(unit["items"] for unit in plan),
        sum(unit["prompt_tokens"] for unit in plan),
    )
    return said


def test_a_dry_run_says_what_index_does_then(make_repository, git):
    root = make_repository(CODE)
    first = check_prediction(root)
    assert (first["files_to_read"], first["items_to_remove"], first["pages_to_remove"]) == (4, 0, [])
    nothing = check_prediction(root)
    assert (nothing["files_to_read"], nothing["items_to_queue"], nothing["pages_to_write"]) == (0, 0, [])
    assert nothing["open_items"] == first["open_items"] > 0

    (root / "pkg" / "wrap.py").write_text(
        "def wrap(thing):\n    return (thing,)\n\n\ndef unwrap(thing):\n    return thing[0]\n"
    )
    git(root, "rm", "-q", "old/gone.py")
    with (root / "rotary-docs" / "pkg" / "wrap.py.md").open("a") as page:
        page.write("Mine.\n")
    git(root, "commit", "-qam", "change")
    later = check_prediction(root)
    assert (later["files_to_read"], later["conflicts"]) == (1, ["pkg/wrap.py.md"])
    assert {"old/gone.py.md", "old/index.md"} <= set(later["pages_to_remove"])


def test_the_time_is_that_of_the_last_run_or_unknown(make_repository, git):
    root = make_repository(CODE)
    said = dry("run", root)
    assert (said["seconds"], said["speed"], said["needs"]) == (None, None, "bench --machine --device cpu")
    done = rotary("run", root, "--dry-run", "--until", "07:00")
    assert "time: unknown; run `rotary-batch bench --machine --device cpu` once" in done.stdout
    assert done.stderr.startswith("until ")
    assert rotary("run", root).returncode == 0
    assert "time: none; there is nothing to answer" in rotary("run", root, "--dry-run").stdout
    (root / "new.py").write_text("def new():\n    return 1\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "new")
    said = dry("run", root)
    assert (said["speed"], said["needs"], said["items"]) == ("the last run", None, 3)
    assert 0 < said["seconds"] < 100


def test_a_dry_run_takes_no_lock_and_needs_no_database(make_repository):
    root = make_repository(CODE)
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with driver_lock(database):
        assert dry("run", root)["repositories"][0]["files_to_read"] == 4
        assert rotary("run", root).returncode == 6
    assert not database.exists()
    damaged = b"no database " * 1000
    database.write_bytes(damaged)
    done = rotary("index", root, "--dry-run")
    assert (done.returncode, "not a rotary-batch database" in done.stderr) == (3, True)
    assert database.read_bytes() == damaged


def test_what_a_run_would_refuse(make_repository, tiny_checkpoint):
    root = make_repository(CODE)
    before = everything(Path(os.environ["HOME"]), root)
    for options, code, words in (
        (["--model", tiny_checkpoint], 3, f"run `rotary-batch model pack {tiny_checkpoint} PACK` first"),
        (["--model", "org/name"], 3, "hf download org/name"),
        (["--device-memory", "1MB"], 69, "try --device-memory"),
        ([root / "no"], 3, "no such folder"),
    ):
        done = rotary("run", root, "--dry-run", *options)
        errors = [line for line in done.stderr.splitlines() if line.startswith("rotary-batch: ")]
        assert (done.returncode, len(errors), words in errors[0]) == (code, 1, True), done.stderr
    assert everything(Path(os.environ["HOME"]), root) == before
    assert rotary("index", root, "--model", tiny_checkpoint).returncode == 0  # packs it
    assert dry("run", root, "--model", tiny_checkpoint)["repositories"][0]["files_to_read"] == 0
