"""What a machine does in a second, as engine/measure.py found it.

Knows the file that keeps it; knows nothing of torch, clocks or models.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VERSION = 4  # bump when the engine got faster: older rates would give a bound that is too low


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a machine does in a second, measured (engine/measure.py)."""

    machine: str
    device: str
    device_memory_nbytes: int  # all that it has; on a CPU what was free
    activation_nbytes: int  # of one number of a row in fast numerics: 2 where bf16 is multiplied as such, else 4
    move_nbytes_per_s: float  # into device memory: the link from host RAM on CUDA, the disk on a CPU
    disk_nbytes_per_s: float
    memory_nbytes_per_s: float  # reading device memory
    attention_nbytes_per_s: Mapping[str, float]  # format of keys -> reading keys and values in decode
    weight_s: Mapping[str, Sequence[tuple[int, float]]]  # format -> (rows, seconds per weight), rows ascending

    def weights_s(self, stored_as: str, rows: float) -> float:
        """Seconds for one weight of a matrix that `rows` rows pass; between two measurements, a straight line."""
        table = self.weight_s[stored_as]
        place = bisect_left([count for count, _ in table], rows)
        if place == 0:
            return table[0][1]
        if place == len(table):
            return table[-1][1] * rows / table[-1][0]
        (low, low_s), (high, high_s) = table[place - 1], table[place]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Rates:
        """The inverse of `as_dict`.  Raises ValueError for the rates of another version."""
        table = dict(table)
        if table.pop("version", None) != VERSION:
            raise ValueError("rates of another version")
        pairs = {name: [(int(rows), float(s)) for rows, s in rows_s] for name, rows_s in table["weight_s"].items()}
        return cls(**{**table, "weight_s": pairs})


def rates_path(device: str, cache: Path) -> Path:
    """Where the rates of a device are kept."""
    return cache / f"rates-{device.replace(':', '-')}.json"


def cached_rates(device: str, cache: Path) -> Rates | None:
    """What `bench --machine` measured here; None when it never ran, or for a file of another version."""
    try:
        return Rates.from_dict(json.loads(rates_path(device, cache).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
