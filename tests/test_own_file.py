"""A repository's own rotary.toml is a stranger's data: what counts of it, and that nothing in it ends a night."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch import cli
from rotary_batch.config import LINK_FIELD, bundled
from rotary_batch.own_file import HARMLESS, MAX_NBYTES, OwnSettings, read_own

CODE = {
    "pkg/a.py": "def a(x):\n    y = x + 1\n    return y * x\n",
    "pkg/b.py": "def b(x):\n    y = x - 1\n    return y * x\n",
    "tests/t.py": "x = 1\n",
}


@pytest.fixture
def rotary(monkeypatch, capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["rotary-batch", *map(str, arguments)])
            if cwd is not None:
                patch.chdir(cwd)
            code = 0
            try:
                cli.main()
            except SystemExit as error:
                code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def index(rotary, tmp_path):
    """Index repositories; what --json says of each, without the note that counts uncommitted changes."""

    def run(*repos: Path, cwd: Path = tmp_path) -> list[dict]:
        code, out, err = rotary("index", *repos, "--json", cwd=cwd)
        assert code == 0, err
        outcomes = json.loads(out)
        for row in outcomes:
            row["notes"] = [note for note in row["notes"] if "uncommitted" not in note]
        return outcomes

    return run


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def settings_file(**values: object) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def test_harmless_keys_count_and_all_others_are_named_and_touch_nothing(make_repository, index, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("keep.lock", "keep", "jobs.toml", "prompt.md"):
        (outside / name).write_text(f"the user's {name}\n")
    before = everything_below(outside)
    hostile = {
        "db": f"{outside}/keep",
        "model": str(outside),
        "jobs": str(outside),
        "prompts": str(outside),
        "worktree": True,
        "device": "cuda",
        "device_memory": "1GB",
        "host_memory": "1GB",
        "max_batch": 1,
        "numerics": "fast",
        "kv": "int8",
        "experts": "int4",
        "unknown": 1,
    }
    harmless = {"out": "docs/api", "exclude": ["tests/"], "link_template": "https://e.org/x/{path}#L{start}-L{end}"}
    root = make_repository(CODE | {"rotary.toml": settings_file(**hostile, **harmless)})
    (outcome,) = index(root)
    assert everything_below(outside) == before
    (note,) = outcome["notes"]
    assert note.startswith(f"{root}/rotary.toml: ignored: db, device, ")
    assert ("and counts" in note, "3 other keys" in note, f"`rotary-batch trust {root}`" in note) == (False, True, True)
    assert (outcome["docs"], outcome["files"]) == (f"{root}/docs/api", {"ignored": 1, "source": 3})
    assert outcome["model"] != "tiny"
    page = (root / "docs/api/pkg/a.py.md").read_text()
    assert "https://e.org/x/pkg/a.py#L1-L3" in page


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert(1)//{path}",
        "http://e.org/{path}",
        "https://user@e.org/{path}",
        "https://{path}.e.org/",
        "https://e.org/{start:>3000000000}",
        "https://e.org/{path!r}",
        "https://e.org/{path.__class__}",
        "https://e.org/{path[0]}",
        "https://e.org/{}",
        "https://e.org/{{path}}",
        "https://e.org/)<script>{path}",
        'https://e.org/{path}"onclick="',
        "https://e.org/a b",
        "https://e.org/\u202e{path}",
        "https://e.org/`{path}",
        "https://e.org/" + "a" * 300,
        "data:text/html,{path}",
        "//e.org/{path}",
        "https:/{path}",
        "",
    ],
)
def test_a_link_of_a_repository_is_a_plain_https_link(template, tmp_path):
    (tmp_path / "rotary.toml").write_text(settings_file(link_template=template), encoding="utf-8")
    values, notes = read_own(tmp_path, os.environ)
    assert (values, len(notes)) == ({}, 1)
    assert "link_template" in notes[0]
    assert "e.org" not in notes[0]


@pytest.mark.parametrize(
    "out",
    [
        "/tmp/x",
        "../x",
        "a/../../x",
        "~/x",
        "~",
        ".git",
        ".git/hooks",
        ".GIT/hooks",
        "a/.git",
        ".github/workflows",
        "",
        ".",
        "a\\b",
        "a\nb",
        "é",
        "a" * 201,
        "/".join("abcdefghij"),
        "$HOME",
        "-rf",
    ],
)
def test_a_docs_folder_of_a_repository_is_below_it_by_plain_names(out, tmp_path):
    (tmp_path / "rotary.toml").write_text(settings_file(out=out), encoding="utf-8")
    values, notes = read_own(tmp_path, os.environ)
    assert (values, len(notes)) == ({}, 1)
    assert notes[0].startswith(f"{tmp_path}/rotary.toml: out: ")


def test_a_link_is_filled_by_replacing_and_nothing_else(make_repository, rotary, tmp_path):
    """The user's own template too: a width of three gigabytes once was three gigabytes."""
    root = make_repository({"a {start}.py": "def f():\n    return 1\n"})
    code, _, err = rotary("index", root, "--link-template", "https://e.org/{start:>3000000000}", cwd=tmp_path)
    assert (code, "no other braces" in err) == (2, True)
    assert rotary("index", root, "--link-template", "https://e.org/{path}#{start}-{end}", cwd=tmp_path)[0] == 0
    assert "https://e.org/a%20%7Bstart%7D.py#1-2" in (root / "rotary-docs/a {start}.py.md").read_text()
    assert LINK_FIELD.findall("{path}{start}{end}{startx}{start:3}") == ["path", "start", "end"]


