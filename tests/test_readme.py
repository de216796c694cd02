"""The README, the recipes and the package say the same as the program."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from rotary_batch.cli import app
from rotary_batch.config import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> dict[str, set[str]]:
    """Every command with its options, those of `model` as `model pack`."""
    found = {}

    def walk(group, prefix: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{prefix}{name} ")
            else:
                found[prefix + name] = {
                    text for option in command.params for text in option.opts + option.secondary_opts
                }

    walk(typer.main.get_command(app), "")
    return found


def test_the_table_of_commands_names_all_of_them_and_no_other():
    table = README[README.index("| command | does |") : README.index("Settings come from")]
    cells = [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in table.splitlines()[2:] if line]
    named = set()
    for text in (text for texts in cells for text in texts):
        words = text.replace("\\|", "|").split()
        named |= {f"model {word}" for word in words[1].split("|")} if words[0] == "model" else {words[0]}
    assert named == set(commands())


@pytest.mark.parametrize("path", ["README.md", *(f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir())])
def test_commands_that_are_shown_have_the_options_that_they_are_given(path):
    known = commands()
    lines = re.findall(
        r"(?:^|bin/|`|- run: |  )rotary-batch ((?!/)[a-z][^#`>\n]*)", (ROOT / path).read_text(), re.MULTILINE
    )
    for line in lines:
        words = line.split()
        name = " ".join(words[:2]) if words[0] == "model" else words[0]
        assert name in known, line
        assert {word for word in words if word.startswith("--")} <= known[name], line
    assert lines or path.endswith(".timer")


def test_every_setting_is_named():
    passage = README[README.index("Settings come from") : README.index("A job of your own")]
    assert {field.name for field in fields(Settings)} == set(re.findall(r"`([a-z_]+)`", passage))


@pytest.mark.parametrize(
    "path",
    ["README.md", "CHANGELOG.md", "NOTES.md", *(f"benchmarks/{p.name}" for p in (ROOT / "benchmarks").glob("*.md"))],
)
def test_links_lead_somewhere(path):
    page = ROOT / path
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_make_has_what_the_readme_runs():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_jobs_and_prompts_ship_inside_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"rotary_batch/_bundled/{name}" for name in ("jobs", "prompts")}
