"""Help and usage errors: options in groups, examples, and for a mistake one line with the nearest right word."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import typer
from typer._click import Command as ClickCommand
from typer._click import Context, HelpFormatter, Parameter
from typer._click.exceptions import (
    BadOptionUsage,
    BadParameter,
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
)
from typer._click.exceptions import UsageError as ClickUsageError
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from rotary_batch import __version__, interrupts
from rotary_batch.config import did_you_mean, excerpt
from rotary_batch.errors import UsageError

WHAT, WHEN, MODEL, MACHINE, OUTPUT, GENERAL = "What", "When", "Model", "Machine", "Output", "General"
GROUPS = (WHAT, WHEN, MODEL, MACHINE, OUTPUT, GENERAL)  # of options, in the order of --help
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
Row = tuple[str, str, str]  # names, the form of a value, what it does
_EXAMPLES = "\n\nExamples:\n"  # where the examples begin in the docstring of a command
_COLUMN = 28  # characters of the widest first column; a longer option has a line of its own
_TEXT = 40  # the least characters of a second column


class _Help(ClickCommand):
    """What the help of a command and of a group of commands share."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """The parameters, and `--version`."""
        return [*super().get_params(ctx), _VERSION]

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the arguments.  An error has the context that its advice needs."""
        try:
            return super().parse_args(ctx, args)
        except ClickUsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The arguments as they are written everywhere else, without the braces that are put around some."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_usage(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The line of usage."""
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)), f"{_bold('Usage:')} ")

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The docstring up to the examples."""
        formatter.write_paragraph()
        formatter.write_text(description(self.help))

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The options by group."""
        groups = options_by_group(ctx, self.get_params(ctx))
        _write_sections(
            formatter, {name: [option_row(ctx, param) for param in group] for name, group in groups.items()}
        )

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The examples."""
        if lines := examples(self.help):
            with formatter.section(_bold("Examples")):
                formatter.write("".join(f"  {line}\n" for line in lines))


class Command(_Help, TyperCommand):
    """A command whose help has groups of options, and examples from its docstring."""

    def invoke(self, ctx: Context) -> Any:  # noqa: ANN401 - as typer has it
        """Run the command.  From here on a signal lets it clean up."""
        interrupts.unwind()
        return super().invoke(ctx)


class Group(_Help, TyperGroup):
    """A command that has commands; its help lists them by group."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The commands by group, then the options."""
        sections: dict[str, list[Row]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            section = sections.setdefault(getattr(command, "rich_help_panel", None) or "Commands", [])
            section.append((name, "", description(command.help).split("\n\n")[0]))
        _write_sections(formatter, sections)
        super().format_options(ctx, formatter)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is named.  Raises UsageError with the nearest one."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(f"no such command {excerpt(args[0])}{self._advice(ctx, args[0])}")
        return super().resolve_command(ctx, args)

    def _advice(self, ctx: Context, word: str) -> str:
        if ctx.parent is None and os.path.isdir(word):  # noqa: PTH112 - pathlib raises for a name that is too long
            return f"; to document that folder, write `{ctx.command_path} run {shlex.quote(word)}`"
        return did_you_mean(word, self.commands) or f"; `{ctx.command_path} --help` lists them"

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - as click has it
        """Run the command line and exit.  Raises UsageError for a wrong one."""
        try:
            code = super().main(*args, **{**extra, "prog_name": "rotary-batch", "standalone_mode": False})
        except NoArgsIsHelpError as error:  # no command: the help, but nothing was done
            error.show()
            sys.exit(UsageError.exit_code)
        except ClickException as error:
            raise UsageError(one_line(error)) from error
        sys.exit(code if isinstance(code, int) else 0)


def description(text: str | None) -> str:
    """A docstring up to its examples."""
    return inspect.cleandoc(text or "").partition(_EXAMPLES)[0]


def examples(text: str | None) -> list[str]:
    """The examples in a docstring: lines of a shell."""
    return inspect.cleandoc(inspect.cleandoc(text or "").partition(_EXAMPLES)[2]).splitlines()


def option_row(ctx: Context, param: Parameter) -> Row:
    """The names of an option or argument, the form of its value, and what it does with its default."""
    form = param.make_metavar(ctx)
    if isinstance(param, TyperArgument):
        names = ""
    else:
        assert isinstance(param, TyperOption)
        names = ", ".join(sorted(param.opts, key=len)) + "".join(f" / {name}" for name in param.secondary_opts)
        form = "" if param.is_flag else form
    assert isinstance(param, TyperArgument | TyperOption)
    return names, form, (param.help or "") + _default(param)


def options_by_group(ctx: Context, params: Sequence[Parameter]) -> dict[str, list[Parameter]]:
    """The visible parameters of each group, in the order of GROUPS; what names no group is in the last."""
    groups: dict[str, list[Parameter]] = {name: [] for name in GROUPS}
    for param in params:
        if not getattr(param, "hidden", False):
            default = WHAT if isinstance(param, TyperArgument) else GENERAL
            groups.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(param)
    return {name: params for name, params in groups.items() if params}


def one_line(error: ClickException) -> str:
    """A usage error in one line: what is wrong, and what to write instead."""
    if not isinstance(error, ClickUsageError) or error.ctx is None:
        return error.format_message()
    ctx = error.ctx
    see = f"; `{ctx.command_path} --help` shows how"
    if isinstance(error, NoSuchOption):
        return f"no such option {excerpt(error.option_name)}{_option_advice(error.option_name, ctx)}"
    if isinstance(error, BadOptionUsage):
        return f"{error.option_name}: {_value_advice(error.option_name, ctx)}"
    if isinstance(error, MissingParameter):
        return f"{_name(error.param, ctx)} is missing{see}"
    if isinstance(error, BadParameter):
        return f"{_name(error.param, ctx)}: {error.message.rstrip('.')}"
    text = error.format_message().rstrip(".")
    if extra := re.fullmatch(r"Got unexpected extra argument\(s\) \((.*)\)", text, re.DOTALL):
        return f"unexpected: {extra[1]}{see}"
    return text[:1].lower() + text[1:] + see


def _option_advice(name: str, ctx: Context) -> str:
    names = [option for param in ctx.command.get_params(ctx) for option in (*param.opts, *param.secondary_opts)]
    if isinstance(ctx.command, Group) and any(name in param.opts for param in _params_below(ctx.command)):
        return f"; write {name} after the command"
    if not name.startswith("--"):
        names = []  # one letter is near any other
    return did_you_mean(name, names) or f"; `{ctx.command_path} --help` lists them"


def _params_below(group: Group) -> Iterator[Parameter]:
    for command in group.commands.values():
        yield from command.params
        if isinstance(command, Group):
            yield from _params_below(command)


def _value_advice(name: str, ctx: Context) -> str:
    param = next((param for param in ctx.command.get_params(ctx) if name in param.opts), None)
    if param is None or getattr(param, "is_flag", False):
        return "takes no value"
    return f"a value is missing; write {name} {param.make_metavar(ctx)}"


def _name(param: Parameter | None, ctx: Context) -> str:
    if param is None:
        return "a value"
    if isinstance(param, TyperArgument):
        return param.make_metavar(ctx)
    return max(param.opts, key=len)


def _default(param: TyperArgument | TyperOption) -> str:
    if isinstance(param.show_default, str):
        return f" [default: {param.show_default}]"
    value = param.default
    if value is None or not param.show_default or getattr(param, "is_flag", False):
        return ""
    return f" [default: {value}]"


def _write_sections(formatter: HelpFormatter, sections: Mapping[str, Sequence[Row]]) -> None:
    """Sections of two aligned columns; on a narrow terminal the text is below the name."""
    widths = [len(_joined(row)) for rows in sections.values() for row in rows]
    column = min(max(widths, default=0), _COLUMN) + 4
    indent = " " * (column if formatter.width >= column + _TEXT else 6)
    for title, rows in sections.items():
        with formatter.section(_bold(title)):
            formatter.write("".join(f"{line}\n" for row in rows for line in _row_lines(row, indent, formatter.width)))


def _row_lines(row: Row, indent: str, width: int) -> list[str]:
    """A row as lines: its text is to the right of the name, or below it when the name is too long."""
    joined = _joined(row)
    first = f"  {joined.replace(row[0], _bold(row[0]), 1)}"
    # Not broken at hyphens: the names of options and files have them.
    lines = textwrap.wrap(row[2], width - len(indent), break_on_hyphens=False)
    if not lines or len(joined) + 4 > len(indent):
        return [first, *(indent + line for line in lines)]
    return [first + indent[len(joined) + 2 :] + lines[0], *(indent + line for line in lines[1:])]


def _joined(row: Row) -> str:
    return " ".join(filter(None, row[:2]))


def _bold(text: str) -> str:
    """Bold on a terminal: the printer of help removes it elsewhere."""
    return typer.style(text, bold=True) if text and os.environ.get("TERM") != "dumb" else text


def _print_version(ctx: Context, _param: Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        typer.echo(f"rotary-batch {__version__}")
        ctx.exit()


_VERSION = TyperOption(
    param_decls=["-V", "--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
