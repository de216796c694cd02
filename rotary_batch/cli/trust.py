"""`trust`."""

from __future__ import annotations

import os

from rotary_batch import commands, console, own_file
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Json, OneRepo
from rotary_batch.config import FILE_NAME


def trust(repo: OneRepo = None, json: Json = False) -> None:
    """Let all settings in a repository's own rotary.toml count while it stays as it is now."""
    root = commands.repositories.repository_root(repo)
    own, record = own_file.trust(root, os.environ), own_file.trust_record(root, os.environ)
    for note in own.notes:
        console.err(f"note: {note}")

    def show() -> None:
        console.print_facts(own.values)
        console.out(
            f"these settings of {root} count now, until its {FILE_NAME} changes; to take that back, delete {record}"
        )

    data = {"repository": str(root), "settings": own.values, "record": str(record), "notes": own.notes}
    print_answer(data, json, show)
