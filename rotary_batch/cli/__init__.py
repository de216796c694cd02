"""The commands as they are typed: parse the options, call one function of `commands`, print what it returns.

Each command is a function in a module of this package, together with the way its answer is printed for a person.  To
add one: write the function, and name it in `COMMANDS`, under the heading that `--help` lists it with.  Its docstring is
its help: one line of at most 62 characters, then paragraphs, then `Examples:` with lines of a shell, which a test
parses.  Its options name their group (options.py).  `status` is the pattern of a command that reads the database,
`docs.render` of one that writes: it has a `Window`, `stop_on_signals` and `writing(should_stop=...)`.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from rotary_batch.cli import (
    agents,
    bench,
    calibrate,
    config,
    docs,
    docstrings,
    doctor,
    drain,
    export,
    forget,
    gc,
    generate,
    import_,
    index,
    init,
    inspect,
    jobs,
    mcp,
    model,
    models,
    pause,
    plan,
    report,
    retry,
    run,
    search,
    site,
    status,
    trust,
    verify,
    why,
)
from rotary_batch.cli.help import SETTINGS, Command, Group
from rotary_batch.process import guarded

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {  # in the order of --help
    "The nightly work": (
        run.run,
        index.index,
        drain.drain,
        docs.render,
        docs.check,
        retry.retry,
        pause.pause,
        pause.unpause,
    ),
    "Looking at results": (
        status.status,
        report.report,
        plan.plan,
        search.search,
        why.why,
        inspect.explain,
        inspect.inspect,
    ),
    "Preparing": (init.init, models.models, doctor.doctor, bench.bench, trust.trust),
    "Keeping it in order": (verify.verify, gc.gc, forget.forget),
    "Integrating": (
        site.site,
        docstrings.docstrings,
        export.export,
        import_.import_,
        generate.generate,
        mcp.mcp,
        agents.agents,
    ),
}
MODEL_COMMANDS: tuple[Callable[..., None], ...] = (model.pack, model.info, model.verify, calibrate.calibrate)
JOB_COMMANDS: dict[str, Callable[..., None]] = {"list": jobs.jobs_list, "show": jobs.jobs_show, "new": jobs.jobs_new}
CONFIG_COMMANDS: tuple[Callable[..., None], ...] = (config.show,)


def _app(text: str, name: str | None = None) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=text,
        cls=Group,
        context_settings=SETTINGS,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=name is not None,
    )


app = _app(
    """Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU.

    Examples:
        rotary-batch run ~/src/app --until 07:00
        rotary-batch run --help
    """,
    name="rotary-batch",
)
model_app = _app("Prepare a model, inspect it, verify it.")
jobs_app = _app("List the jobs, show one, copy one to change it.")
config_app = _app("Show the settings, and where each comes from.")
for section, commands in COMMANDS.items():
    for command in commands:
        # `import` is a word of Python
        app.command(command.__name__.rstrip("_"), cls=Command, rich_help_panel=section)(command)
for command in MODEL_COMMANDS:
    model_app.command(cls=Command)(command)
for command in CONFIG_COMMANDS:
    config_app.command(cls=Command)(command)
for command_name, command in JOB_COMMANDS.items():
    jobs_app.command(command_name, cls=Command)(command)
app.add_typer(jobs_app, name="jobs", rich_help_panel="Preparing")
app.add_typer(config_app, name="config", rich_help_panel="Preparing")
app.add_typer(model_app, name="model", rich_help_panel="Preparing")


def main() -> None:
    """Run the command line.  Every outcome, a failure included, ends the process with its exit code."""
    guarded(app)
