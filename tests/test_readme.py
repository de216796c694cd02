"""The README, the docs and the recipes say the same as the program: what they show is parsed, and most of it is run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rotary_batch import errors
from rotary_batch.cli import app
from rotary_batch.config import Settings, user_values
from rotary_batch.jobs import load_job
from tests.engine.test_gguf_checkpoint import written

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs/user-guide.md").read_text()
NAMED = ("README.md", "CHANGELOG.md", "SECURITY.md")
DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
BENCHMARKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").rglob("*.md"))
RECIPES = sorted(f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir())
BLOCK = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)  # its fence, its language, what is in it
SETTINGS = {field.name for field in fields(Settings)}
CODE = {
    "setup.py": '"""How to build it."""\n',
    "box.py": "def put(thing):\n    '''Put it in.'''\n    return [thing]\n",
}


def blocks(path: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [block for _, name, block in re.findall(BLOCK, (ROOT / path).read_text()) if name == language]


def without_blocks(text: str) -> str:
    """A page without its fenced blocks, which may show another page."""
    return re.sub(BLOCK, "", text)


def shell_lines(path: str) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def commands_shown(path: str) -> list[str]:
    """Every call of the program that a page or a recipe shows, in a block, in the text or in a line of its own."""
    text = (ROOT / path).read_text()
    spans = re.findall(r"`(rotary-batch [^`\n]+)`", without_blocks(text))
    lines = re.findall(r"(?:bin/|- run: |\* {2}|^ +- |^# {3}(?:ssh HEAD )?)(rotary-batch [^>|\n]+)", text, re.MULTILINE)
    lines = lines if path.startswith("deploy/") else []
    return [line for line in [*shell_lines(path), *spans, *lines] if line.startswith("rotary-batch ")]


def command_named(words: list[str]) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command that begins a line, and its arguments."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def all_commands(group: typer.core.TyperGroup, prefix: str = "") -> set[str]:
    """The names of all commands, those of a group as `model pack`."""
    names = set()
    for name, command in group.commands.items():
        names |= all_commands(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name}
    return names


def rotary(line: str) -> None:
    """Run one line in this process, where it has to end well: by day, what works at night only has nothing to do."""
    done = CliRunner().invoke(app, [str(Path(word).expanduser()) for word in shlex.split(line)[1:]])
    is_day = "--window" in line and isinstance(done.exception, errors.StoppedError)
    assert done.exit_code == 0 or is_day, (line, done.output, done.exception)


def test_the_table_of_commands_names_all_of_them_and_no_other():
    table = README[README.index("| command | does |") : README.index("## Limits")]
    cells = [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in table.splitlines()[2:] if line]
    named = set()
    for text in (text for texts in cells for text in texts):
        words = text.replace("\\|", "|").split()
        groups = {"model", "config", "jobs"}
        named |= {f"{words[0]} {word}" for word in words[1].split("|")} if words[0] in groups else {words[0]}
    assert named == all_commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", [*NAMED, *DOCS, *RECIPES])
def test_commands_that_are_shown_are_accepted(path):
    """Each is parsed as the program parses it, and each value of a setting is read."""
    for line in commands_shown(path):
        command, words = command_named(shlex.split(line)[1:])
        if not words and not line.startswith("rotary-batch generate"):
            continue  # named in passing
        given = command.make_context(command.name, words).params
        paths = {one.name for one in command.params if type(one.type).__name__.endswith("Path")}
        flags = {name: value for name, value in given.items() if name in SETTINGS and name not in paths}
        user_values(flags=flags, environment={}, folders=(), config=None)


def test_recipes_show_commands():
    shown = {path: len(commands_shown(path)) for path in RECIPES}
    assert shown == {
        "deploy/crontab.example": 1,
        "deploy/github-actions.yml": 1,
        "deploy/github-default-model.yml": 2,
        "deploy/github-nightly.yml": 4,
        "deploy/gitlab-ci.yml": 5,
        "deploy/rotary-batch.service": 1,
        "deploy/rotary-batch.timer": 0,
        "deploy/ray-cluster.yaml": 1,
        "deploy/ray-job.yaml": 0,  # its command is folded, and in a shell
        "deploy/slurm.sh": 3,
    }


def test_the_user_guide_runs_from_top_to_bottom(make_repository, tmp_path, monkeypatch):
    own = {"rotary.toml": 'exclude = ["tests/"]\n'}
    roots = {
        "path/to/a/repository": make_repository(CODE | own, "one"),
        "path/to/another": make_repository({"lid.py": "def close():\n    return None\n"}, "two"),
    }
    monkeypatch.chdir(tmp_path)
    body = {"messages": [{"role": "user", "content": "def put(thing):"}], "max_tokens": 4}
    Path("requests.jsonl").write_text(json.dumps({"custom_id": "a", "body": body}) + "\n")
    lines = shell_lines("docs/user-guide.md")
    assert len(lines) > 15
    for line in lines:
        rotary(re.sub("|".join(roots), lambda match: str(roots[match.group()]), line))
    assert len(Path("results.jsonl").read_text().splitlines()) == 1


def test_the_readme_runs_with_a_real_checkpoint(make_repository, monkeypatch, tmp_path):
    """Its lines on a machine without a GPU, and without the minute that measuring takes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file, _, _ = written(tmp_path / "made", "qwen3_moe", {}, max_position_embeddings=4096)
    (tmp_path / "models").mkdir()
    file.rename(tmp_path / "models/qwen3-coder-30b-q4_k_m.gguf")
    make_repository(CODE, "src/project")
    lines = [line for line in shell_lines("README.md") if line.startswith("rotary-batch") and "--machine" not in line]
    assert [command_named(shlex.split(line)[1:])[0].name for line in lines] == ["models", "index", "plan", "run"]
    for line in lines:
        rotary(re.sub(" --device cuda| --device-memory 22GB", "", line))


