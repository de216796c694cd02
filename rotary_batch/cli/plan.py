"""`plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import NOTHING_INDEXED, exit_with, print_answer
from rotary_batch.cli.help import MODEL
from rotary_batch.cli.options import (
    Config,
    Db,
    Device,
    DeviceMemory,
    For,
    HostMemory,
    IndexedRepos,
    Json,
    Kv,
    MaxBatch,
    Numerics,
    Until,
)
from rotary_batch.cli.settings import user_settings
from rotary_batch.cli.status import UNITS
from rotary_batch.commands.database import reading
from rotary_batch.commands.isolation import Failure
from rotary_batch.sizes import count, duration_text
from rotary_batch.window import open_window


def plan(
    repos: IndexedRepos = None,
    until: Until = None,
    for_: For = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="NAME",
            help="Another model: a name that `models` lists, a pack or a checkpoint.",
            show_default="those of the index",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Estimate hours and nights, and what would help most.

    It reads what was measured before: run `bench --machine` once. Nothing is done, and no model is opened.

    Examples:
        rotary-batch plan
        rotary-batch plan --device cuda --device-memory 22GB
        rotary-batch plan ~/src/app --until 07:00
        rotary-batch plan --model qwen3-coder-30b --device cuda
    """
    user = user_settings(
        config,
        repos,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
        db=db,
    )
    seconds_left = open_window(until=until, duration=for_).seconds_left
    failures: list[Failure] = []
    settings = user.for_command().settings
    with reading(settings) as store:
        if model is None:
            answer = commands.plan.plan(store, user.for_indexed, repos or [], seconds_left, failures)
        else:
            manifest = commands.named_models.manifest_named(settings, model)
            answer = commands.plan.plan_with(store, settings, manifest, repos or [], seconds_left)
    for note in answer["notes"]:
        console.err(f"note: {note}")
    print_answer(answer, json, lambda: print_plan(answer))
    exit_with(failures)


def print_plan(answer: Mapping[str, Any]) -> None:
    """The open items of every repository, and a forecast for every model."""
    if not answer["repositories"]:
        console.out(NOTHING_INDEXED)
    names = ("items", "prompt_tokens", "unknown", "new_tokens")
    for repository in answer["repositories"]:
        title = f"{repository['root']} ({repository['model']})"
        table = console.Table(title, "unit", "items", "prompt tokens", "unknown prompts", "most new tokens")
        for unit, row in repository["open"].items():
            table.row(UNITS[unit], *(row[name] for name in names))
        table.row("total", *(sum(row[name] for row in repository["open"].values()) for name in names))
        table.print()
    for model in answer["models"]:
        _print_forecast(model)


def _print_forecast(model: Mapping[str, Any]) -> None:
    if "needs" in model:
        known = "The speed of this machine is not known" if "last_run" in model else "The hours are not known"
        _print_last_run(model)
        _print_expected(model)
        console.out(f"{known}: measure this machine once with `rotary-batch {model['needs']}`")
        return
    _forecast_table(model).print()
    _print_last_run(model)
    _print_expected(model)
    if model["numerics"] == "exact":
        console.out("These are the rates of fast numerics; exact numerics, as set here, take longer.")


def _forecast_table(model: Mapping[str, Any]) -> console.Table:
    table = console.Table(f"{model['model']} ({model['experts']} experts) on {model['device']}, at the bound", "", "")
    table.row("device memory", console.nbytes(model["device_memory"]))
    table.row("live sequences", model["batch"])
    kv_tokens = f"{model['device_kv_tokens']:,} / {model['host_kv_tokens']:,}"
    table.row("KV cache on the device / in host memory, tokens", kv_tokens)
    table.row("experts resident / ring slots", f"{model['residents']} / {model['ring_slots']}")
    table.row("other experts in host memory / on disk", f"{model['in_host_memory']} / {model['from_disk']}")
    table.row("one revolution", f"{model['revolution_s']:.2f} s (limited by {model['binding']})")
    table.row("  moving experts / compute", f"{model['move_s']:.2f} s / {model['compute_s']:.2f} s")
    table.row("new tokens a second", f"{model['decode_tokens_per_s']:,.1f}")
    table.row("least time for everything", _nights(model["hours"]))
    table.row("what would help most", model["best_next"] or "nothing known")
    table.row("the machine's rates", model["rates"])
    return table


def _print_last_run(model: Mapping[str, Any]) -> None:
    if "last_run" in model:
        console.out(
            f"{model['model']} on {model['device']} at the speed of its last run ({model['last_run']}, "
            f"{model['last_run_tokens_per_s']:,.1f} tokens a second): {_nights(model['hours_as_last_run'])}"
        )


def _print_expected(model: Mapping[str, Any]) -> None:
    """What will be done by the deadline, and what would help."""
    for line in expected_lines(model.get("expected", {})):
        console.paragraph(line)


def expected_lines(expected: Mapping[str, Any]) -> Iterator[str]:
    """Sentences; none without a forecast."""
    if not expected:
        return
    is_bound = expected["basis"] == "the bound"
    basis = "at the bound" if is_bound else f"as fast as {expected['basis']}"
    yield f"All {expected['items']:,} items take {_nights(expected['seconds'] / 3600)}, {basis}."
    if "files_by_deadline" in expected:
        files = expected["files_by_deadline"]
        yield (
            f"By the deadline {expected['items_by_deadline']:,} of {expected['items']:,} items are done, "
            f"and all of {files['done']:,} of {count(files['files'], 'file')}, those of the most worth first."
        )
        for title, paths in (("First", files["first"]), ("Not done by then, of the most worth", files["left"])):
            if paths:
                yield f"{title}: {', '.join(paths)}"
    for one in expected["helps"]:
        then = "" if one["items_by_deadline"] is None else f", {one['items_by_deadline']:,} items by the deadline"
        yield f"{one['change']}: {one['gain']:.1f}x as fast{then} (going by {one['source']})"


def _nights(hours: float) -> str:
    return f"{hours:.1f} h = {hours / 8:.1f} nights of 8 h" if hours >= 1 else duration_text(hours * 3600)
