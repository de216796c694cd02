"""The commands as they are typed: parse, call one function, print.

Knows options, exit codes and which printer belongs to which answer; everything else is below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from rotary_batch import commands, console, own_file
from rotary_batch.commands.configuration import Configured, configure
from rotary_batch.commands.database import chosen, database_path, reading, writing
from rotary_batch.commands.isolation import Failure, exit_code, failures
from rotary_batch.commands.options import (
    Config,
    Db,
    Dense,
    Device,
    DeviceMemory,
    Experts,
    For,
    HostMemory,
    IndexedRepos,
    JobName,
    Json,
    Kv,
    Limit,
    LinkTemplate,
    Log,
    MaxBatch,
    Model,
    Numerics,
    OneRepo,
    Out,
    PackPath,
    Repos,
    ShapeName,
    Until,
    Worktree,
)
from rotary_batch.config import Settings
from rotary_batch.errors import ModelError, RepositoryError, UsageError
from rotary_batch.log import log_to
from rotary_batch.process import guarded
from rotary_batch.window import Window, stop_on_signals
from rotary_batch.work.items import ask_again

if TYPE_CHECKING:
    from rotary_batch.commands.drain import DrainOutcome
    from rotary_batch.commands.reports import Reports

app = typer.Typer(
    name="rotary-batch",
    help="Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
model_app = typer.Typer(help="Prepare a model and look at it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")


def _configured(config: Path | None, repos: list[Path], **flags: Any) -> Configured:  # noqa: ANN401
    """What the user says, for commands that ask for each repository's settings themselves."""
    found = configure(config, repos, flags)
    for note in found.notes:
        console.say(f"note: {note}")
    return found


def _settings(config: Path | None, repos: list[Path], **flags: Any) -> Settings:  # noqa: ANN401
    """The settings of a command as a whole; what a repository may not set is said aside."""
    found = _configured(config, repos, **flags).whole()
    for note in found.notes:
        console.say(f"note: {note}")
    return found.settings


@app.command()
def index(
    repos: Repos = None,
    model: Model = None,
    worktree: Worktree = None,
    out: Out = None,
    job: JobName = None,
    link_template: LinkTemplate = None,
    numerics: Numerics = None,
    kv: Kv = None,
    experts: Experts = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    json: Json = False,
) -> None:
    """Walk, parse and chunk; write the structural pages; queue the work."""
    configured = _configured(
        config,
        repos or [],
        model=model,
        worktree=worktree,
        out=out,
        job=job,
        link_template=link_template,
        numerics=numerics,
        kv=kv,
        experts=experts,
        db=db,
    )
    if log is not None:
        log_to(log)
    limits = Window()
    with (
        stop_on_signals(limits),
        writing(configured.whole().settings, should_stop=limits.is_closed) as store,
        console.indexing() as progress,
    ):
        outcomes = commands.index.index(
            store, repos or [commands.inputs.repository_root(None)], configured.of, progress, limits
        )
    done = [one for one in outcomes if isinstance(one, commands.index.IndexOutcome)]
    _answer([outcome.as_dict() for outcome in outcomes], json, lambda: console.show_index(done))
    _exit(failures(outcomes), [])


@app.command()
def drain(
    repos: IndexedRepos = None,
    until: Until = None,
    for_: For = None,
    limit: Limit = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    job: JobName = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    json: Json = False,
) -> None:
    """Work until the queue is empty, the window closes or a signal comes."""
    configured = _configured(
        config,
        repos or [],
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
        job=job,
        db=db,
    )
    settings = configured.whole().settings
    if log is not None:
        log_to(log)
    limits = commands.drain.window(until=until, duration=for_, limit=limit)
    found: list[DrainOutcome | Failure] = []
    with stop_on_signals(limits), writing(settings, create=False, should_stop=limits.is_closed) as store:
        rows = commands.drain.chosen_apart(store, repos or [], found)
        gone = commands.drain.missing(rows)
        if gone and len(gone) == len(rows):
            raise RepositoryError(f"{gone[0].root}: no such directory any more; what is left of it stays in the queue")
        for row in gone:
            console.say(f"note: {row.root} is gone; what is left of it stays in the queue")
        saved = commands.reports.Reports(database_path(settings))
        with console.draining() as look:
            done = commands.drain.drain(
                store, configured.indexed, rows, limits, look, commands.engines.open_engine, "drain"
            )
            _save_each(done, found, saved)
    _finish(found, saved, json)