@pytest.mark.parametrize("path", ["README.md", *DOCS])
def test_python_that_is_shown_runs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks(path, "python"):
        names: dict[str, object] = {}
        exec(block, names)
        assert len(names["tokens"][0]) == 8
        names["engine"].close()


@pytest.mark.parametrize("path", ["README.md", *DOCS])
def test_settings_and_jobs_that_are_shown_are_accepted(path, tmp_path):
    for block in blocks(path, "toml"):
        table = tomllib.loads(block)
        file = tmp_path / (f"{table['job']['name']}.toml" if "chunk" in table else "rotary.toml")
        file.write_text(block)
        if "chunk" in table:
            assert load_job(file).name == file.stem
        else:
            assert user_values(flags={}, environment={}, folders=(), config=file).keys() == table.keys()


def test_every_setting_is_explained():
    table = GUIDE[GUIDE.index("| Setting |") : GUIDE.index("Sizes need")]
    first = [line.split(" | ")[0] for line in table.splitlines()[2:] if line]
    assert [name for cell in first for name in re.findall(r"`([a-z_]+)`", cell)] == [f.name for f in fields(Settings)]


def test_every_exit_code_is_explained():
    table = GUIDE[GUIDE.index("| Code |") : GUIDE.index("With several repositories the code")]
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and "exit_code" in dir(kind)}
    assert explained == raised | {0, 1, 4, 5, 130}


def anchors(path: Path) -> set[str]:
    """The fragments that a page's headings make, as code forges and site generators do."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*NAMED, *DOCS, *BENCHMARKS])
def test_links_lead_somewhere(path):
    page = ROOT / path
    for target in re.findall(r"\]\(([^)\s:]+)\)", without_blocks(page.read_text())):
        name, _, fragment = target.partition("#")
        goal = page.parent / name if name else page
        assert goal.exists(), target
        assert not fragment or fragment in anchors(goal), target


@pytest.mark.parametrize("path", ["README.md", "SECURITY.md", *DOCS])
def test_files_that_are_named_exist(path):
    """Of the repository's own folders; what a run writes is named elsewhere."""
    own = r"`((?:benchmarks|deploy|tests|training|rotary_batch)/[\w./-]*)`"
    for name in re.findall(own, (ROOT / path).read_text()):
        assert (ROOT / name).exists(), name


def test_links_of_the_site_stay_in_the_site():
    """MkDocs and Zensical cannot follow others."""
    for path in DOCS:
        for target in re.findall(r"\]\(([^)\s:#]+)[^)\s:]*\)", without_blocks((ROOT / path).read_text())):
            assert (ROOT / path).parent.joinpath(target).resolve().is_relative_to(ROOT / "docs"), (path, target)


def test_the_navigation_has_every_page():
    pages = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(f"docs/{page}" for page in pages) == DOCS


def script(name: str):
    """A script in docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["module_map", "man_page"])
def test_generated_pages_are_up_to_date(name):
    generator = script(name)
    assert generator.text() == generator.PAGE.read_text(), f"run python docs/{name}.py"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_man_page_is_sound_and_shows_text_as_it_is():
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", "-ww", ROOT / "docs" / "rotary-batch.1"], capture_output=True, text=True
    )
    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    for text in (
        "rotary-batch run ~/src/app --until 07:00",
        "rotary-batch inspect items --state parked --table",
        "{path}",
        "[REPO...]",
    ):
        assert text in shown


def test_the_layers_are_those_that_are_checked():
    text = (ROOT / "docs/architecture.md").read_text()
    shown = re.search(r"^```text\n(__main__.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = [" > ".join(contract["layers"]) for contract in contracts if contract["type"] == "layers"]
    assert [re.sub(r"^[\w/]+: ", "", " ".join(part.split())) for part in shown.split("\n\n")] == checked


def test_the_recorded_session_is_small_and_the_page_shows_what_was_recorded():
    """The page has no line that the terminal did not show; long lines are broken there."""
    header, *events = map(json.loads, (ROOT / "docs/session.cast").read_text().splitlines())
    assert (header["version"], header["width"]) == (2, 100)
    assert [kind for _, kind, _ in events] == ["o"] * len(events)
    times = [at_s for at_s, _, _ in events]
    assert times == sorted(times)
    assert times[-1] < 180
    assert (ROOT / "docs/session.cast").stat().st_size < 100_000
    recorded = "".join(data for _, _, data in events)
    assert not re.search(r"/(?:tmp|root|work)/", recorded)
    plain = re.sub(r"\x1b\]8;;.*?\x1b\\|\x1b\[[0-9;?]*[a-zA-Z]|\s", "", recorded)
    lines = [line for block in blocks("docs/first-night.md", "text") for line in block.splitlines()]
    assert len(lines) > 50
    for line in lines:
        assert "".join(line.split()) in plain, line


def test_pictures_are_small():
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".png", ".svg"}]
    assert pictures
    assert max(path.stat().st_size for path in pictures) < 200_000


@pytest.mark.parametrize("path", ["README.md", *DOCS])
def test_make_has_the_targets_that_are_shown(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / path).read_text(), re.MULTILINE)) <= targets


def test_jobs_and_prompts_ship_inside_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"rotary_batch/_bundled/{name}" for name in ("jobs", "prompts")}
