"""`models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Device, DeviceMemory, HostMemory, Json, Kv, MaxBatch
from rotary_batch.cli.settings import command_settings
from rotary_batch.sizes import duration_text


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, in detail.", show_default="list all")
    ] = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    kv: Kv = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """List known models: sizes, memory, licence, speed here.

    Nothing is downloaded: the command that gets a model is printed. Speeds are computed from the rates that
    `bench --machine` measured, for 10,000 questions of 600 tokens with answers of 100.

    Examples:
        rotary-batch models
        rotary-batch models qwen3-coder-30b --device cuda --device-memory 22GB
        rotary-batch models --json
    """
    settings = command_settings(
        config,
        [],
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        kv=kv,
    )
    if name is None:
        known = commands.named_models.listed(settings)
        print_answer(known, json, lambda: _print_list(known, settings.device))
        return
    one = commands.named_models.detailed(name, settings)
    print_answer(one, json, lambda: _print_one(one, settings.device))


def _print_list(known: Sequence[Mapping[str, Any]], device: str) -> None:
    title = f"Known models; experts and speed on {device} in the smallest of their usual formats"
    columns = ("name", "B params", "experts", "memory", "licence", "opens", "tok/s")
    table = console.Table(title, *columns)
    for one in known:
        size = one["format"]
        table.row(
            one["name"],
            f"{one['params'] / 1e9:.1f}/{one['active_params'] / 1e9:.1f}",
            console.nbytes(size["experts_nbytes"]),
            console.nbytes(size["least_device_memory"]),
            one["licence"],
            "yes" if one["is_opened"] else "no",
            _speed(size["here"]),
        )
    table.print()
    if needs := known[0]["format"]["here"].get("needs"):
        console.paragraph(f"The speed of this machine is not known: run `rotary-batch {needs}` once.")
    console.paragraph(
        "B params: billions, all/active for a token. memory: the least of the device; experts that do not fit are in "
        "host memory or on disk. opens: this version has the family. tok/s: new tokens a second at the bound; - means "
        "too large."
    )
    console.paragraph("`rotary-batch models NAME` shows one in detail, with the command that downloads it.")


def _billions(params: int) -> str:
    return f"{params / 1e9:.1f} B"


def _speed(here: Mapping[str, Any]) -> str:
    if "does_not_fit" in here:
        return "-"
    return f"{here['decode_tokens_per_s']:,.1f}" if "decode_tokens_per_s" in here else ""


def _print_one(one: Mapping[str, Any], device: str) -> None:
    table = console.Table(f"{one['name']} ({one['repository']})", "", "")
    table.row("licence", one["licence"])
    table.row("parameters, active for a token", f"{_billions(one['params'])}, {_billions(one['active_params'])}")
    experts = f"{one['experts_per_layer']} in each of {one['layers']} layers, {one['top_k']} for each token"
    table.row("experts", experts)
    table.row("context, tokens", one["context_tokens"])
    table.row("this version opens it", "yes" if one["is_opened"] else "no")
    table.print()
    console.out(f"To download it: {one['download']}")
    for size in one["formats"]:
        _format_table(size, device).print()
        if reason := size["here"].get("does_not_fit"):
            console.paragraph(reason)
        if needs := size["here"].get("needs"):
            console.paragraph(f"The speed of this machine is not known: run `rotary-batch {needs}` once.")


def _format_table(size: Mapping[str, Any], device: str) -> console.Table:
    here = size["here"]
    table = console.Table(f"{size['experts']} experts on {device}, computed", "", "")
    table.row(
        "an expert, all experts", f"{size['expert_nbytes'] / 1e6:.1f} MB, {console.nbytes(size['experts_nbytes'])}"
    )
    table.row("the rest, in device memory", console.nbytes(size["dense_nbytes"]))
    table.row("KV cache of a token", f"{size['kv_token_nbytes'] / 1024:,.0f} KiB")
    if size["state_nbytes"]:
        table.row("state of a sequence", console.nbytes(size["state_nbytes"]))
    table.row("least device memory", console.nbytes(size["least_device_memory"]))
    if "decode_tokens_per_s" in here:
        table.row("sequences at once", here["batch"])
        table.row(
            "experts resident / in host memory / on disk",
            f"{here['residents']} / {here['in_host_memory']} / {here['from_disk']}",
        )
        table.row("one revolution", f"{here['revolution_s']:.2f} s (limited by {here['binding']})")
        table.row("new tokens a second", f"{here['decode_tokens_per_s']:,.1f}")
        table.row("10,000 questions", duration_text(3600 * here["hours"]))
        table.row("what would help most", here["best_next"] or "nothing known")
    return table