HOSTILE = {
    "bad TOML": b"[[",
    "not UTF-8": b"\xff\xfe",
    "brackets by the thousand": b"a = " + b"[" * 30_000,
    "brackets on short lines": b"a = " + b"[\n" * 30_000,
    "deep tables": b"".join(b"[" + b".".join([b"%d" % n] * 660) + b"]\n" + b"a=1\n" * 15 for n in range(40)),
    "tables by the thousand": b"a = " + b"{a=" * 10_000,
    "a key of 30,000 parts": b".".join([b"a"] * 30_000) + b" = 1",
    "too large": b"#" * (MAX_NBYTES + 1),
    "a number of 50,000 digits": b"max_batch = " + b"9" * 50_000,
    "wrong types": b"job = 1\ninclude = 5\nexclude = [1]\nout = []\nlink_template = {a = 1}\n",
    "many patterns": b"exclude = [" + b'"a",' * 9_000 + b"]",
    "long patterns": b'include = ["' + b"a" * 1000 + b'"]',
    "control characters in a key": b'"\\u001b]0;x\\u0007<script>" = 1',
    "a job that is not there": b'job = "../../etc/passwd"',
    "twice the same key": b'job = "a"\njob = "b"',
    "an unknown key": b'outt = "x"',
    "a date": b"out = 2020-01-01",
}


def test_nothing_in_the_file_ends_the_night(make_repository, index):
    code = {"a.py": "x = 1\n"}
    roots = [
        make_repository(code | {"rotary.toml": data}, name=name.replace(" ", "-")) for name, data in HOSTILE.items()
    ]
    *hostile, calm = index(*roots, make_repository(code, name="good"))
    assert calm["notes"] == []
    for root, outcome in zip(roots, hostile, strict=True):
        assert (outcome["docs"], outcome["queued"]) == (f"{root}/rotary-docs", calm["queued"])
        assert len(outcome["notes"]) >= 1, root
        for note in outcome["notes"]:
            assert note.startswith(f"{root}/rotary.toml: ")
            assert note.isprintable()
            assert len(note) < 600
            assert "<script>" not in note


