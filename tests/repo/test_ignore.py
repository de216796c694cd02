"""Patterns mean what git says that they mean, and none of them takes long."""

from __future__ import annotations

import os
import random
import subprocess

import pytest

from rotary_batch.errors import InputError, StoppedError
from rotary_batch.repo.files import classify
from rotary_batch.repo.folder import UNREADABLE_FOLDER, PlainFolder
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.ignore import MAX_PATTERNS, IgnorePatterns

WORDS = [
    "a",
    "b",
    "ab",
    ".py",
    "*",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[a-c]",
    "[]a]",
    "[^b]",
    "\\*",
    "\\a",
    " ",
    "-",
    "x",
    "!",
    "[[:alpha:]]",
    "[[:digit:]-z]",
    "[a",
    "é",
    "#",
    "\\ ",
]
NAMES = ["a", "b", "ab", "x", "a.py", "b.py", "ab.py", "aab", "ba", "c", "é", "a b", "-", "a*", "]", "1", "#a", "a "]


def a_pattern(chance: random.Random) -> str:
    """Git's own matcher reads `b**/` as if `**` began a name; here two stars stand alone or in a lone name."""
    names = []
    for _ in range(chance.choice([1, 1, 2, 3, 4])):
        word = "".join(chance.choice(WORDS) for _ in range(chance.randint(1, 5)))
        names.append("**" if chance.random() < 0.2 else word)
    if len(names) == 1 and chance.random() < 0.2:
        names[0] = names[0].replace("*", "**")
    return chance.choice(["", "", "!"]) + chance.choice(["", "", "/"]) + "/".join(names) + chance.choice(["", "", "/"])


def git_says(root, lines: list[str], paths: list[str]) -> dict[str, bool]:
    (root / ".gitignore").write_text("\n".join(lines) + "\n")
    command = ["git", "-C", str(root), "check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"]
    fields = subprocess.run(command, input="\0".join(paths).encode(), capture_output=True).stdout.split(b"\0")
    found = zip(fields[2::4], fields[3::4], strict=True)
    return {path.decode(): bool(pattern) and not pattern.startswith(b"!") for pattern, path in found}


def test_patterns_match_as_git_matches_them(tmp_path, git):
    git(tmp_path, "init", "-q")
    ignored = 0
    for seed in range(300):
        chance = random.Random(seed)
        lines = [a_pattern(chance) for _ in range(chance.randint(1, 4))]
        paths = sorted({"/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 5))) for _ in range(40)})
        patterns = IgnorePatterns(lines, ".gitignore")
        expected = git_says(tmp_path, lines, paths)
        assert {path: patterns.matches(path) for path in paths} == expected, (seed, lines)
        ignored += sum(expected.values())
    assert ignored > 1000


def test_a_plain_folder_is_read_as_git_reads_it(tmp_path, git):
    """Nested .gitignore files at random places: what is found is what git finds untracked."""
    for seed in range(20):
        chance, root = random.Random(seed), tmp_path / str(seed)
        for _ in range(30):
            path = root / "/".join(chance.choice("abc") for _ in range(chance.randint(1, 4)))
            target = path / chance.choice(["a.py", "b.py", "x.log", ".gitignore"])
            if not any(parent.is_file() for parent in target.parents):
                target.parent.mkdir(parents=True, exist_ok=True)
                words = ["a/", "!a.py", "*.py", "b/*.py", "/c", "*.log", "!x.log", "**/b", "a/**"]
                target.write_text("\n".join(chance.sample(words, 3)) + "\n")
        git(root, "init", "-q")
        listed = git(root, "ls-files", "-z", "-o", "--exclude-standard").split("\0")[:-1]
        assert [entry.path for entry in PlainFolder(root).entries()] == sorted(listed), seed


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a*" * 40 + "b", "a" * 200, False),
        ("a*" * 450, "a" * 4000, True),
        ("[a-z]*" * 150 + "!", "a" * 3000, False),
        ("**/*a*/" * 100 + "x", "aaaa/" * 800 + "y", False),
        ("**/a*" * 40, "a/" * 60 + "b", True),
    ],
)
def test_no_pattern_takes_longer_than_its_length_times_that_of_the_path(pattern, path, expected):
    """Tried every way, the first of them takes years."""
    assert IgnorePatterns([pattern], "x").matches(path) is expected


