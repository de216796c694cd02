"""Git on repositories, and in environments, that mean no good or are damaged."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import zlib
from pathlib import Path

import pytest

import rotary_batch.repo.folder as folder_module
from rotary_batch.errors import RepositoryError, StoppedError
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.plumbing import GitProcess, clean_environment, run_git


def sources(root: Path, **options) -> dict[str, bytes]:
    """Path -> text of all that is read."""
    repository = open_repository(root, **options)
    classify(repository, docs_dir="rotary-docs")
    return {entry.path: data for entry, data in repository.read(repository.entries())}


def object_file(root: Path, oid: str) -> Path:
    return root / ".git" / "objects" / oid[:2] / oid[2:]


ELSEWHERE = {
    "GIT_DIR": "{other}/.git",
    "GIT_WORK_TREE": "{other}",
    "GIT_INDEX_FILE": "{other}/.git/index",
    "GIT_OBJECT_DIRECTORY": "{other}/.git/objects",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": "{other}/.git/objects",
    "GIT_COMMON_DIR": "{other}/.git",
    "GIT_NAMESPACE": "other",
    "GIT_PREFIX": "other/",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.bare",
    "GIT_CONFIG_VALUE_0": "true",
    "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
    "GIT_CONFIG": "{other}/.git/config",
    "GIT_EXEC_PATH": "/nowhere",
    "GIT_DEFAULT_HASH": "sha256",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_REPLACE_REF_BASE": "refs/other",
    "GIT_GRAFT_FILE": "/dev/zero",
    "GIT_SHALLOW_FILE": "/dev/zero",
    "GIT_TRACE": "{other}/trace",
}


@pytest.mark.parametrize("worktree", [False, True])
def test_the_environment_of_a_hook_does_not_reach_git(make_repository, monkeypatch, worktree):
    root = make_repository({"a.py": "x = 1\n"}, name="mine")
    other = make_repository({"b.py": "y = 1\n"}, name="other")
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value.format(other=other))
    repository = open_repository(root, worktree=worktree)
    assert repository.name == "mine"
    assert sources(root, worktree=worktree) == {"a.py": b"x = 1\n"}
    assert not (other / "trace").exists()
    assert not ELSEWHERE.keys() & clean_environment().keys()


def test_nothing_that_a_config_or_attribute_names_is_run(make_repository, git, tmp_path):
    """Monitors, hooks, filters, diff drivers, transports of a promisor, helpers and editors."""
    root = make_repository({"a.py": "x = 1\n", ".gitattributes": "* filter=x diff=x merge=x\n"})
    wire, script = tmp_path / "tripped", tmp_path / "trip.sh"
    script.write_text(f"#!/bin/sh\ntouch {wire}\n")
    script.chmod(0o755)
    (root / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "post-checkout"):
        (root / ".git" / "hooks" / hook).write_bytes(script.read_bytes())
        (root / ".git" / "hooks" / hook).chmod(0o755)
    for name in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.gitProxy",
        "core.editor",
        "core.pager",
        "core.askPass",
        "core.alternateRefsCommand",
        "credential.helper",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.clean",
        "filter.x.smudge",
        "filter.x.process",
        "merge.x.driver",
        "gpg.program",
        "pager.ls-tree",
        "alias.ls-tree",
        "remote.origin.uploadpack",
        "uploadpack.packObjectsHook",
        "sequence.editor",
    ):
        git(root, "config", name, str(script))
    git(root, "config", "core.hooksPath", str(root / ".git" / "hooks"))
    git(root, "config", "protocol.ext.allow", "always")
    git(root, "config", "protocol.file.allow", "always")
    git(root, "config", "core.repositoryFormatVersion", "1")
    git(root, "config", "extensions.partialClone", "origin")
    wire.unlink(missing_ok=True)
    (root / "a.py").write_text("x = 2\n")
    for worktree in (False, True):
        git(root, "config", "remote.origin.url", f"file://{tmp_path}/none")
        assert set(sources(root, worktree=worktree)) == {"a.py", ".gitattributes"}
    object_file(root, git(root, "rev-parse", "HEAD:a.py").strip()).unlink()
    for url in (f"file://{root}", f"ext::{script}", f"ssh://{tmp_path}/x"):  # where the missing object would be fetched
        git(root, "config", "remote.origin.url", url)
        with pytest.raises(RepositoryError, match="a partial clone, which lacks 1 of the objects"):
            sources(root)
    assert not wire.exists()


@pytest.mark.parametrize("filter_name", ["blob:none", "tree:0"])
def test_a_partial_clone_says_what_to_do_and_that_helps(make_repository, git, tmp_path, filter_name):
    origin = make_repository({"pkg/a.py": "x = 1\n", "b.py": "y = 1\n"})
    git(origin, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    command = ["git", "clone", "-q", "--no-checkout", f"--filter={filter_name}", f"file://{origin}", str(clone)]
    subprocess.run(command, check=True)
    with pytest.raises(RepositoryError, match=r"a partial clone, which lacks [0-9]+ of the objects to read") as caught:
        sources(clone)
    advice = re.search(r"`(git .*?)`", str(caught.value))
    subprocess.run(advice.group(1).split(), check=True, capture_output=True)
    assert sources(clone) == {"pkg/a.py": b"x = 1\n", "b.py": b"y = 1\n"}


@pytest.mark.parametrize("damage", ["missing", "cut off", "garbled", "another kind"])
def test_a_damaged_object_is_named_and_never_read_as_an_empty_file(make_repository, git, damage):
    files = {f"m{n:03}.py": "".join(f"def f{n}_{m}(): pass\n" for m in range(400)) for n in range(80)}
    root = make_repository(files)
    for path in ("m007.py", "m070.py"):
        oid = git(root, "rev-parse", f"HEAD:{path}").strip()
        file = object_file(root, oid)
        data = file.read_bytes()
        file.chmod(0o644)
        if damage == "missing":
            file.unlink()
        elif damage == "cut off":
            file.write_bytes(data[: len(data) // 2])
        elif damage == "garbled":
            file.write_bytes(data[:40] + bytes(40) + data[80:])
        else:
            file.write_bytes(zlib.compress(b"tree 3\0abc"))
        with pytest.raises(RepositoryError, match=f"{path} \\({oid}\\).* fsck"):
            sources(root)
    read = []
    repository = open_repository(root)
    with pytest.raises(RepositoryError, match=r"m007\.py .*, m070\.py"):
        read += (entry.path for entry, _ in repository.read(repository.entries()))


def test_a_damaged_tree_and_a_missing_store_of_objects_are_explained(make_repository, git, tmp_path):
    root = make_repository({"pkg/a.py": "x = 1\n"})
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", str(root), str(clone)], check=True)
    assert sources(clone) == {"pkg/a.py": b"x = 1\n"}
    object_file(root, git(root, "rev-parse", "HEAD:pkg").strip()).unlink()
    with pytest.raises(RepositoryError, match=f"{root}: git: "):
        sources(root)
    (root / ".git" / "objects").rename(tmp_path / "away")
    with pytest.raises(RepositoryError, match=f"{clone}: "):
        sources(clone)


def test_replaced_objects_are_read_as_they_were_committed(make_repository, git):
    root = make_repository({"a.py": "x = 1\n"})
    (root / "b.txt").write_text("evil\n")
    git(root, "replace", git(root, "rev-parse", "HEAD:a.py").strip(), git(root, "hash-object", "-w", "b.txt").strip())
    assert sources(root) == {"a.py": b"x = 1\n"}


def test_worktrees_git_files_and_embedded_bare_repositories_are_what_git_says(make_repository, git, tmp_path):
    root = make_repository({"a.py": "x = 1\n"})
    git(root, "worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    assert sources(tmp_path / "second") == sources(tmp_path / "second", worktree=True) == {"a.py": b"x = 1\n"}
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / ".git").write_text(f"gitdir: {tmp_path}/nowhere\n")
    with pytest.raises(RepositoryError, match="not a git repository"):
        open_repository(tmp_path / "points")
    subprocess.run(["git", "clone", "-q", "--bare", str(root), str(root / "vendor.git")], check=True)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "embedded")
    assert sources(root)["a.py"] == b"x = 1\n"
    with pytest.raises(RepositoryError, match="has no working tree"):
        open_repository(root / "vendor.git", worktree=True)


def test_trees_that_name_each_other_are_refused_before_they_are_spelt_out(make_repository, git, monkeypatch):
    """Ten levels of a tree that has the one below ten times: 10^10 files in a few kilobytes."""
    root = make_repository({"a.py": "x = 1\n"})
    oid, kind = git(root, "rev-parse", "HEAD:a.py").strip(), "100644 blob"
    for _ in range(10):
        lines = "".join(f"{kind} {oid}\td{n}\n" for n in range(10))
        command = ["git", "-C", str(root), "mktree"]
        oid = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout.strip()
        kind = "040000 tree"
    commit = git(root, "commit-tree", oid, "-m", "bomb").strip()
    git(root, "reset", "-q", "--soft", commit)
    monkeypatch.setattr(folder_module, "MAX_FOLDERS", 1000)
    with pytest.raises(RepositoryError, match="more than 1,000 folders; name a part of it"):
        sources(root)
    monkeypatch.setattr(folder_module, "MAX_FOLDERS", 10**9)
    monkeypatch.setattr(folder_module, "MAX_ENTRIES", 5000)
    with pytest.raises(RepositoryError, match="more than 5,000 files"):
        sources(root)


def test_a_pipe_in_the_place_of_a_file_stops_nobody(make_repository, git, monkeypatch):
    monkeypatch.setattr("rotary_batch.repo.plumbing.TIMEOUT_S", 1.0)
    root = make_repository({"a.py": "x = 1\n", "b.py": "y = 1\n"})
    (root / "b.py").unlink()
    os.mkfifo(root / "b.py")
    assert sources(root, worktree=True) == {"a.py": b"x = 1\n"}
    os.mkfifo(root / ".gitignore")
    with pytest.raises(RepositoryError, match="gave no answer in 1 s"):
        sources(root, worktree=True)
    blob = object_file(root, git(root, "rev-parse", "HEAD:a.py").strip())
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(RepositoryError, match="gave no answer in 1 s"):
        sources(root)
    (root / ".git" / "HEAD").unlink()
    os.mkfifo(root / ".git" / "HEAD")
    with pytest.raises(RepositoryError, match="gave no answer in 1 s"):
        open_repository(root)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(make_repository, monkeypatch):
    root = make_repository({"a.py": "x = 1\n", "b.py": "y = 1\n"})
    repository = open_repository(root, worktree=True)
    repository.entries()
    (root / "a.py").write_text("x = 2\n")
    found = {file.path: (file.file_class.value, file.reason) for file in classify(repository, docs_dir="d")}
    assert found == {
        "a.py": ("unreadable", "changed or went away while it was read; index again"),
        "b.py": ("source", "source code"),
    }


@pytest.mark.parametrize("command", ["rev-parse", "config", "ls-tree", "cat-file", "ls-files", "check-attr"])
@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, StoppedError), (signal.SIGKILL, RepositoryError)])
def test_a_git_that_a_signal_ended_is_neither_damage_nor_a_no(
    make_repository, tmp_path, monkeypatch, command, number, error
):
    """Here git ends itself in one of the commands, as when systemd ends all processes of a service."""
    root = make_repository({"a.py": "x = 1\n", ".gitattributes": "*.md text\n"})
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    ends = f'for word; do if [ "$word" = {command} ]; then kill -{number} $$; fi; done'
    script.write_text(f'#!/bin/sh\n{ends}\nexec {shutil.which("git")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    opened = (lambda: open_repository(root).notes) if command == "ls-files" else (lambda: sources(root))
    with pytest.raises(error, match=f"git was ended by signal {int(number)} .*run the same command again") as caught:
        opened()
    assert type(caught.value) is error


def test_ctrl_c_in_a_terminal_does_not_reach_git(make_repository):
    root = make_repository({"a.py": "x = 1\n"})
    oid = run_git(root, "rev-parse", "HEAD:a.py")
    before = children()
    with GitProcess(root, "cat-file", "--batch") as process:
        (child,) = children() - before
        assert os.getpgid(int(child)) == int(child) != os.getpgid(0)
        process.write(oid)
        assert process.read_line().split()[1:] == [b"blob", b"6"]


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_git_that_closes_its_output_and_stays_is_given_up(make_repository, tmp_path, monkeypatch):
    monkeypatch.setattr("rotary_batch.repo.plumbing.TIMEOUT_S", 0.5)
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexec >&- sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    with GitProcess(tmp_path, "ls-tree") as process, pytest.raises(RepositoryError, match="gave no answer"):
        process.read_some()