def test_a_huge_file_and_a_bomb_take_no_memory(tmp_path):
    """Each under 100 MB more than a process that reads nothing."""
    with (tmp_path / "rotary.toml").open("wb") as file:
        file.truncate(10**10)
    script = (
        "import os, resource, sys\nfrom pathlib import Path\nfrom rotary_batch.own_file import read_own\n"
        "least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(read_own(Path(sys.argv[1]), os.environ))\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < least + 100_000\n"
    )
    for data in (None, b"a = " + b"[\n" * 30_000, b"a = [" + b"{},\n" * 15_000, b"a" * 60_000):
        if data is not None:
            (tmp_path / "rotary.toml").write_bytes(data)
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-500:]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device"])
def test_only_a_plain_file_is_read(kind, tmp_path):
    target, own = tmp_path / "mine.toml", tmp_path / "repo"
    own.mkdir()
    target.write_text('job = "summarize"\n')
    path = own / "rotary.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target if kind == "link" else "/dev/zero")
    values, notes = read_own(own, os.environ)
    assert (values, len(notes)) == ({}, 1)
    assert "settings are read from a plain file" in notes[0]


def test_trust_is_for_one_file_as_it_is(make_repository, rotary, index, tmp_path):
    mine = settings_file(db="mine.db", job="summarize", max_batch=3)
    root = make_repository(CODE | {"rotary.toml": mine})
    code, out, _ = rotary("trust", root, "--json")
    answer = json.loads(out)
    assert (code, answer["settings"]) == (0, {"db": f"{root}/mine.db", "job": "summarize", "max_batch": 3})
    assert index(root)[0]["notes"] == []
    assert (root / "mine.db").is_file()

    other = make_repository(CODE, name="other")  # one database for both: not the one that a repository names
    (together, _) = index(root, other)
    assert together["notes"] == [f"{root}/rotary.toml: ignored: db. It applies only when the repository is named alone"]

    (root / "mine.db").unlink()
    (root / "rotary.toml").write_text(mine + 'kv = "int8"\n')
    (changed,) = index(root)
    assert not (root / "mine.db").exists()
    assert "changed since it was trusted" in changed["notes"][0]
    assert ": ignored: db, kv, max_batch." in changed["notes"][1]

    (root / "rotary.toml").write_text(mine)
    assert index(root)[0]["notes"] == []
    Path(answer["record"]).unlink()
    assert ": ignored: db, max_batch." in index(root)[0]["notes"][0]


def test_what_cannot_be_trusted_is_explained(make_repository, rotary):
    root = make_repository(CODE)
    assert "there is nothing to trust" in rotary("trust", root)[2]
    (root / "rotary.toml").write_text("devise = 1\n")
    assert "did you mean 'device'" in rotary("trust", root)[2]
    (root / "rotary.toml").unlink()
    (root / "rotary.toml").symlink_to("/etc/passwd")
    code, _, err = rotary("trust", root)
    assert (code, "a symbolic link" in err) == (3, True)


def test_each_repository_has_its_own_settings_and_none_has_the_others(make_repository, index, tmp_path):
    """The first file that was found once counted for all."""
    one = make_repository(CODE | {"rotary.toml": settings_file(out="first", exclude=["tests/"])}, name="one")
    two = make_repository(CODE | {"rotary.toml": settings_file(include=["/tests/"])}, name="two")
    three = make_repository(CODE, name="three")
    outcomes = {Path(row["repository"]).name: row for row in index(one, two, three)}
    assert {name: (Path(row["docs"]).name, row["files"]["source"]) for name, row in outcomes.items()} == {
        "one": ("first", 3),
        "two": ("rotary-docs", 1),
        "three": ("rotary-docs", 3),
    }
    (tmp_path / "rotary.toml").write_text(settings_file(out="of-the-user"))
    outcomes = {Path(row["repository"]).name: row for row in index(one, two, three)}
    assert {Path(row["docs"]).name for row in outcomes.values()} == {"of-the-user"}


