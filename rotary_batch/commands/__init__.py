"""What each command does, apart from how it is typed and how its answer is printed.

Functions return plain data, which the command line prints as a table or as JSON.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotary_batch.commands import agents as agents
    from rotary_batch.commands import bench as bench
    from rotary_batch.commands import calibrate as calibrate
    from rotary_batch.commands import cleaning as cleaning
    from rotary_batch.commands import configuration as configuration
    from rotary_batch.commands import default_model as default_model
    from rotary_batch.commands import docs as docs
    from rotary_batch.commands import docstrings as docstrings
    from rotary_batch.commands import doctor as doctor
    from rotary_batch.commands import drain as drain
    from rotary_batch.commands import dry_run as dry_run
    from rotary_batch.commands import engines as engines
    from rotary_batch.commands import explain as explain
    from rotary_batch.commands import export as export
    from rotary_batch.commands import export_jsonl as export_jsonl
    from rotary_batch.commands import finishing as finishing
    from rotary_batch.commands import forget as forget
    from rotary_batch.commands import generate as generate
    from rotary_batch.commands import import_answers as import_answers
    from rotary_batch.commands import index as index
    from rotary_batch.commands import index_words as index_words
    from rotary_batch.commands import inspect as inspect
    from rotary_batch.commands import job_files as job_files
    from rotary_batch.commands import mcp as mcp
    from rotary_batch.commands import models as models
    from rotary_batch.commands import moved as moved
    from rotary_batch.commands import named_models as named_models
    from rotary_batch.commands import pace as pace
    from rotary_batch.commands import packs as packs
    from rotary_batch.commands import pause as pause
    from rotary_batch.commands import plan as plan
    from rotary_batch.commands import preflight as preflight
    from rotary_batch.commands import recording as recording
    from rotary_batch.commands import report as report
    from rotary_batch.commands import report_words as report_words
    from rotary_batch.commands import repositories as repositories
    from rotary_batch.commands import run_report as run_report
    from rotary_batch.commands import search as search
    from rotary_batch.commands import serving as serving
    from rotary_batch.commands import settings_file as settings_file
    from rotary_batch.commands import site as site
    from rotary_batch.commands import status as status
    from rotary_batch.commands import verify as verify
    from rotary_batch.commands import why as why
else:

    def __getattr__(name: str) -> ModuleType:
        """Import a command when it runs, so that `status` and `--help` start fast."""
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
