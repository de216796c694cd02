"""The commonest mistakes: each is answered with one line, which names the fact and says what to write instead."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rotary_batch.work.lock import driver_lock

# A mistake is (the folder where it is typed, what is typed, the exit code, the line without `rotary-batch: `).  In it HERE
# is the folder that the fixture `world` makes, STATE the state folder, and LONG has the words that several lines share.
COMMANDS = [
    (".", "rnu app", 2, "no such command 'rnu'; did you mean 'run'?"),
    (".", "xyzzy", 2, "no such command 'xyzzy'; `rotary-batch --help` lists them"),
    (".", "app", 2, "no such command 'app'; to document that folder, write `rotary-batch run app`"),
    (".", "model inf", 2, "no such command 'inf'; did you mean 'info'?"),
    (".", "run app --untill 07:00", 2, "no such option '--untill'; did you mean '--until'?"),
    (".", "run --xyzzy", 2, "no such option '--xyzzy'; `rotary-batch run --help` lists them"),
    (".", "run -x", 2, "no such option '-x'; `rotary-batch run --help` lists them"),
    (".", "--quiet run", 2, "no such option '--quiet'; write --quiet after the command"),
    (".", "run --until", 2, "--until: a value is missing; write --until HH:MM"),
    (".", "run --json=3", 2, "--json: takes no value"),
    (".", "doctor app", 2, "unexpected: app; `rotary-batch doctor --help` shows how"),
    (".", "search", 2, "TEXT... is missing; `rotary-batch search --help` shows how"),
    (".", "export", 2, "name one file to write: --sqlite FILE, --requests FILE or --answers FILE"),
]
FOLDERS = [
    (".", "index", 3, "HERE: not inside a git repository; name a repository or a folder"),
    (".", "index no", 3, "HERE/no: no such folder; name the folder of a repository"),
    (".", "index file", 3, "HERE/file: not a folder; name the folder of a repository"),
    (".", "index ~/app", 3, "HERE/~/app: no such folder; write ~ outside quotes, so that the shell replaces it"),
    (
        ".",
        r"index C:\app",
        3,
        r"HERE/C:\app: no such folder; this is a Windows path; in WSL the drive C: is /mnt/c",
    ),
    (".", "check unborn", 3, "HERE/unborn: no commits yet; commit something, or read the files with --worktree"),
    ("app", "index --out ../docs", 2, "--out: '../docs' cannot be the docs folder; DOCS_ALONE"),
    ("app", "index --out .", 2, "--out: '.' cannot be the docs folder; DOCS_ALONE"),
    (
        "app",
        "index -q --out a.py",
        3,
        "HERE/app/a.py: a file, not a folder; docs go into real folders only; name another folder with --out",
    ),
    ("app", "explain b.py", 3, "b.py: no such file, neither on disk nor among the files of HERE/app; LISTS"),
    ("app", "explain /etc/passwd", 3, "/etc/passwd: not inside HERE/app; name the repository that holds it"),
    ("app", "trust", 3, "HERE/app/rotary.toml: no such file; there is nothing to trust"),
]
BEFORE_INDEX = [
    ("app", command, 3, "STATE/work.db: no database yet, since nothing is indexed; run `rotary-batch index REPO` first")
    for command in ("drain", "render", "search box", "plan", "report", "status", "retry", "inspect files", "site")
]
SETTINGS = [
    (".", "run --config no.toml", 3, "no.toml: No such file or directory; name a readable file with --config"),
    (".", "run --config key.toml", 3, "key.toml: unknown key 'modle'; did you mean 'model'?"),
    (
        ".",
        "run --config unit.toml",
        3,
        'unit.toml: device_memory: 22 has no unit; write it in quotes, for example "22GB"',
    ),
    (".", "run --config bad.toml", 3, "bad.toml: not valid TOML: Invalid value (at end of document)"),
    (
        "app",
        "run -q --job sumarize",
        3,
        "HERE/app: no job named 'sumarize'; the jobs are api, onboarding, summarize-small, summarize",
    ),
    (".", "run --numerics quick", 2, "--numerics: 'quick' is not one of exact, fast"),
    (".", "run --numerics exat", 2, "--numerics: 'exat' is not one of exact, fast; did you mean 'exact'?"),
    (".", "inspect fils", 2, "KIND: 'fils' is not one of files, symbols, chunks, items, graph; did you mean 'files'?"),
    (".", "run --max-batch 0", 2, "--max-batch: '0' is not a whole number of at least 1"),
    (".", "run --limit ten", 2, "--limit: 'ten' is not a whole number of at least 1"),
    (".", "search x --limit 0", 2, "--limit: '0' is not a whole number from 1 to 1000"),
    (".", "run --until 7", 2, "--until: '7' is not a time of day; write HH:MM, for example 07:00"),
    (".", "run --until 25:00", 2, "--until: '25:00' is not a time of day; write HH:MM, for example 07:00"),
    (".", "run --for 8", 2, "--for: '8' is not a duration; write for example 90s, 30m or 1h30m"),
    (".", "run --for 0m", 2, "--for: '0m' is not a duration; write for example 90s, 30m or 1h30m"),
    (".", "run --db app", 2, "--db: 'app' is a folder; name a file in it"),
    ("app", "run --log .", 74, "--log: .: Is a directory; name another file"),
    (
        ".",
        "run --link-template https://host/x",
        2,
        "--link-template: 'https://host/x' has no {path}; write for example https://host/{path}#L{start}-L{end}",
    ),
]
MODELS = [
    ("app", "run -q --model no", 3, "HERE/app: no: no such folder; name the folder of a pack or of a checkpoint"),
    ("app", "run -q --model a.py", 3, "HERE/app: a.py: not a folder; name the folder of a pack or of a checkpoint"),
    (
        "app",
        "run -q --model ../unborn",
        3,
        "HERE/app: ../unborn: neither a pack nor a checkpoint, since it has no manifest.json, no config.json and no "
        "GGUF file; name another folder",
    ),
    (
        "app",
        "run -q --model ../adapter",
        3,
        "HERE/app: ../adapter: a LoRA adapter, not a model; merge it: model pack MODEL PACK --adapter ../adapter",
    ),
    (
        "app",
        "model info org/name",
        3,
        "org/name: no such folder, and rotary-batch downloads nothing; get it with `hf download org/name --local-dir name` "
        "(from `pip install huggingface-hub`), then name the folder name",
    ),
    (".", "run --device gpu", 2, "--device: 'gpu' is not a device; use cpu, cuda or cuda:N"),
    (".", "run --device-memory 22", 2, "--device-memory: 22 has no unit; write for example 22GB"),
    (
        ".",
        "run --device-memory 22XB",
        2,
        "--device-memory: '22XB' is not a size; write for example 512MB, 22GB or 64GiB",
    ),
]
LATER = [  # when the repository is indexed
    (
        "app",
        "render --accept mine a.py.md",
        2,
        "--accept: 'mine' is not one of ours, theirs; write --accept [ours|theirs] PAGE",
    ),
    (
        "app",
        "render --accept ours no.md",
        3,
        "HERE/app/rotary-docs/no.md: no such page; name it relative to HERE/app/rotary-docs",
    ),
    ("app", "render ../unborn", 3, "HERE/unborn: not indexed yet; run `rotary-batch index HERE/unborn` first"),
    ("app", "drain -q ../no", 3, "HERE/no: no such folder; name the folder of a repository"),
    ("app", "report", 3, "no run yet; `rotary-batch drain` makes one"),
]
LONG = {
    "DOCS_ALONE": "name a folder inside the repository for docs alone, or /PATH",
    "LISTS": "`rotary-batch inspect files` lists what there is",
}


def shortened(part: object) -> str:
    return str(part)[:40]


def rotary(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | environment, timeout=200
    )


@pytest.fixture
def world(make_repository, git, tmp_path) -> Path:
    """A folder with a repository, one without commits, a file, and settings files."""
    make_repository({"a.py": "def box():\n    return 1\n"}, name="app")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "unborn").mkdir()
    git(tmp_path / "unborn", "init", "-q")
    (tmp_path / "file").write_text("")
    for name, text in {"key": 'modle = "x"', "unit": "device_memory = 22", "bad": "model = "}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def expected(line: str, world: Path) -> str:
    for name, text in LONG.items():
        line = line.replace(name, text)
    state = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch"
    return line.replace("HERE", str(world)).replace("STATE", str(state))


@pytest.fixture
def indexed(world) -> Path:
    """The same, with the repository in the database."""
    assert rotary(world, "index", "app").returncode == 0
    return world


def check_line(done: subprocess.CompletedProcess[str], code: int, line: str, world: Path) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"rotary-batch: {expected(line, world)}\n")


@pytest.mark.parametrize(
    ("where", "typed", "code", "line"), [*COMMANDS, *FOLDERS, *BEFORE_INDEX, *SETTINGS, *MODELS], ids=shortened
)
def test_a_mistake_is_one_line_that_says_what_to_write(where, typed, code, line, world):
    check_line(rotary(world / where, *typed.split()), code, line, world)


@pytest.mark.parametrize(("where", "typed", "code", "line"), LATER, ids=shortened)
def test_a_mistake_after_an_index_is_one_line_too(where, typed, code, line, indexed):
    check_line(rotary(indexed / where, *typed.split()), code, line, indexed)


def test_the_same_line_is_the_answer_in_json(world):
    done, message = rotary(world, "--json", "status"), "no such option '--json'; write --json after the command"
    assert (done.returncode, done.stderr) == (2, f"rotary-batch: {message}\n")
    assert json.loads(done.stdout) == {"error": {"message": message, "exit_code": 2}}


def test_a_setting_in_the_environment_is_named_as_there(world):
    done = rotary(world, "status", ROTARY_BATCH_MAX_BATSH="1")
    check_line(done, 3, "environment (ROTARY_BATCH_*): unknown key 'max_batsh'; did you mean 'max_batch'?", world)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_card_that_is_not_there(world):
    line = f"HERE/app: --device cuda: torch {torch.__version__} finds no CUDA device; use --device cpu"
    check_line(rotary(world, "run", "-q", "app", "--device", "cuda"), 69, line, world)


def test_too_little_memory(world):
    line = (
        "HERE/app: rotary-demo needs 13.4 MB of device memory (dense part 7.4 MB, 2 slots of 0.2 MB, KV cache of 1,024 "
        "tokens), but only 1.0 MB is allowed; try --device-memory 14MB"
    )
    check_line(rotary(world, "run", "-q", "app", "--device-memory", "1MB"), 69, line, world)


def test_a_second_run_names_the_first(indexed):
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with driver_lock(database):
        done = rotary(indexed, "run", "app")
    pid = os.getpid()
    line = f"STATE/work.db: another run holds this database (process {pid}); wait for it, or stop it with `kill {pid}`"
    check_line(done, 6, line, indexed)


def test_a_run_that_could_not_begin_says_how_to_go_on(world):
    """The line is on stderr; stdout has the end of the run, as always."""
    done = rotary(world, "run", "no")
    assert (done.returncode, done.stderr) == (
        3,
        expected("rotary-batch: HERE/no: no such folder; name the folder of a repository\n", world),
    )
    ended, following, report = done.stdout.splitlines()
    assert re.fullmatch(r"Failed at \d\d:\d\d\.", ended)
    assert following == f"Next: once that is fixed, `rotary-batch run {world}/no` continues from here."
    assert report.startswith(expected("Report: STATE/reports/", world))


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("drain", "Nothing to do; nothing is indexed yet."),
        ("plan", "Nothing is indexed yet; run `rotary-batch index REPO`."),
        ("status", "Nothing is indexed yet; run `rotary-batch index REPO`."),
        ("search box", "Nothing is indexed yet; run `rotary-batch index REPO`."),
        ("retry", "Nothing to do; no item is parked."),
        ("gc", "Nothing to delete."),
    ],
)
def test_a_command_with_nothing_to_do_says_so(typed, line, indexed):
    """Not a mistake, and so no error."""
    assert rotary(indexed, "forget", "app").returncode == 0
    done = rotary(indexed, *typed.split())
    assert (done.returncode, (done.stdout or done.stderr).splitlines()[0]) == (0, line)