def test_the_file_in_the_current_folder_is_the_users_only_outside_of_repositories(make_repository, rotary, tmp_path):
    victim = tmp_path / "victim.db"
    root, other = make_repository(CODE, name="theirs"), make_repository(CODE, name="mine")
    for folder in (root, root / "pkg"):
        (folder / "rotary.toml").write_text(settings_file(db=str(victim)))
    for cwd, repos in [(root, []), (root / "pkg", []), (root, [root]), (root / "pkg", [other]), (root, [other])]:
        code, _, err = rotary("index", *repos, cwd=cwd)
        assert code == 0, err
    assert not victim.exists()
    (root / ".git").rename(tmp_path / "gone")  # an archive that was unpacked
    assert rotary("index", ".", cwd=root)[0] == 0
    assert not victim.exists()
    (tmp_path / "rotary.toml").write_text(settings_file(db=str(victim)))
    assert rotary("index", other, cwd=tmp_path)[0] == 0
    assert victim.is_file()


def test_the_users_file_is_here_or_in_the_config_folder(make_repository, rotary, tmp_path):
    root = make_repository(CODE)
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "rotary-batch" / "rotary.toml"
    config.parent.mkdir(parents=True)
    config.write_text('db = "home.db"\nexclude = ["tests/"]\n')
    code, out, _ = rotary("index", root, "--json", cwd=root)
    assert (code, json.loads(out)[0]["files"]["source"], (config.parent / "home.db").is_file()) == (0, 2, True)
    (tmp_path / "rotary.toml").write_text('db = "here.db"\n')
    rotary("index", root, cwd=tmp_path)
    assert (tmp_path / "here.db").is_file()
    config.write_text("devise = 1\n")
    assert rotary("index", root, cwd=root)[0] == 3


def test_a_drain_keeps_the_job_that_a_repository_was_indexed_with(make_repository, rotary, tmp_path, monkeypatch):
    """Also when its file asks for another one by then: only an index plans anew."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    text = (bundled("jobs") / "summarize.toml").read_text()
    for name in ("summarize", "brief"):
        (jobs / f"{name}.toml").write_text(text.replace('name = "summarize"', f'name = "{name}"'))
    monkeypatch.setenv("ROTARY_BATCH_JOBS", str(jobs))
    code = {"a.py": "x = 1\n"}
    one = make_repository(code | {"rotary.toml": 'job = "brief"\n'}, name="one")
    two = make_repository(code, name="two")
    assert rotary("index", one, two, cwd=tmp_path)[0] == 0
    (one / "rotary.toml").write_text('job = "summarize"\ndevice = "cuda"\n')
    code, out, err = rotary("drain", "--json", cwd=tmp_path)
    assert code == 0, err
    outcomes = json.loads(out)
    assert [(row["outcome"], row["open"]) for row in outcomes] == [("done", 0), ("done", 0)]
    notes = [note for row in outcomes for note in row["notes"]]
    assert [note.partition(". ")[0] for note in notes] == [f"{one}/rotary.toml: ignored: device"]
    reports = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "reports"
    assert sum("ignored: device" in path.read_text() for path in reports.glob("*.md")) == 1


def test_check_and_explain_know_the_patterns(make_repository, rotary, index, tmp_path):
    root = make_repository(CODE | {"rotary.toml": settings_file(exclude=["tests/"], include=["*.py"])})
    index(root)
    assert rotary("check", root, cwd=tmp_path)[0] == 0
    code, out, _ = rotary("explain", "tests/t.py", root, "--json", cwd=tmp_path)
    assert (code, json.loads(out)["reason"]) == (0, "matches a pattern of `exclude` in the settings")
    code, out, _ = rotary("explain", "rotary.toml", root, "--json", cwd=tmp_path)
    assert (code, json.loads(out)["reason"]) == (0, "matches no pattern of `include` in the settings")


def test_patterns_of_a_stranger_take_no_time(make_repository, index):
    """`a*` 40 times and a long name once took for ever."""
    bombs = [
        "a*" * 90 + "b",
        "/" + "**/a" * 40 + "/b",
        "[" * 150,
        "[a-z]*" * 30 + "!",
        "\\",
        "!" * 100,
        "?" * 190,
        "\0",
    ]
    code = {f"{'a' * 200}.py": "x = 1\n", f"{'a/' * 60}a.py": "x = 1\n"}
    root = make_repository(code | {"rotary.toml": settings_file(exclude=bombs)})
    (outcome,) = index(root)
    assert (outcome["notes"], outcome["files"]["source"]) == ([], 2)


def test_no_file_is_no_news(tmp_path):
    assert read_own(tmp_path, os.environ) == OwnSettings()
    assert read_own(tmp_path / "gone", os.environ) == OwnSettings()
    (tmp_path / "rotary.toml").write_text("")
    assert read_own(tmp_path, os.environ) == OwnSettings()
    (tmp_path / "rotary.toml").write_text(
        settings_file(job="summarize", include=["a"], exclude=["b"], out="docs", link_template="https://e.org/{path}")
    )
    assert (tuple(read_own(tmp_path, os.environ).values), read_own(tmp_path, os.environ).notes) == (HARMLESS, ())


def test_without_git_a_repository_is_known_by_what_is_on_disk(make_repository, rotary, tmp_path, monkeypatch):
    """Git does not answer for a repository of another owner either; its file is a stranger's all the same."""
    root = make_repository(CODE | {"rotary.toml": settings_file(db=str(tmp_path / "victim.db"))})
    monkeypatch.setenv("PATH", str(tmp_path))
    for cwd in (root, root / "pkg"):
        code, _, err = rotary("status", cwd=cwd)
        assert (code, "victim" in err, "no database yet" in err) == (3, False, True)


