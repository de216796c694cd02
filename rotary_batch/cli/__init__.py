"""The commands as they are typed: parse the options, call one function of `commands`, print what it returns.

Each command is a function in a module of this package, together with the way its answer is printed for a person.  To
add one: write the function, and name it in `COMMANDS`.  `status` is the pattern of a command that reads the database,
`docs.render` of one that writes: it has a `Window`, `stop_on_signals` and `writing(should_stop=...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from rotary_batch import __version__
from rotary_batch.cli import (
    agents,
    bench,
    docs,
    doctor,
    drain,
    export,
    forget,
    generate,
    index,
    inspect,
    mcp,
    model,
    plan,
    retry,
    run,
    search,
    site,
    status,
    trust,
)
from rotary_batch.process import guarded

COMMANDS: tuple[Callable[..., None], ...] = (  # in the order of --help
    index.index,
    drain.drain,
    run.run,
    docs.render,
    docs.check,
    site.site,
    trust.trust,
    forget.forget,
    status.status,
    retry.retry,
    plan.plan,
    bench.bench,
    status.report,
    search.search,
    inspect.inspect,
    inspect.explain,
    export.export,
    mcp.mcp,
    agents.agents,
    generate.generate,
    doctor.doctor,
)
MODEL_COMMANDS: tuple[Callable[..., None], ...] = (model.pack, model.info, model.verify)

app = typer.Typer(
    name="rotary-batch",
    help="Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def print_version(wanted: bool) -> None:
    """Print the version and end, if that is wanted."""
    if wanted:
        typer.echo(f"rotary-batch {__version__}")
        raise typer.Exit


model_app = typer.Typer(help="Prepare a model, and inspect it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")
for command in COMMANDS:
    app.command()(command)
for command in MODEL_COMMANDS:
    model_app.command()(command)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU."""


def main() -> None:
    """Run the command line.  Every outcome, a failure included, ends the process with its exit code."""
    guarded(app)