@app.command()
def run(
    repos: Repos = None,
    until: Until = None,
    for_: For = None,
    limit: Limit = None,
    model: Model = None,
    worktree: Worktree = None,
    out: Out = None,
    job: JobName = None,
    link_template: LinkTemplate = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    experts: Experts = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    json: Json = False,
) -> None:
    """Index, drain and render: the nightly command."""
    configured = _configured(
        config,
        repos or [],
        model=model,
        worktree=worktree,
        out=out,
        job=job,
        link_template=link_template,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
        experts=experts,
        db=db,
    )
    settings = configured.whole().settings
    if log is not None:
        log_to(log)
    limits = commands.drain.window(until=until, duration=for_, limit=limit)
    with stop_on_signals(limits), writing(settings, should_stop=limits.is_closed) as store:
        with console.indexing() as progress:
            outcomes = commands.index.index(
                store, repos or [commands.inputs.repository_root(None)], configured.of, progress, limits
            )
        indexed = [one for one in outcomes if isinstance(one, commands.index.IndexOutcome)]
        console.show_index(indexed, aside=json)
        roots = [Path(one.indexed.repository.root) for one in indexed]
        found: list[DrainOutcome | Failure] = [*failures(outcomes)]
        rows, saved = chosen(store, roots) if roots else [], commands.reports.Reports(database_path(settings))
        with console.draining() as look:
            done = commands.drain.drain(
                store, configured.indexed, rows, limits, look, commands.engines.open_engine, "run"
            )
            _save_each(done, found, saved)
    _finish(found, saved, json, {note for one in indexed for note in one.notes})


@app.command()
def render(
    repo: OneRepo = None,
    accept: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="ours|theirs PAGE", help="Settle a page that a person edited: take the new one, or leave theirs."
        ),
    ] = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write the pages that the database has; needs no model."""
    root = commands.inputs.repository_root(repo)
    settings, limits = _settings(config, [root], db=db), Window()
    with stop_on_signals(limits), writing(settings, create=False, should_stop=limits.is_closed) as store:
        if accept:
            if accept[0] not in {"ours", "theirs"}:
                raise UsageError(f"--accept {accept[0]!r}: write ours or theirs, then the page")
            commands.docs.accept_page(store, root, accept[1], accept[0])
        done = commands.docs.render(store, root, limits)
    _answer(asdict(done), json, lambda: console.show_projection(done))


@app.command()
def check(
    repo: OneRepo = None, worktree: Worktree = None, out: Out = None, config: Config = None, json: Json = False
) -> None:
    """Exit with 4 when docs are stale, missing or edited; needs neither model nor database."""
    root = commands.inputs.repository_root(repo)
    drift = commands.docs.check(_settings(config, [root], worktree=worktree, out=out), root)
    _answer(asdict(drift), json, lambda: console.show_drift(drift))
    raise typer.Exit(4 if drift.num_found else 0)


@app.command()
def trust(repo: OneRepo = None, json: Json = False) -> None:
    """Let all settings in a repository's own rotary.toml count while it stays as it is now."""
    root = commands.inputs.repository_root(repo)
    own, record = own_file.trust(root, os.environ), own_file.trust_record(root, os.environ)
    for note in own.notes:
        console.say(f"note: {note}")
    found = {"repository": str(root), "settings": own.values, "record": str(record), "notes": own.notes}
    _answer(found, json, lambda: console.show_trust(root, own.values, record))


