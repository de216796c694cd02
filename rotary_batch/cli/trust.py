"""`trust`."""

from __future__ import annotations

import os

from rotary_batch import commands, console, own_file
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Json, OneRepo
from rotary_batch.config import FILE_NAME


def trust(repo: OneRepo = None, json: Json = False) -> None:
    """Accept every setting in a repository's own rotary.toml.

    They apply until that file changes. Without this, only harmless ones apply.

    Examples:
        rotary-batch trust ~/src/app
    """
    root = commands.repositories.repository_root(repo)
    if not (root / FILE_NAME).exists():
        root = commands.repositories.whole_repository(root) or root
    own, record = own_file.trust(root, os.environ), own_file.trust_record(root, os.environ)
    for note in own.notes:
        console.err(f"note: {note}")

    def show() -> None:
        console.print_facts(own.values)
        console.out(f"these settings of {root} apply until its {FILE_NAME} changes; to undo that, delete {record}")

    data = {"repository": str(root), "settings": own.values, "record": str(record), "notes": own.notes}
    print_answer(data, json, show)
