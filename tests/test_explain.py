"""`explain` answers for whatever path a person types, and says what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rotary_batch.cli import app

CODE = {
    "src/box.py": "def put():\n    return 1\n",
    "src/lid.py": "x = 1\n",
    "vendor/dep.py": "x = 1\n",
    "notes.xyz": "hello\n",
    ".gitignore": "*.log\nout/\n",
    ".rotaryignore": "src/lid.py\n",
}


@pytest.fixture
def project(make_repository, git, tmp_path) -> Path:
    """With files that git ignores, does not know, or that are another repository's."""
    root = make_repository(CODE)
    inner = make_repository({"inner.py": "x = 1\n"}, "project/nested")
    library = make_repository({"lib.py": "x = 1\n"}, "library")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "deps/library")
    (root / "link.py").symlink_to("src/box.py")
    (root / "linked").symlink_to("src")
    git(root, "add", "deps", ".gitmodules", "link.py", "linked")
    git(root, "commit", "-qm", "more")
    (root / "new.py").write_text("x = 1\n")
    (root / "debug.log").write_text("x\n")
    (root / "out").mkdir()
    (root / "out/made.py").write_text("x = 1\n")
    (root / "rotary-docs").mkdir()
    (root / "rotary-docs/index.md").write_text("x\n")
    (root / "untracked-link").symlink_to(tmp_path)
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    assert inner.is_dir()
    return root


def explained(*arguments: object) -> tuple[str, str]:
    """Class, and reason with advice."""
    done = CliRunner().invoke(app, ["explain", *map(str, arguments), "--json"])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    answer = json.loads(done.stdout)
    return answer["class"], f"{answer['path']}: {answer['reason']}; {answer['advice']}"


def refused(*arguments: object) -> BaseException:
    error = CliRunner().invoke(app, ["explain", *map(str, arguments)]).exception
    assert error is not None
    return error


ANSWERS = {
    "src/box.py": ("source", "src/box.py: source code; nothing to do"),
    "./src/../src//box.py": ("source", "src/box.py: source code"),
    "src/box.py:12": ("source", "src/box.py: source code"),
    "src/lid.py": ("ignored", "matches a line of .rotaryignore; change .rotaryignore"),
    "vendor/dep.py": ("vendored", "write `vendor/dep.py linguist-vendored=false` into .gitattributes"),
    "notes.xyz": ("text", "no grammar for .xyz; nothing to do"),
    "src": ("folder", "src: a folder with files: 1 source, 1 ignored; explain one of them"),
    "src/": ("folder", "src: a folder with files"),
    ".": ("folder", ".: a folder with files"),
    "link.py": ("symlink", "explain the file that it leads to"),
    "linked/box.py": ("symlink", "below the symbolic link linked"),
    "untracked-link/x": ("symlink", "below the symbolic link untracked-link"),
    "deps/library": ("submodule", "index it as its own repository: `rotary-batch index ROOT/deps/library`"),
    "deps/library/lib.py": ("submodule", "then `rotary-batch explain lib.py ROOT/deps/library`"),
    "deps/library/gone.py": ("submodule", "in the submodule deps/library"),
    "nested/inner.py": ("nested-repository", "`rotary-batch index ROOT/nested`, then `rotary-batch explain inner.py"),
    "nested": ("nested-repository", "index it as its own repository: `rotary-batch index ROOT/nested`"),
    "new.py": ("untracked", "commit it, or read the files as they are with --worktree"),
    "debug.log": ("ignored", "git ignores it: .gitignore, line 1: *.log; change that line"),
    "out/made.py": ("ignored", "git ignores it: .gitignore, line 2: out/"),
    "out": ("ignored", "git ignores it: .gitignore, line 2: out/"),
    "rotary-docs/index.md": ("docs", "holds the generated docs; explain its source"),
    ".git/config": ("ignored", "in git's own folder"),
    "pipe": ("special", "neither a file, a folder nor a link"),
    "empty": ("folder", "an empty folder"),
}


def differences(root: Path, *prefix: str) -> dict[str, tuple[str, str]]:
    """The answers that are not as they should be, for paths behind a prefix."""
    wrong = {}
    for path, (file_class, words) in ANSWERS.items():
        if prefix and path.startswith(("nested", "deps")):  # from elsewhere, these are about those repositories
            continue
        answer = explained("/".join((*prefix, path)), *([] if prefix else [root]))
        if answer[0] != file_class or words.replace("ROOT", str(root)) not in answer[1]:
            wrong[path] = answer
    return wrong


def test_every_kind_of_path_is_explained(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert differences(project) == {}


def test_a_path_may_be_absolute_or_relative_to_this_folder(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert differences(project, str(project)) == {}
    assert differences(project, "project") == {}
    assert explained("project/nested/inner.py")[0] == explained(project / "deps/library/lib.py")[0] == "source"
    monkeypatch.chdir(project / "src")
    assert explained("box.py")[0] == "source"
    assert explained("notes.xyz")[0] == "text"  # of the repository, as no other has that name
    assert explained("../notes.xyz")[0] == "text"
    (project / "by-another-way").symlink_to(project)
    (tmp_path / "way").symlink_to(project)
    monkeypatch.chdir(tmp_path / "way" / "src")
    assert explained(tmp_path / "way/src/box.py")[1].startswith("src/box.py:")
    assert explained(project / "by-another-way/src/box.py")[0] == "symlink"


def test_in_a_working_tree_what_git_does_not_know_is_read(project):
    assert explained("new.py", project, "--worktree")[0] == "source"
    assert explained("debug.log", project, "--worktree")[0] == "ignored"
    assert explained("pipe", project, "--worktree")[0] == "special"


def test_a_folder_without_git_is_explained_too(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.py").write_text("x = 1\n")
    (plain / "b.log").write_text("x\n")
    (plain / ".gitignore").write_text("*.log\n")
    assert explained("a.py", plain)[0] == "source"
    assert explained("b.log", plain) == (
        "ignored",
        "b.log: empty, or a .gitignore leaves it out; change that .gitignore",
    )


def test_a_path_that_is_not_there_is_an_error_that_helps(project, make_repository, monkeypatch, tmp_path):
    other = make_repository({"z.py": "x = 1\n"}, "other")
    monkeypatch.chdir(project)
    for typed, words in {
        "BOX.py": "did you mean src/box.py?",
        "lib/box.py": "did you mean src/box.py?",
        "never.py": "`rotary-batch inspect files` lists what there is",
        "src/box.py/x": "no such file",
        "caf\udce9.py": "no such file",
    }.items():
        error = refused(typed)
        assert (error.exit_code, words in str(error)) == (3, True), (typed, error)
    assert f"it is in {other}; name that repository" in str(refused(other / "z.py", project))
    assert f"not inside {project}; name the repository that holds it" in str(refused("/etc/hostname", project))
    assert explained(other / "z.py")[0] == "source"
    monkeypatch.chdir(tmp_path)
    assert refused("nowhere.py").exit_code == 3
    assert refused("x.py", tmp_path / "gone").exit_code == 3


def test_names_that_are_no_utf8_or_look_like_options_of_git_are_explained(make_repository, git):
    names = {b"caf\xe9.py": "unreadable", b":(top)x.py": "source", b"#x.log": "ignored", b"!y.log": "ignored"}
    root = make_repository({".gitignore": "*.log\n"})
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x = 1\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "names")
    (root / ":(exclude)z.log").write_text("x\n")
    answers = {name: explained(os.fsdecode(name), root)[0] for name in names}
    assert answers == names
    assert "line 1: *.log" in explained(":(exclude)z.log", root)[1]
