"""`docstrings`: answers about symbols as a patch that git applies, or in a clean working tree."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.test_cli import answer, rotary

CODE = {
    "pkg/my box.py": "#!/usr/bin/env python\n\ndef put(thing, rows):\n    row = rows[thing]\n    row.add(thing)\n    return row\n",
    "pkg/take.js": "function take(box, n) {\n  const all = box.rows(n)\n  return all.pop()\n}\n\nmodule.exports = take",
    "pkg/told.py": 'def told(a, b):\n    """Says so."""\n    c = a + b\n    return c * a\n',
}
DOCUMENTED = CODE | {
    "pkg/my box.py": CODE["pkg/my box.py"].replace("    row = ", '    """Does it all."""\n    row = '),
    "pkg/take.js": "/** Does it all. */\n" + CODE["pkg/take.js"],
}


@pytest.fixture
def asked(make_repository, git) -> Path:
    """A repository whose symbols have answers that are shown."""
    root = make_repository(CODE)
    (root / "pkg" / "my box.py").chmod(0o755)
    git(root, "commit", "-qam", "mode")
    answer("run", root, "--job", "summarize")
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        changed = db.execute("update item set verdict = 'shown', shown_text = 'Does it all.' where unit = 'symbol'")
        assert changed.rowcount == 2  # what its author has told is not asked
    return root


def sources(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in CODE}


def test_the_patch_is_one_that_git_applies(asked, git):
    made = answer("docstrings", asked)
    patch = asked / "rotary-docs" / "patches" / "docstrings.patch"
    assert made == {
        "patch": str(patch),
        "files": ["pkg/my box.py", "pkg/take.js"],
        "symbols": 2,
        "answers": 2,
        "applied": False,
    }
    assert sources(asked) == CODE
    subprocess.run(["git", "-C", str(asked), "apply", str(patch)], check=True)
    assert sources(asked) == DOCUMENTED
    git(asked, "commit", "-qam", "docs")
    answer("run", asked)
    assert answer("docstrings", asked)["files"] == []
    assert not patch.exists()


def test_applied_to_a_clean_tree_it_is_the_same_and_keeps_modes(asked):
    made = answer("docstrings", asked, "--apply")
    assert (made["applied"], made["patch"], made["symbols"]) == (True, None, 2)
    assert sources(asked) == DOCUMENTED
    assert (asked / "pkg" / "my box.py").stat().st_mode & 0o777 == 0o755


def test_a_tree_with_changes_is_left_as_it_is(asked):
    (asked / "pkg" / "told.py").write_text("x = 1\n")
    done = rotary("docstrings", asked, "--apply")
    assert done.returncode == 3
    assert "has uncommitted changes; commit them first" in " ".join(done.stderr.split())
    assert sources(asked) == CODE | {"pkg/told.py": "x = 1\n"}


def test_a_link_in_the_place_of_a_file_is_not_followed(asked, git, tmp_path):
    """It was put there by a commit after the index."""
    outside = tmp_path / "outside.js"
    outside.write_text(CODE["pkg/take.js"])
    (asked / "pkg" / "take.js").unlink()
    (asked / "pkg" / "take.js").symlink_to(outside)
    git(asked, "commit", "-qam", "link")
    made = answer("docstrings", asked, "--apply")
    assert made["files"] == ["pkg/my box.py"]
    assert outside.read_text() == CODE["pkg/take.js"]


def test_without_answers_it_says_what_to_run(make_repository):
    root = make_repository(CODE)
    answer("index", root)
    done = rotary("docstrings", root)
    assert (done.returncode, "There are no answers about symbols yet" in done.stdout) == (0, True)
