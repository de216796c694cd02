"""The commands as a user meets them: answers, exit codes, clear errors, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rotary_batch.commands.models import ranges
from rotary_batch.testing import write_tiny_checkpoint
from tests.model.gguf_keys import smollm2_path

CODE = {
    "pkg/__init__.py": '"""A small package."""\n',
    "pkg/box.py": "def put(thing):\n    '''Put it in.'''\n    return wrap(thing)\n\n\ndef take(box):\n    return box.pop()\n",
    "pkg/wrap.py": "def wrap(thing):\n    return [thing]\n",
    "LICENCE.txt": "Free.\n",
}


def rotary(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=200)


def answer(*arguments: object, code: int = 0, **options) -> object:
    done = rotary(*arguments, "--json", **options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def docs_of(root: Path) -> dict[str, tuple[bytes, int]]:
    docs = root / "rotary-docs"
    return {str(p.relative_to(docs)): (p.read_bytes(), p.stat().st_mtime_ns) for p in docs.rglob("*") if p.is_file()}


def test_the_night_and_the_day_after(make_repository, git, tmp_path):
    """Run, look, run again for nothing, commit the docs, check in a fresh clone, change one file."""
    root = make_repository(CODE)
    (first,) = answer("run", root, "--log", tmp_path / "log.jsonl")
    assert (first["outcome"], first["open"], first["parked"]) == ("done", 0, 0)
    assert first["done"] == sum(first["verdicts"].values()) == 8
    before = docs_of(root)
    assert {"index.md", "pkg/index.md", "pkg/box.py.md", ".mkdocs/mkdocs.yml", "llms.txt"} <= set(before)
    assert "Put it in." in before["pkg/box.py.md"][0].decode()

    (second,) = answer("run", root)
    assert (second["revolutions"], second["done"], second["pages_written"]) == (0, 0, 0)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "docs")
    (third,) = answer("run", root)
    assert (third["revolutions"], third["pages_written"], docs_of(root)) == (0, 0, before)

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True)
    assert rotary("check", clone, XDG_STATE_HOME=str(tmp_path / "other")).returncode == 0

    (root / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    git(root, "commit", "-qam", "change")
    assert answer("check", root, code=4)["stale"] == ["pkg/index.md", "pkg/wrap.py.md"]
    (index,) = answer("index", root)
    assert (index["parsed"], index["queued"]) == (1, 4)  # its chunk, the file, the folder, the repository
    (fourth,) = answer("drain", root)
    assert fourth["done"] + fourth["reused"] == 4
    assert answer("check", root)["stale"] == []
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events[0] == "indexed"
    assert events[-1] == "run ended"


def test_questions_answer_without_torch_and_in_the_documented_fields(make_repository):
    root = make_repository(CODE)
    answer("index", root)
    lines = {
        kind: rotary("inspect", kind, root, "--jsonl").stdout.splitlines()
        for kind in ("files", "symbols", "chunks", "items")
    }
    assert {kind: list(json.loads(rows[0])) for kind, rows in lines.items()} == {
        "files": ["path", "blob", "bytes", "language", "class", "reason"],
        "symbols": [
            "path",
            "kind",
            "name",
            "qualified_name",
            "start_line",
            "end_line",
            "start_byte",
            "end_byte",
            "signature",
            "docstring",
        ],
        "chunks": ["path", "blob", "start_byte", "end_byte", "start_line", "end_line", "tokens", "symbols"],
        "items": [
            "id",
            "key",
            "job",
            "unit",
            "subject",
            "state",
            "attempts",
            "prompt_tokens",
            "output_tokens",
            "error",
            "verdict",
            "ended",
            "num_sentences",
            "num_kept",
            "reasons",
        ],
    }
    (repository,) = answer("plan", root)["repositories"]
    assert {unit: row["items"] for unit, row in repository["open"].items()} == {
        "chunk": 3,
        "directory": 1,
        "file": 3,
        "repository": 1,
    }
    assert answer("explain", "LICENCE.txt", root)["reason"] == "no grammar for .txt"
    (one,) = answer("status")["repositories"]
    assert one["items"]["chunk"] == {"ready": 3}
    script = (
        "import sys\nfrom rotary_batch import cli\nsys.argv = ['rotary-batch', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'rich') if name in sys.modules])"
    )
    for arguments in (["status", "--json"], ["plan", "--json"], ["index", "--help"], ["check", str(root), "--json"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=root)
        assert done.stdout.splitlines()[-1] == "[]", (arguments, done.stdout, done.stderr)


def test_a_limit_leaves_work_and_the_next_run_finishes_it(make_repository):
    root = make_repository(CODE)
    answer("index", root)
    (part,) = answer("drain", root, "--limit", 2, code=75)
    assert (part["done"], part["open"]) == (2, 6)
    (rest,) = answer("drain")
    assert (rest["done"], rest["open"]) == (6, 0)
    assert answer("report")["outcome"] == "done"
    (passed,) = answer("drain", "--for", "20s")
    assert passed["outcome"] == "done"


def start_drain(root: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "rotary_batch.cli", "drain", str(root), "--max-batch", "1"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while "leased" not in json.dumps(answer("status")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return child


def test_a_second_driver_is_refused_and_an_interrupt_commits(make_repository, tmp_path):
    root = make_repository(CODE | {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(60)})
    answer("index", root)
    child = start_drain(root)
    second = rotary("drain", root)
    assert (second.returncode, f"process {child.pid}" in second.stderr) == (6, True)
    assert answer("status")["driver_pid"] == child.pid
    assert answer("report")["outcome"] == answer("status")["last_run"]["outcome"] == "still running"
    os.kill(child.pid, signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 75, stderr
    (repository,) = answer("status")["repositories"]
    assert all("leased" not in states for states in repository["items"].values())
    (rest,) = answer("drain", root)
    assert rest["open"] == 0


def test_a_second_interrupt_ends_at_once_and_loses_nothing(make_repository, tmp_path):
    root = make_repository(CODE | {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(60)})
    answer("index", root)
    child = start_drain(root)
    while child.poll() is None:  # an impatient person
        os.kill(child.pid, signal.SIGINT)
        time.sleep(0.005)
    _, stderr = child.communicate()
    # A child that waits for a processor gets several signals as one: its run may end in order before the next comes.
    assert child.returncode in {130, 75}, stderr
    outcome = answer("report")["outcome"]
    assert outcome == answer("status")["last_run"]["outcome"]
    assert outcome in {130: {"killed", "interrupted"}, 75: {"interrupted"}}[child.returncode]
    (rest,) = answer("drain", root)
    assert rest["open"] == 0


def test_an_edited_page_is_reported_and_kept(make_repository):
    root = make_repository(CODE)
    answer("index", root)
    page = root / "rotary-docs" / "pkg" / "box.py.md"
    page.write_text("my own page\n")
    (again,) = answer("index", root)
    assert (again["conflicts"], page.read_text()) == (["pkg/box.py.md"], "my own page\n")
    assert answer("check", root, code=4)["edited"] == ["pkg/box.py.md"]
    assert rotary("render", root, "--accept", "theirs", "pkg/box.py.md").returncode == 0
    assert answer("check", root)["edited"] == []
    assert "my own page" in page.read_text()


def test_edited_pages_of_all_repositories_are_reported(make_repository, tmp_path):
    one, two = make_repository(CODE), make_repository({"a.py": "def f(): pass\n"}, name="two")
    answer("run", one, two)
    (one / "rotary-docs" / "pkg" / "box.py.md").write_text("my own page\n")
    (both,) = answer("drain", one, two)
    assert both["conflicts"] == [f"{one}: pkg/box.py.md"]
    (alone,) = answer("drain", one)
    assert alone["conflicts"] == ["pkg/box.py.md"]


def test_trusted_settings_of_a_repository_are_found_from_below_it_and_by_its_name(make_repository, tmp_path):
    root = make_repository(CODE | {"rotary.toml": 'db = "mine.db"\n'})
    answer("trust", root)
    answer("index", cwd=root / "pkg")
    assert (root / "mine.db").is_file()
    assert answer("status", root)["database"] == answer("status", cwd=root / "pkg")["database"] == str(root / "mine.db")
    assert answer("render", root)["written"] == []


def test_answers_go_to_stdout_and_stay_whole_when_the_reader_leaves(make_repository):
    root = make_repository(CODE)
    done = rotary("index", root)
    assert (done.stdout.startswith("Read 3 of 4 files: "), "Pages: " in done.stdout) == (True, True)
    assert [line[5:] for line in done.stderr.splitlines()] == [" reading files", " writing pages"]
    answer("index", root)
    assert "No drain is running." in rotary("status").stdout
    command = f"set -o pipefail; {sys.executable} -m rotary_batch.cli inspect symbols {root} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_what_needs_no_git_works_without_it(make_repository, tmp_path):
    root = make_repository(CODE)
    answer("run", root)
    assert answer("status", PATH=str(tmp_path))["last_run"]["outcome"] == "done"
    assert answer("report", PATH=str(tmp_path))["done"] == 8
    rows = {row["what"]: row for row in answer("doctor", code=69, PATH=str(tmp_path))}
    assert not rows["git"]["ok"]
    assert "git is not installed" in rotary("index", root, PATH=str(tmp_path)).stderr


def test_a_log_may_lie_in_a_folder_that_is_not_there_yet(make_repository, tmp_path):
    root = make_repository(CODE)
    answer("index", root, "--log", tmp_path / "state" / "night.jsonl")
    assert '"event": "indexed"' in (tmp_path / "state" / "night.jsonl").read_text()


@pytest.mark.parametrize("files", [{}, {"notes.txt": "Hi\n"}, {"blob.bin": b"\0\1\2"}])
def test_a_repository_without_sources_has_a_page_that_says_so(files, make_repository):
    root = make_repository(files)
    (done,) = answer("run", root)
    assert (done["outcome"], done["open"], done["done"]) == ("done", 0, 0)
    assert "Holds nothing that is documented here." in (root / "rotary-docs" / "index.md").read_text()
    assert answer("status")["repositories"][0]["root"] == str(root)


def test_a_repository_that_is_gone_is_not_made_again(make_repository):
    root, other = make_repository(CODE), make_repository({"a.py": "x = 1\n"}, name="other")
    answer("index", root, other)
    shutil.rmtree(root)
    done = rotary("drain")
    assert (done.returncode, f"{root} is gone" in done.stderr) == (0, True)
    assert not root.exists()
    assert answer("status", other)["repositories"][0]["items"]["chunk"] == {"done": 1}
    assert rotary("render", root).returncode == 3


def test_only_pages_in_the_docs_folder_can_be_settled(make_repository):
    root = make_repository(CODE)
    answer("index", root)
    for page in ("../pkg/box.py", str(root / "pkg" / "box.py")):
        for whose in ("theirs", "ours"):
            done = rotary("render", root, "--accept", whose, page)
            assert (done.returncode, "not inside the docs folder" in done.stderr) == (3, True)
    assert (root / "pkg" / "box.py").read_text() == CODE["pkg/box.py"]


def test_what_was_in_the_docs_folder_before_stays(make_repository, git):
    root = make_repository(CODE | {"docs/llms.txt": "mine\n", "docs/guide.md": "# Guide\n"})
    (root / "docs" / "later").mkdir()
    (index,) = answer("index", root, "--out", "docs")
    assert index["conflicts"] == ["llms.txt"]
    assert (root / "docs" / "llms.txt").read_text() == "mine\n"
    assert "# project" in (root / "docs" / "llms.txt.rotary-new").read_text()
    git(root, "rm", "-q", "pkg/wrap.py", "pkg/box.py", "pkg/__init__.py")
    git(root, "commit", "-qm", "gone")
    answer("index", root, "--out", "docs")
    assert not (root / "docs" / "pkg").exists()
    assert (root / "docs" / "later").is_dir()
    assert (root / "docs" / "guide.md").read_text() == "# Guide\n"


def test_a_database_that_cannot_be_used_is_explained(make_repository, tmp_path):
    root = make_repository(CODE)
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("create table item (x)")
    foreign.close()
    (tmp_path / "text.db").write_text("no database " * 100)
    (tmp_path / "empty.db").touch()
    answer("index", root, "--db", tmp_path / "damaged.db")
    data = bytearray((tmp_path / "damaged.db").read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    (tmp_path / "damaged.db").write_bytes(data)
    for name, command, code, words in [
        ("foreign", "index", 3, "tables of another program"),
        ("foreign", "status", 3, "tables of another program"),
        ("text", "index", 3, "not a rotary-batch database"),
        ("empty", "status", 3, "no database yet"),
        ("damaged", "status", 74, "damaged"),
        ("damaged", "drain", 74, "damaged"),
        ("damaged", "report", 74, "damaged"),
    ]:
        done = rotary(command, *([root] if command != "report" else []), "--db", tmp_path / f"{name}.db")
        assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (code, True, 1), (
            name,
            command,
            done.stderr,
        )
    for name in ("foreign", "text", "damaged"):
        rows = {row["what"]: row for row in answer("doctor", "--db", tmp_path / f"{name}.db", code=69)}
        assert not rows["database"]["ok"]
    assert sqlite3.connect(tmp_path / "foreign.db").execute("select name from sqlite_master").fetchall() == [("item",)]


def test_a_deleted_source_takes_its_page_along(make_repository, git):
    root = make_repository(CODE)
    answer("index", root)
    git(root, "rm", "-q", "pkg/wrap.py")
    git(root, "commit", "-qm", "gone")
    (index,) = answer("index", root)
    assert (index["pages_removed"], index["removed"]) == (1, 2)
    assert not (root / "rotary-docs" / "pkg" / "wrap.py.md").exists()


def test_a_bare_repository_needs_a_place_for_its_docs(make_repository, tmp_path):
    root = make_repository(CODE)
    subprocess.run(["git", "clone", "-q", "--bare", str(root), str(tmp_path / "b.git")], check=True)
    assert "--out" in rotary("index", tmp_path / "b.git").stderr
    assert rotary("index", tmp_path / "b.git", "--out", tmp_path / "docs").returncode == 0
    assert (tmp_path / "docs" / "pkg" / "box.py.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["drain", "--device-memory", "lots"], 2, "--device-memory: 'lots' is not a size"),
        (["drain", "--device-memory", "0"], 2, "'0' is not a size"),
        (["index", "--db", "", "."], 2, "'.' is a folder; name a file"),
        (["index", "--kv", "fp8", "."], 2, "--kv: 'fp8' is not one of bf16, int8"),
        (["bench", "--dense", "int3"], 2, "--dense: 'int3' is not one of bf16, int8"),
        (["bench", "--sequences", "4", "--max-batch", "2"], 2, "more than --max-batch 2"),
        (["index", "--experts", "int4", "."], 3, "its experts are int8, not int4"),
        (["index", "--link-template", "x{foo}", "."], 2, "may hold {path}, {start} and {end}"),
        (["index", "--link-template", "{", "."], 2, "may hold {path}, {start} and {end}"),
        (["index", "--out", "", "."], 2, "'' cannot be the docs folder"),
        (["index", "--out", "docs/../..", "."], 2, "cannot be the docs folder"),
        (["index", "--out", ".git", "."], 2, "cannot be the docs folder"),
        (["index", "--out", "/", "."], 3, "holds the repository"),
    ],
)
def test_bad_input_is_explained(arguments, code, words, make_repository):
    root = make_repository(CODE)
    done = rotary(*arguments, cwd=root)
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())


def test_a_context_too_small_for_any_chunk_is_refused_and_a_model_can_be_a_checkpoint(make_repository, tmp_path):
    root = make_repository(CODE)
    small = write_tiny_checkpoint(tmp_path / "small", max_position_embeddings=300)
    done = rotary("index", root, "--model", small)
    assert (done.returncode, "use a model with more context" in done.stderr) == (3, True)
    large = write_tiny_checkpoint(tmp_path / "large", max_position_embeddings=4096)
    assert rotary("index", root, "--model", large).returncode == 0
    done = rotary("drain", root, "--limit", 1, "--device-memory", "1MB")
    assert (done.returncode, "1.0 MB" in done.stderr) == (69, True)
    advised = done.stderr.split("try --device-memory ")[1].split()[0]
    assert rotary("drain", root, "--limit", 1, "--device-memory", advised).returncode == 75


def test_generate_goes_on_where_it_stopped(tmp_path, tiny_pack):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"custom_id": f"r{n}", "body": {"messages": [{"role": "user", "content": f"Say {n}"}], "max_tokens": 4}}
        for n in range(5)
    ]
    rows.append({"custom_id": "plain", "body": {"prompt": "abc", "max_tokens": 3}})
    rows.append({"custom_id": "long", "body": {"prompt": "x" * 5000, "max_tokens": 3}})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rotary("generate", source, "-o", target, "--model", tiny_pack).returncode == 5
    results = {row["custom_id"]: row for row in map(json.loads, target.read_text().splitlines())}
    assert set(results) == {row["custom_id"] for row in rows}
    assert results["long"]["error"]["code"] == "too_long"
    lines = target.read_text().splitlines(keepends=True)
    target.write_text("".join(lines[:3]) + lines[3][:10])
    rotary("generate", source, "-o", target, "--model", tiny_pack)
    assert {row["custom_id"]: row for row in map(json.loads, target.read_text().splitlines())} == results
    bad = rotary("generate", tmp_path / "none", "-o", tmp_path / "none.jsonl", "--model", tiny_pack)
    assert (bad.returncode, "No such file" in bad.stderr, (tmp_path / "none.jsonl").exists()) == (3, True, False)


def test_models_are_packed_shown_and_verified(tmp_path, tiny_checkpoint):
    assert rotary("model", "pack", tiny_checkpoint, tmp_path / "pack").returncode == 0
    assert answer("model", "info", tmp_path / "pack")["experts_per_layer"] == 4
    assert rotary("model", "verify", tmp_path / "pack").returncode == 0
    with (tmp_path / "pack" / "experts.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    damaged = rotary("model", "verify", tmp_path / "pack")
    assert (damaged.returncode, "layer 0 expert 0" in damaged.stderr) == (3, True)
    assert all(row["ok"] for row in answer("doctor") if row["essential"])


def test_a_checkpoint_is_shown_as_its_pack_will_be(tmp_path, tiny_checkpoint):
    before = answer("model", "info", tiny_checkpoint)
    assert rotary("model", "pack", tiny_checkpoint, tmp_path / "pack").returncode == 0
    after = answer("model", "info", tmp_path / "pack")
    changed = {"name", "path", "is_packed", "weights_digest"}
    assert {name for name in after if before[name] != after[name]} <= changed
    assert (before["family"], before["is_packed"], before["weights_digest"]) == ("mixtral", False, None)
    unpacked = rotary("model", "verify", tiny_checkpoint)
    assert (unpacked.returncode, f"rotary-batch model pack {tiny_checkpoint} PACK" in unpacked.stderr) == (3, True)


def test_a_gguf_file_is_shown_with_the_types_of_its_matrices(tmp_path):
    facts = answer("model", "info", smollm2_path())
    assert (facts["family"], facts["layers"], facts["is_packed"], facts["notes"]) == ("llama", 30, False, [])
    rows = {row["matrix"]: (row["stored_as"], row["layers"], row["nbytes"]) for row in facts["formats"]}
    assert rows["embed"] == ("ggml:Q8_0", "", 49152 * 576 // 32 * 34)
    assert rows["ffn.down"] == ("ggml:Q4_1", "0-29", 30 * 576 * 1536 // 32 * 20)
    assert set(rows) == {"embed", "q", "k", "v", "o", "ffn.gate_up", "ffn.down"}
    shown = rotary("model", "info", smollm2_path()).stdout
    assert all(text in shown for text in ("family             llama", "ffn.gate_up  ggml:Q4_1    0-29  33.2 MB"))


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([0, 1, 2], "0-2"), ([0, 2, 3, 4, 9], "0, 2-4, 9")]
)
def test_layers_are_shown_as_ranges(numbers, text):
    assert ranges(numbers) == text


def test_a_database_that_vanishes_costs_nothing_but_the_work(make_repository, tmp_path):
    root = make_repository(CODE)
    answer("run", root)
    before = docs_of(root)
    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]))
    answer("run", root)
    assert {path: data for path, (data, _) in docs_of(root).items()} == {
        path: data for path, (data, _) in before.items()
    }
