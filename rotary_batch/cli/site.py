"""`site`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, Json, OneRepo, number
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.sizes import count
from rotary_batch.window import Window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.commands.site import BuiltSite

_POLL_S = 0.1


def site(
    repo: OneRepo = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the site.",
            show_default="rotary-site next to the docs",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    source_pages: Annotated[
        bool,
        typer.Option(
            "--source-pages",
            help="Put pages of the sources into the site, even if a forge has them.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Then serve it on 127.0.0.1 until interrupted.", rich_help_panel=OUTPUT),
    ] = False,
    port: Annotated[
        int, number(help="Port for --serve; 0 takes a free one.", group=OUTPUT, least=0, most=65535)
    ] = 8000,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Build the pages into a site with search, for any web server.

    It needs the extra `site`: pip install 'rotary-batch[site]'. No page of the site loads anything from another host.

    Examples:
        rotary-batch site ~/src/app --serve
        rotary-batch site ~/src/app --to /srv/www/app
    """
    root = commands.repositories.repository_root(repo)
    settings, window = command_settings(config, [root], db=db), Window()
    with stop_on_signals(window):
        with reading(settings) as store:
            built = commands.site.build_site(store, root, to, window, source_pages=source_pages)
        print_answer(asdict(built), json, lambda: print_site(built))
        if serve:
            with commands.serving.serving(Path(built.folder), port) as url, window.finishing(""):
                console.err(f"{url} (on this machine only; Ctrl-C ends it)")
                while not window.is_closed():
                    time.sleep(_POLL_S)


def print_site(built: BuiltSite) -> None:
    """Where the site is, and where its links to sources lead."""
    of_sources = count(built.source_pages, "page of sources", "pages of sources")
    sources = f"links to sources lead to {built.forge}" if built.forge else of_sources
    console.out(f"{count(built.pages, 'page')}, {sources}")
    for note in built.notes:
        console.out(f"note: {note}")
    console.out(f"site: {built.folder}")