def test_too_many_and_too_long_patterns_are_refused_by_name():
    with pytest.raises(InputError, match=r"a/\.gitignore: 1,001 patterns; the limit is 1,000"):
        IgnorePatterns(["x"] * (MAX_PATTERNS + 1), "a/.gitignore")
    with pytest.raises(InputError, match=r"a pattern of 2,000 bytes; the limit is 1,000"):
        IgnorePatterns(["#" * 5000, "x" * 2000], "a/.gitignore")
    with pytest.raises(InputError, match=r"a/\.gitignore: patterns of 64,001 bytes; the limit is 64,000"):
        IgnorePatterns([*["x" * 1000] * 64, "y", "# " * 5000], "a/.gitignore")
    assert IgnorePatterns([*["x" * 1000] * 64, "# " * 5000], "a/.gitignore").matches("x" * 1000)


@pytest.mark.parametrize("asked", [1, 30, 59, 60, 61, 62])
def test_a_window_that_closes_ends_the_classification_at_that_folder_or_file(make_repository, asked):
    """A path 60 folders deep is asked about 60 times, as every folder is; then the last name, then its content."""
    root = make_repository({"d/" * 60 + "a.py": "x = 1\n", ".rotaryignore": "*b*\n"})
    calls = iter(range(1, 1000))
    with pytest.raises(StoppedError):
        classify(open_repository(root), docs_dir="d2", should_stop=lambda: next(calls) >= asked)
    assert next(calls) == asked + 1
    calls = iter(range(1000))
    assert len(classify(open_repository(root), docs_dir="d2", should_stop=lambda: next(calls) >= 63)) == 2
    assert next(calls) == 63


def test_a_thousand_nested_folders_are_read_with_and_without_git(deep_folder, git):
    folder = deep_folder
    path = "/".join(["d"] * 1000)
    subprocess.run(["mkdir", "-p", str(folder / path)], check=True)
    (folder / path / "a.py").write_text("x = 1\n")
    assert [entry.path for entry in PlainFolder(folder).entries()] == [f"{path}/a.py"]
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "deep")
    for worktree in (False, True):
        assert [entry.path for entry in open_repository(folder, worktree=worktree).entries()] == [f"{path}/a.py"]


@pytest.fixture
def deep_folder(tmp_path):
    """What is nested a thousand deep is taken away by `rm`; Python's own rmtree cannot."""
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", str(tmp_path / "deep")], check=True)


def test_a_folder_that_may_not_be_read_is_named_and_the_rest_is_read(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    (tmp_path / "b.py").write_text("x = 1\n")
    scandir = os.scandir

    def refuse(path):  # root may read everything
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("rotary_batch.repo.folder.os.scandir", refuse)
    folder = PlainFolder(tmp_path)
    kinds = {entry.path: entry.mode == UNREADABLE_FOLDER for entry in folder.entries()}
    assert kinds == {"b.py": False, "shut": True}
    assert folder.notes[1:] == ("shut: Permission denied; nothing in it is read",)


@pytest.mark.timeout(60)
def test_a_repositorys_own_patterns_hold_nothing_up_and_are_honoured(make_repository):
    patterns = "a*" * 40 + "b\nskipped/\n!skipped/a.py\n**/gen_*.py\n"
    files = {"a" * 200 + ".py": "x = 1\n", "skipped/a.py": "x = 1\n", "pkg/gen_x.py": "x = 1\n", "pkg/b.py": "x = 1\n"}
    root = make_repository(files | {".rotaryignore": patterns})
    found = {file.path: file.file_class.value for file in classify(open_repository(root), docs_dir="rotary-docs")}
    assert found == {
        "a" * 200 + ".py": "source",
        "skipped/a.py": "ignored",
        "pkg/gen_x.py": "ignored",
        "pkg/b.py": "source",
        ".rotaryignore": "text",
    }