def job_folder(folder: Path, *names: str) -> Path:
    """A folder of jobs: the bundled one, under these names."""
    folder.mkdir()
    text = (bundled("jobs") / "summarize.toml").read_text()
    for name in names:
        (folder / f"{name}.toml").write_text(text.replace('name = "summarize"', f'name = "{name}"'))
    return folder


def test_a_broken_job_file_of_one_repository_stops_no_other(make_repository, rotary, tmp_path):
    """It ended the whole command: the settings were resolved before the repositories were kept apart."""
    jobs = job_folder(tmp_path / "jobs", "brief")
    good, bad = make_repository(CODE, name="good"), make_repository(CODE, name="bad")
    (bad / "rotary.toml").write_text(settings_file(jobs=str(jobs), job="brief"))
    assert rotary("trust", bad)[0] == 0
    assert rotary("index", bad, cwd=tmp_path)[0] == 0
    (jobs / "x.toml").write_text("[[")
    for command in ("index", "run"):
        code, out, err = rotary(command, bad, good, "--json", cwd=tmp_path)
        assert (code, f"{jobs}/x.toml" in err) == (3, True)
        assert [row.get("error") is None for row in json.loads(out)].count(True) == 1
    index_of_good = json.loads(rotary("status", good, "--json", cwd=tmp_path)[1])["repositories"][0]["items"]
    assert index_of_good["repository"] == {"done": 1}
    code, out, _ = rotary("drain", bad, good, "--json", cwd=tmp_path)
    assert (code, [row.get("outcome") for row in json.loads(out)]) == (3, [None, "done"])


def test_plan_takes_each_repository_by_its_own_settings_as_drain_does(make_repository, rotary, tmp_path):
    """It looked for the job of one repository among the jobs of the user, and ended with 3."""
    jobs = job_folder(tmp_path / "jobs", "brief")
    one, two = make_repository(CODE, name="one"), make_repository(CODE, name="two")
    (one / "rotary.toml").write_text(settings_file(jobs=str(jobs), job="brief", kv="int8"))
    assert rotary("trust", one)[0] == 0
    assert rotary("index", one, two, cwd=tmp_path)[0] == 0
    code, out, err = rotary("plan", "--json", cwd=tmp_path)
    assert code == 0, err
    plan = json.loads(out)
    assert [len(plan[name]) for name in ("repositories", "models", "notes", "failures")] == [2, 2, 0, 0]
    (jobs / "brief.toml").write_text("[[")
    code, out, err = rotary("plan", "--json", cwd=tmp_path)
    plan = json.loads(out)
    assert (code, f"{jobs}/brief.toml" in err, len(plan["models"])) == (3, True, 1)
    assert [failure["repository"] for failure in plan["failures"]] == [str(one)]


