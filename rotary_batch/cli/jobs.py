"""`jobs list`, `jobs show` and `jobs new`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT, WHAT
from rotary_batch.cli.options import Config, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.config import DEFAULT_JOB

JobArgument = Annotated[str, typer.Argument(metavar="NAME", help="The job.")]


def jobs_list(config: Config = None, json: Json = False) -> None:
    """List the jobs: what each is for, and what it describes.

    Examples:
        rotary-batch jobs list
    """
    jobs = commands.job_files.listed(command_settings(config, []))
    print_answer(jobs, json, lambda: _print_list(jobs))


def _print_list(jobs: Sequence[Mapping[str, Any]]) -> None:
    table = console.Table("Jobs", "name", "title", "describes")
    for job in jobs:
        table.row(job["name"], job["title"], ", ".join(job["units"]))
    table.print()


def jobs_show(name: JobArgument, config: Config = None, json: Json = False) -> None:
    """Print a job's file and its prompts.

    Examples:
        rotary-batch jobs show summarize
    """
    job = commands.job_files.shown(command_settings(config, []), name)
    print_answer(job, json, lambda: _print_job(job))


def _print_job(job: Mapping[str, Any]) -> None:
    console.out(f"# {job['path']}\n\n{job['text']}")
    for stem, text in job["prompts"].items():
        console.out(f"# prompts/{stem}.md\n\n{text}")


def jobs_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new job.")],
    source: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The job to copy.", rich_help_panel=WHAT)
    ] = DEFAULT_JOB,
    folder: Annotated[
        Path,
        typer.Option(
            "--to", metavar="DIR", help="Write below this folder, unless the settings name one.", rich_help_panel=OUTPUT
        ),
    ] = Path("rotary"),
    config: Config = None,
    json: Json = False,
) -> None:
    """Copy a job and its prompts under another name.

    Examples:
        rotary-batch jobs new onboarding-de --from summarize --to ~/rotary
    """
    made = commands.job_files.new(command_settings(config, []), name, source, folder)
    print_answer(made, json, lambda: _print_new(made))


def _print_new(made: Mapping[str, Any]) -> None:
    console.paths("Change these files: ", list(map(Path, made["files"])))
    if made["settings"]:
        console.out("Add to your rotary.toml:")
        for key, path in made["settings"].items():
            console.out(f'  {key} = "{path}"')
    console.paragraph(f"Then: rotary-batch run REPO --job {made['name']}")
