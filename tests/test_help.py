"""Help and usage errors: every option is grouped, every example is accepted, every mistake names what to write."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rotary_batch.cli import app
from rotary_batch.cli.help import GROUPS, SETTINGS, Group, description, examples, option_row, options_by_group
from rotary_batch.config import Settings, user_values

ROOT = Path(__file__).parent.parent
TOP = typer.main.get_command(app)


def tree(command=TOP, path=("rotary-batch",)):
    """Every command with its path, the groups of commands too."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from tree(inner, (*path, name))


COMMANDS = {" ".join(path): command for path, command in tree()}


def rotary(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=ROOT, timeout=100)


def context(path: str):
    """The context of a command whose arguments were not read."""
    return COMMANDS[path].context_class(COMMANDS[path], info_name=path, **SETTINGS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_any_terminal(path, monkeypatch):
    for columns in (60, 80, 110):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = re.sub(r"\x1b\[\d*m", "", context(path).get_help())
        shown, _, examples_shown = text.partition("\nExamples:\n")
        assert max(map(len, shown.splitlines())) <= columns
        assert max(map(len, examples_shown.splitlines()), default=0) <= 80


@pytest.mark.parametrize("path", COMMANDS)
def test_every_parameter_is_explained_and_says_how_its_value_is_written(path):
    ctx = context(path)
    groups = options_by_group(ctx, COMMANDS[path].get_params(ctx))
    assert tuple(groups) == tuple(name for name in GROUPS if name in groups)
    for param in (param for group in groups.values() for param in group):
        names, form, text = option_row(ctx, param)
        assert names or form
        assert re.match(r"[A-Z].*[.\]]$|exact: ", text), (path, names, text)
        assert "<" not in form, f"{path} {names} has no metavar"
        is_flag = getattr(param, "is_flag", False)
        assert bool(form) != is_flag


def test_the_list_of_commands_has_one_line_for_each():
    lines = rotary("--help", COLUMNS="80").stdout.splitlines()
    for name, command in TOP.commands.items():
        assert any(line.split() == [name, *description(command.help).split("\n")[0].split()] for line in lines), name


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not isinstance(command, Group)])
def test_every_command_has_examples_that_it_accepts(path):
    lines = examples(COMMANDS[path].help)
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" | ")[0])
        words = words[words.index("--") + 1 :] if words[0] != "rotary-batch" else words
        assert words[: path.count(" ") + 1] == path.split()
        given = COMMANDS[path].make_context(path, words[path.count(" ") + 1 :]).params
        flags = {name: given[name] for name in given if name in Settings.__slots__ and isinstance(given[name], str)}
        user_values(flags=flags, environment={}, folders=(), config=None)


def test_no_command_shows_the_help_as_a_mistake():
    asked, unasked = rotary("--help"), rotary()
    assert (asked.returncode, asked.stderr) == (0, "")
    assert (unasked.returncode, unasked.stdout, unasked.stderr) == (2, "", asked.stdout)
    assert "\x1b" not in asked.stdout  # not a terminal


@pytest.mark.parametrize("arguments", ["-V", "--version", "run -V", "model info --version"])
def test_every_command_tells_the_version(arguments):
    done = rotary(*arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"rotary-batch \d+\.\d+\.\S+\n", done.stdout)


SCRIPT = """
eval "$(rotary-batch --show-completion)"
complete -p rotary-batch
for words in "rotary-batch dr" "rotary-batch drain --num" "rotary-batch drain --numerics e" "rotary-batch model "; do
    IFS=' ' read -ra COMP_WORDS <<< "$words"; [[ $words == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _rotary_batch_completion rotary-batch; echo "${COMPREPLY[@]}"
done
"""


def test_bash_completes_commands_options_and_choices():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", SCRIPT], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "complete -o default -F _rotary_batch_completion rotary-batch",
        "drain",
        "--numerics",
        "exact",
        "pack info verify calibrate",
    ]


@pytest.mark.parametrize(
    ("shell", "check"),
    [
        ("bash", "source ~/.bashrc; complete -p rotary-batch"),
        ("zsh", "source ~/.zshrc; print $_comps[rotary-batch]"),
        ("fish", "complete -C 'rotary-batch dr'"),
    ],
)
def test_completion_is_installed_for_a_shell(shell, check, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    command = [shell, "-c", f"rotary-batch --install-completion; {check}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^(complete -o default -F |_rotary-batch$|drain\t)", done.stdout, re.MULTILINE)


def test_help_loads_nothing_that_works():
    """It has to be shown within 0.3 s."""
    code = "import sys; sys.argv = ['rotary-batch', 'run', '-h']; from rotary_batch.cli import app\ntry: app()\nexcept SystemExit: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split("\n")[-2].split()
    assert "rotary_batch.cli.run" in loaded
    slow = {"torch", "numpy", "rich", "docutils", "griffe", "tree_sitter", "tokenizers", "sqlite_utils"}
    assert not slow & set(loaded)
    assert not [name for name in loaded if re.match(r"rotary_batch\.(runner|planner|pages\.page|engine)$", name)]
