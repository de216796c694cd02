"""Write docs/rotary-batch.1 from the help of every command and tables of the user guide.  `python docs/man_page.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer._click import Command, Context

from rotary_batch import __version__
from rotary_batch.cli import app
from rotary_batch.cli.help import Group, Row, description, examples, option_row, options_by_group
from rotary_batch.commands.settings_file import DESCRIBED

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rotary-batch.1"
COMMON = ("--help", "--version")  # explained once


def text() -> str:
    """The page, in the macros of man(7)."""
    program = typer.main.get_command(app)
    assert isinstance(program, Group)
    return "\n".join([*_front(program), *_commands(program), *_back(program)]) + "\n"


def _front(program: Group) -> Iterator[str]:
    yield f'.\\" Written by docs/man_page.py.\n.TH ROTARY-BATCH 1 "" "rotary-batch {__version__}" "User commands"'
    summary = description(program.help).rstrip(".")
    yield f".nh\n.ad l\n.SH NAME\nrotary\\-batch \\- {_plain(summary[0].lower() + summary[1:])}"
    yield ".SH SYNOPSIS\n.B rotary\\-batch\n.I COMMAND\n[\\fIOPTIONS\\fR] [\\fIARGS\\fR]"
    yield from _section("EXAMPLES", _example_lines(program))


def _commands(program: Group) -> Iterator[str]:
    """Each command with its options, by the groups of the main help."""
    for heading, members in _by_heading(program).items():
        yield f".SH {_plain(heading).upper()}"
        for name, command in members:
            if isinstance(command, Group):
                for inner, inner_command in command.commands.items():
                    yield from _command(f"{name} {inner}", inner_command)
            else:
                yield from _command(name, command)


def _by_heading(program: Group) -> dict[str, list[tuple[str, Command]]]:
    headings: dict[str, list[tuple[str, Command]]] = {}
    for name, command in program.commands.items():
        headings.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append((name, command))
    return headings


def _command(path: str, command: Command) -> Iterator[str]:
    ctx = Context(command, info_name=f"rotary-batch {path}")
    yield f".SS {_plain(' '.join([path, *command.collect_usage_pieces(ctx)]))}"
    yield "\n.PP\n".join(_plain(" ".join(part.split())) for part in description(command.help).split("\n\n"))
    for group in options_by_group(ctx, command.get_params(ctx)).values():
        for param in group:
            if not set(COMMON) & set(param.opts):
                yield _option(option_row(ctx, param))
    yield from _example_lines(command)


def _option(row: Row) -> str:
    names, form, explained = row
    return f".TP\n{' '.join(filter(None, (names and _bold(names), form and _italic(form))))}\n{_plain(explained)}"


def _example_lines(command: Command) -> list[str]:
    lines = examples(command.help)
    return [".PP\n.EX", *(_plain(f"    {line}") for line in lines), ".EE"] if lines else []


def _back(program: Group) -> Iterator[str]:
    ctx = Context(program, info_name="rotary-batch", help_option_names=["-h", "--help"])
    params = [param for group in options_by_group(ctx, program.get_params(ctx)).values() for param in group]
    common = [param for param in params if set(COMMON) & set(param.opts)]
    alone = [param for param in params if param not in common]
    yield from _section("OPTIONS OF EVERY COMMAND", [_option(option_row(ctx, param)) for param in common])
    yield from _section("OPTIONS WITHOUT A COMMAND", [_option(option_row(ctx, param)) for param in alone])
    yield ".SH SETTINGS\nKeys of rotary.toml; environment variables with ROTARY_BATCH_ before them. Options win."
    for name, setting in DESCRIBED.items():
        default = setting.default or setting.value.strip('"')
        yield _option((name, "", f"{setting.text} [default: {default}]"))
    for title in ("Files", "Exit codes"):
        yield from _section(title.upper(), [_option((first, "", second)) for first, second in guide_table(title)])


def _section(title: str, lines: list[str]) -> list[str]:
    return [f".SH {title}", *lines]


def guide_table(title: str) -> list[tuple[str, str]]:
    """The first two columns of the table in a section of the user guide, without Markdown."""
    guide = (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
    section = guide.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [(_unmarked(first), _unmarked(second)) for first, second, *_ in rows[2:]]


def _unmarked(cell: str) -> str:
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("`", "").replace("\\|", "|").strip()


def _bold(text: str) -> str:
    return f"\\fB{_plain(text)}\\fP"


def _italic(text: str) -> str:
    return f"\\fI{_plain(text)}\\fR"


def _plain(text: str) -> str:
    """Text without effect on roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", escaped)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