@app.command()
def status(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """How far every repository is, and whether a driver runs now."""
    settings = _settings(config, repos or [], db=db)
    with reading(settings) as store:
        found = commands.status.status(store, settings, repos or [])
    _answer(found, json, lambda: console.show_status(found))


@app.command()
def retry(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Ask parked items again at the next drain, and what reads them."""
    with writing(_settings(config, repos or [], db=db), create=False) as store:
        count = ask_again(store, [row.id for row in chosen(store, repos or [])])
    _answer({"retried": count}, json, lambda: console.tell(f"{count} parked items go back into the queue"))


@app.command()
def plan(
    repos: IndexedRepos = None,
    until: Until = None,
    for_: For = None,
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
    """What is left to do, how long it takes, what would help most."""
    configured = _configured(
        config,
        repos or [],
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
        db=db,
    )
    left_s = commands.drain.window(until=until, duration=for_).seconds_left
    failed: list[Failure] = []
    with reading(configured.whole().settings) as store:
        found = commands.plan.plan(store, configured.indexed, repos or [], left_s, failed)
    for note in found["notes"]:
        console.say(f"note: {note}")
    _answer(found, json, lambda: console.show_plan(found))
    _exit(failed, [])


@app.command()
def bench(
    model: Model = None,
    shape: ShapeName = None,
    experts: Experts = None,
    dense: Dense = "bf16",
    kv: Kv = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    sequences: Annotated[int | None, typer.Option(min=1, help="Live sequences; default: as planned.")] = None,
    lengths: Annotated[str, typer.Option(help="short (64+32), job (600+100), or PROMPT+NEW tokens.")] = "short",
    drafts: Annotated[bool, typer.Option(help="Draft tokens by looking them up; never with --shape.")] = True,
    prefetch: Annotated[bool, typer.Option(help="Load experts before they are asked for.")] = True,
    prefill_revolutions: Annotated[
        int | None, typer.Option(min=1, help="Skip what is left of the prompts after so many revolutions.")
    ] = None,
    decode_revolutions: Annotated[
        int | None, typer.Option(min=2, help="Stop after so many revolutions of decoding alone; they are alike.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Measure the machine only, and keep its rates.")] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg|FILE.json", help="Draw reads and compute, or write trace events for Perfetto."),
    ] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Record what routers chose.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Measure the machine, or an engine against its bound."""
    settings = _settings(
        config,
        [],
        model=model,
        experts=experts,
        kv=kv,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
    )
    if machine:
        found = commands.bench.machine(settings).as_dict()
    else:
        with console.counting("experts written") as progress:
            pack = commands.bench.pack_for(settings, shape, dense, progress)
        wanted = commands.bench.BenchOptions(
            sequences,
            commands.bench.lengths_of(lengths),
            timeline,
            trace,
            drafts=drafts and shape is None,
            prefetch=prefetch,
            prefill_revolutions=prefill_revolutions,
            decode_revolutions=decode_revolutions,
        )
        found = commands.bench.bench(settings, pack, wanted)
    _answer(found, json, lambda: console.show_figures(found))


@app.command()
def report(db: Db = None, config: Config = None, json: Json = False) -> None:
    """What the last run did."""
    settings = _settings(config, [], db=db)
    with reading(settings) as store:
        found = commands.status.report(store, settings)
    _answer(found, json, lambda: console.show_report(found))


@app.command()
def inspect(
    kind: Annotated[str, typer.Argument(help="files, symbols, chunks or items")],
    repo: OneRepo = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line (the only format).")] = True,
    db: Db = None,
    config: Config = None,
) -> None:
    """What the index holds, one JSON object a line."""
    root = commands.inputs.repository_root(repo)
    with reading(_settings(config, [root], db=db)) as store, console.reader():
        for row in commands.status.inspect(store, kind, root):
            typer.echo(commands.status.to_json(row))


@app.command()
def explain(
    path: Annotated[str, typer.Argument(help="A file, relative to the repository.")],
    repo: OneRepo = None,
    worktree: Worktree = None,
    out: Out = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Why a file is read or not."""
    root = commands.inputs.repository_root(repo)
    found = commands.status.explain(_settings(config, [root], worktree=worktree, out=out), root, path)
    _answer(found, json, lambda: console.show_facts(found))


@app.command()
def generate(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="OpenAI-batch requests.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.jsonl", help="Results are appended here.")],
    model: Model = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    config: Config = None,
) -> None:
    """The engine alone: answer a file of requests; run it again to go on."""
    settings = _settings(
        config,
        [],
        model=model,
        device=device,
        device_memory=device_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
    )
    pack = commands.inputs.pack_dir(settings)
    from rotary_batch.model.tokens import Tokenizer

    tokenizer = Tokenizer.load(pack)
    options = commands.engines.engine_options(settings)
    with console.counting("answers") as progress:
        written, failed = commands.generate.generate(
            source, output, tokenizer, lambda: commands.engines.open_engine(pack, options), progress
        )
    console.say(f"{written} results written to {output}; {failed} of all are errors")
    raise typer.Exit(5 if failed else 0)


@model_app.command("pack")
def model_pack(
    src: Annotated[Path, typer.Argument(help="A Hugging Face Mixtral checkpoint.")],
    dst: Annotated[Path, typer.Argument(help="The folder to make.")],
    experts: Annotated[Literal["bf16", "int8", "int4"], typer.Option(help="How experts are stored.")] = "bf16",
    dense: Dense = "bf16",
) -> None:
    """Turn a checkpoint into a pack; run it again after a kill to go on."""
    from rotary_batch.engine.packs.pack import pack

    with console.counting("experts") as progress:
        pack(src, dst, experts=experts, dense=dense, progress=progress)
    console.show_facts(commands.models.info(dst))


@model_app.command("info")
def model_info(path: PackPath = None, json: Json = False) -> None:
    """What a pack holds."""
    found = commands.models.info(path or commands.inputs.EMBEDDED)
    _answer(found, json, lambda: console.show_facts(found))


@model_app.command("verify")
def model_verify(path: PackPath = None) -> None:
    """Read every byte of a pack and compare digests."""
    from rotary_batch.engine.packs.pack import verify

    with console.counting("experts") as progress:
        wrong = verify(path or commands.inputs.EMBEDDED, progress)
    for name in wrong:
        console.say(f"damaged: {name}")
    if wrong:
        raise ModelError(f"{path or commands.inputs.EMBEDDED}: {len(wrong)} damaged parts; pack the model again")
    console.tell("every byte is as it was packed")


@app.command()
def doctor(db: Db = None, config: Config = None, json: Json = False) -> None:
    """What is installed and what is missing."""
    found = commands.models.doctor(_settings(config, [], db=db))
    rows = [{"what": what, "ok": well, "fact": fact} for what, well, fact in found]
    _answer(rows, json, lambda: console.show_doctor(found))
    raise typer.Exit(0 if all(well for _, well, _ in found) else 69)


def _save_each(done: Iterable[DrainOutcome | Failure], found: list[DrainOutcome | Failure], saved: Reports) -> None:
    """Add what comes to `found`, and report it at once: what ends the command takes no report away."""
    for one in done:
        found.append(one)
        with suppress(OSError):  # said at the end
            saved.save(found)


def _finish(found: list[DrainOutcome | Failure], saved: Reports, json: bool, told: Collection[str] = ()) -> None:
    saved.save(found)
    outcomes, failed = [one for one in found if isinstance(one, commands.drain.DrainOutcome)], failures(found)
    _answer([one.as_dict() for one in found], json, lambda: console.show_drain(outcomes, saved.paths, told))
    _exit(failed, outcomes)


def _exit(failed: list[Failure], outcomes: list[DrainOutcome]) -> NoReturn:
    for failure in failed:
        console.say(f"rotary-batch: {failure}")
    raise typer.Exit(exit_code([*(one.exit_code for one in failed), *(one.exit_code for one in outcomes)]))


def _answer(data: object, json: bool, show: Callable[[], None]) -> None:
    with console.reader():
        if json:
            typer.echo(commands.status.to_json(data))
        else:
            show()


def main() -> None:
    """Run the command line; whatever happens is one line and an exit code."""
    guarded(app)


if __name__ == "__main__":
    main()
