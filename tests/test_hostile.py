"""A stranger's repository: nothing outside the docs folder changes, none of its programs run, no escape reaches a
terminal or a page, and time and memory stay bounded."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.hostile.attacks import ALONE, CODE, CONFIGURED, FILES, Committed
from tests.hostile.world import REGULAR, World, check

NORMAL: Committed = {b"normal.py": (REGULAR, CODE)}
QUICK = (
    "settings that reach out",
    "a docs folder that is a link",
    "a pattern that takes for ever",
    "docs behind a link",
)
QUICK_CONFIGURED = ("programs in the configuration", "a missing object to be fetched", "FIFOs, sockets and devices")
# Seconds each, of which the default suite needs one: parsers that are killed when their time is over.
SLOW = {"a line of 50 MB", "many lines", "10,000 patterns", "100,000 brackets", "if within if", "a long expression"}


@pytest.fixture
def world(tmp_path):
    yield World(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / "repo"], check=True)  # pytest would do it by recursion, 1,000 folders deep


def some(names, quick):
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.faults) for name in names]


def test_there_are_sixty_attacks():
    assert len(FILES.keys() | ALONE.keys() | CONFIGURED.keys()) >= 60


def together(world: World, names) -> Committed:
    files: Committed = dict(NORMAL)
    for name in names:
        mine = FILES[name](world)
        assert not files.keys() & mine.keys(), name
        files |= mine
    return files


def check_commands(world: World, *commands: tuple[str, ...]) -> None:
    before = world.snapshot()
    for command in commands:
        assert check(world, before, world.run(*command)) == [], command


@pytest.mark.timeout(900)
def test_all_together(world):
    files = together(world, FILES.keys() - SLOW)
    world.commit(files)
    world.check_out(files)
    repo = str(world.repo)
    check_commands(
        world, ("run", "--limit", "8", repo), ("check", repo), ("search", "normal"), ("inspect", "graph", repo)
    )
    assert any(name.startswith("normal.py") for name in world.pages())


@pytest.mark.timeout(3600)
@pytest.mark.faults
def test_all_together_with_every_command(world):
    files = together(world, FILES)
    world.commit(files)
    world.check_out(files)
    repo = str(world.repo)
    check_commands(
        world,
        ("index", repo),
        ("explain", "\x1b]0;owned\x07.py", repo),
        ("status",),
        ("inspect", "files", repo),
        ("inspect", "symbols", repo),
        ("inspect", "graph", repo, "--format", "mermaid"),
        ("search", "normal"),
        ("report",),
        ("index", "--worktree", repo),
        ("run", "--worktree", "--limit", "8", repo),
        ("check", "--worktree", repo),
        ("render", repo),
        ("search", "add"),
        ("report", repo),
        ("verify",),
        ("gc",),
        ("forget", repo),
    )


@pytest.mark.faults
@pytest.mark.parametrize("name", FILES)
def test_each_by_itself(world, name):
    world.commit(NORMAL | FILES[name](world))
    check_commands(world, ("index", str(world.repo)))
    assert any(page.startswith("normal.py") for page in world.pages())


@pytest.mark.parametrize("name", some(ALONE, QUICK))
def test_what_needs_a_repository_of_its_own(world, name):
    files = ALONE[name](world)
    world.commit(NORMAL | files)
    world.check_out(files)
    check_commands(world, ("index", str(world.repo)))
    before = world.snapshot()
    assert check(world, before, world.run("index", "--worktree", cwd=world.repo)) == []


@pytest.mark.parametrize("name", some(CONFIGURED, QUICK_CONFIGURED))
def test_what_stands_in_a_git_folder(world, name):
    files = NORMAL | FILES["attributes with programs"](world)
    world.commit(files)
    world.check_out(files)
    CONFIGURED[name](world)
    repo = str(world.repo)
    check_commands(world, ("index", repo), ("index", "--worktree", repo), ("check", repo))


def test_a_repository_whose_files_are_called_as_our_modules(world):
    """`cd repo && rotary-batch index` ran the repository's `multiprocessing/spawn.py`: a parser process is `python -c`."""
    trip = f"open({str(world.tripwires / 'hit')!r}, 'w').write('ran')\n".encode()
    names = (
        "multiprocessing/__init__",
        "multiprocessing/spawn",
        "random",
        "pickle",
        "torch",
        "typing",
        "rotary_batch/__init__",
        "sitecustomize",
        "re",
    )
    files: Committed = NORMAL | {f"{name}.py".encode(): (REGULAR, trip) for name in names}
    world.commit(files)
    world.check_out(files)
    before = world.snapshot()
    assert check(world, before, world.run("run", "--limit", "1", cwd=world.repo)) == []
    assert "normal.py.md" in world.pages()


def test_variables_of_git_lead_nowhere_else(world):
    """A hook of git has them set."""
    world.commit(NORMAL)
    before = world.snapshot()
    elsewhere = {
        "GIT_DIR": str(world.canary),
        "GIT_WORK_TREE": str(world.canary),
        "GIT_EXTERNAL_DIFF": str(world.script),
        "GIT_PAGER": str(world.script),
    }
    assert check(world, before, world.run("index", str(world.repo), **elsewhere)) == []
    assert "normal.py.md" in world.pages()


def test_a_terminal_that_knows_escapes_gets_only_ours(world):
    world.commit(together(world, [name for name in FILES if "name" in name or "docstring" in name]))
    before = world.snapshot()
    assert check(world, before, world.run("index", str(world.repo), term="xterm-256color")) == []


def test_the_check_finds_what_it_looks_for(world):
    """None of the tests above could pass by looking at nothing."""
    world.commit(NORMAL)
    before = world.snapshot()
    outcome = world.run("index", str(world.repo))
    assert check(world, before, outcome) == []
    (world.canary / "new").write_text("x")
    (world.tripwires / "hit").write_text("x")
    page = world.repo / "rotary-docs" / "normal.py.md"
    page.write_text(page.read_text() + "<script>alert(1)</script> \x1b[2J TOP-SECRET-WORDS\n")
    loud = type(outcome)(1, b"\x1b]0;x\x07 Traceback", 1.0, 10**12)
    assert len(check(world, before, loud)) == 10
    assert os.path.lexists(world.canary / "new")
