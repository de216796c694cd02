"""The confidence threshold that a model was calibrated with: a file next to its pack.  The weights stay as they are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rotary_batch.errors import StorageError
from rotary_batch.model.tables import Table, read_object

CALIBRATION_NAME = "calibration.json"
FORMAT = "rotary-batch calibration 1"
_MAX_NBYTES = 100_000
_REMEDY = "the file is damaged; delete it, or run `model calibrate` again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold, and what it was learnt from."""

    weights_digest: str  # of the model; for another one the file says nothing
    min_mean_logprob: float
    target: float  # the share of right answers among those shown that it was chosen for
    judged: int  # answers that it was chosen from
    job: str
    numerics: str

    def save(self, pack_dir: Path) -> Path:
        """Write it in one piece; returns the file.  Raises StorageError."""
        path = pack_dir / CALIBRATION_NAME
        temporary = path.with_name(f"{CALIBRATION_NAME}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise StorageError(
                f"{path}: {error.strerror}; make the folder of the pack writable, or copy the pack and name the copy"
            ) from error
        return path


def calibrated(pack_dir: Path, weights_digest: str) -> float | None:
    """The threshold that these weights were calibrated with, if they were.  Raises ModelError."""
    path = pack_dir / CALIBRATION_NAME
    if not path.exists():
        return None
    table = Table(read_object(path, _MAX_NBYTES, _REMEDY), path, _REMEDY)
    if table.text("format") != FORMAT or table.text("weights_digest") != weights_digest:
        return None
    return table.finite("min_mean_logprob")