def test_a_path_that_cannot_be_a_repository_is_explained(rotary, tmp_path):
    """Both ended with 70: an error of SQLite about surrogates, and one of pathlib about a loop."""
    odd, loop = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "loop"
    odd.mkdir()
    (odd / "a.py").write_text("x = 1\n")
    loop.symlink_to(loop)
    assert rotary("index", tmp_path, cwd=tmp_path)[0] == 0  # a database
    for command in ("index", "run", "drain", "plan", "status", "check", "render", "trust", "retry"):
        for path, words in [(odd, r"caf\xe9: its path is not valid UTF-8"), (loop, "loop: a symbolic link that leads")]:
            code, _, err = rotary(command, path, cwd=tmp_path)
            assert (code, words in err) == (3, True), (command, err)


def test_trust_does_not_cover_files_that_a_commit_can_change(make_repository, rotary, index, tmp_path):
    """A trusted `jobs` inside the repository was read anew each night, whatever was in it by then."""
    kept = job_folder(tmp_path / "kept", "summarize")
    for name, (jobs, prompts) in {
        "plain": ("jobs", "./pkg/../prompts"),
        "link": (str(tmp_path / "into"), "out"),
    }.items():
        root = make_repository(CODE, name=name)
        job_folder(root / "jobs", "summarize", "brief")
        (root / "out").symlink_to(kept)  # leads out, but a commit can change where to
        (tmp_path / "into").unlink(missing_ok=True)
        (tmp_path / "into").symlink_to(root / "jobs")
        (root / "rotary.toml").write_text(settings_file(jobs=jobs, prompts=prompts, model=str(root), max_batch=3))
        wanted = [
            f"{root}/rotary.toml: {key}: points into the repository, whose files can change; copy the folder out of it"
            for key in ("model", "jobs", "prompts")
        ]
        answer = json.loads(rotary("trust", root, "--json")[1])
        assert (answer["settings"], answer["notes"]) == ({"max_batch": 3}, wanted)
        assert index(root)[0]["notes"] == wanted
        (root / "rotary.toml").write_text(settings_file(jobs=str(kept)))
        assert json.loads(rotary("trust", root, "--json")[1])["settings"] == {"jobs": str(kept)}
        assert index(root)[0]["notes"] == []


@pytest.mark.parametrize("spelt", ["./docs", "docs/", "docs//", "{root}/docs", "{link}/docs/", "docs"])
def test_the_docs_folder_is_recognised_however_it_is_spelt(spelt, make_repository, rotary, git, tmp_path):
    """Its pages counted as uncommitted changes, and once committed as files of the user's."""
    root = make_repository(CODE)
    (tmp_path / "link").symlink_to(root)
    out = spelt.format(root=root, link=tmp_path / "link")

    def indexed() -> dict:
        code, answer, err = rotary("index", root, "--out", out, "--json", cwd=tmp_path)
        assert code == 0, err
        return json.loads(answer)[0]

    first = indexed()
    assert (first["docs"], indexed()["notes"], (root / "docs" / "index.md").is_file()) == (f"{root}/docs", [], True)
    git(root, "add", ".")
    git(root, "commit", "-qm", "docs")
    again = indexed()
    counted = {name: number for name, number in again["files"].items() if name != "ignored"}
    assert (counted, again["notes"]) == ({"docs": 11, "source": 3}, [])
    assert rotary("check", root, "--out", out, cwd=tmp_path)[0] == 0
