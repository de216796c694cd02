"""What a machine does in a second, as measured by engine/measuring/measure.py, and the file that stores it.

Whatever else runs on the machine makes a measurement too slow, never too fast: of several the best is kept.
"""

from __future__ import annotations

import json
import math
import tempfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rotary_batch.config import EXPERT_FORMATS

VERSION = 7  # bump when the engine got faster (older rates would give too low a roofline) or is measured otherwise

EXCEEDED = 1.05  # times the roofline: a faster run shows that its rates are too low
LAST_MOMENT = 253_402_300_800  # the year 10000, which no date can hold
GAIN_REACH = 4  # times the rows of a probed product, or a part: further away other kernels and other limits hold
UNMEASURED_AS = "int4"  # formats that are not measured, such as a GGUF file's, count as this one
JUDGED_S = 2.0  # seconds of steps before a run says anything about rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a machine does in a second, measured (engine/measuring/measure.py)."""

    machine: str
    device: str
    device_memory_nbytes: int  # all that it has; on a CPU what was free
    activation_nbytes: int  # of one number of a row in fast numerics: 2 where bf16 is multiplied as such, else 4
    move_nbytes_per_s: float  # into device memory: the link from host RAM on CUDA, the disk on a CPU
    disk_nbytes_per_s: float
    memory_nbytes_per_s: float  # reading device memory
    attention_nbytes_per_s: Mapping[str, float]  # format of the KV cache -> reading it in decode
    # format -> (rows, seconds per weight), rows ascending; a model's own formats are measured before its first run
    weight_s: Mapping[str, Sequence[tuple[int, float]]]
    measured_at: float  # when all of it was measured, in seconds since 1970
    probed_at: float  # when it was last compared with a short measurement, or with what a run achieved
    num_measured: int = 1  # how many measurements these are the best of
    is_exceeded: bool = False  # a run was faster than their bound: they are a guess until everything is measured again

    def weights_s(self, stored_as: str, rows: float) -> float:
        """Seconds for one weight of a matrix that `rows` rows pass; between two measurements, a straight line.

        Formats that are not measured count as int4.
        """
        table = self.weight_s.get(stored_as) or self.weight_s[UNMEASURED_AS]
        place = bisect_left([count for count, _ in table], rows)
        if place == 0:
            return table[0][1]
        if place == len(table):
            return table[-1][1] * rows / table[-1][0]
        (low, low_s), (high, high_s) = table[place - 1], table[place]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)

    def mixed_weights_s(self, shares: Mapping[str, float], rows: float) -> float:
        """The same for weights in several formats, of each format a share."""
        return sum(share * self.weights_s(stored_as, rows) for stored_as, share in shares.items())

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Rates:
        """The inverse of `as_dict`.  Raises ValueError for the rates of another version, and for damaged ones."""
        try:
            table = dict(table)
            if table.pop("version", None) != VERSION or not table["weight_s"].keys() >= set(EXPERT_FORMATS):
                raise ValueError("rates of another version")
            pairs = {name: [(int(rows), float(s)) for rows, s in rows_s] for name, rows_s in table["weight_s"].items()}
            rates = cls(**{**table, "weight_s": pairs})
            numbers = [
                rates.move_nbytes_per_s,
                rates.disk_nbytes_per_s,
                rates.memory_nbytes_per_s,
                rates.num_measured,
                rates.measured_at,
                rates.probed_at,
                *rates.attention_nbytes_per_s.values(),
                *(number for rows_s in pairs.values() for pair in rows_s for number in pair),
            ]
            ascending = all(rows_s and rows_s == sorted(set(rows_s)) for rows_s in pairs.values())
            dated = max(rates.measured_at, rates.probed_at) < LAST_MOMENT
            if not (dated and ascending and all(math.isfinite(number) and number > 0 for number in numbers)):
                raise ValueError("numbers that no machine has")
        except (AttributeError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a table of rates: {error!r}") from error
        return rates

    def best_of(self, probe: Rates) -> Rates:
        """These rates, raised where a probe of the same machine was faster; a probe measures fewer numbers of rows."""
        weight_s = {
            name: [(rows, s / max(1.0, _gain(self, probe, name, rows))) for rows, s in rows_s]
            for name, rows_s in self.weight_s.items()
        }
        attention = {
            name: max(rate, probe.attention_nbytes_per_s.get(name, 0.0))
            for name, rate in self.attention_nbytes_per_s.items()
        }
        return replace(
            self,
            move_nbytes_per_s=max(self.move_nbytes_per_s, probe.move_nbytes_per_s),
            disk_nbytes_per_s=max(self.disk_nbytes_per_s, probe.disk_nbytes_per_s),
            memory_nbytes_per_s=max(self.memory_nbytes_per_s, probe.memory_nbytes_per_s),
            attention_nbytes_per_s=attention,
            weight_s=weight_s,
            probed_at=probe.probed_at,
            num_measured=self.num_measured + 1,
        )

    def measured_anew(self, fresh: Rates) -> Rates:
        """The best of these rates, which a run exceeded, and a new measurement of everything.

        What the run showed is kept: a model that beats every measurement would exceed the new rates at every run.
        """
        return replace(fresh.best_of(self), probed_at=fresh.probed_at, num_measured=self.num_measured + 1)

    def raised(self, gain: float, now: float) -> Rates:
        """These rates for a machine that is `gain` times as fast in everything."""
        return replace(
            self,
            move_nbytes_per_s=self.move_nbytes_per_s * gain,
            disk_nbytes_per_s=self.disk_nbytes_per_s * gain,
            memory_nbytes_per_s=self.memory_nbytes_per_s * gain,
            attention_nbytes_per_s={name: rate * gain for name, rate in self.attention_nbytes_per_s.items()},
            weight_s={name: [(rows, s / gain) for rows, s in rows_s] for name, rows_s in self.weight_s.items()},
            probed_at=now,
            num_measured=self.num_measured + 1,
            is_exceeded=True,
        )

    def told(self) -> str:
        """When and how they were measured."""
        measured, probed = (
            f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M}"
            for moment in (self.measured_at, self.probed_at)
        )
        best = f"; best of {self.num_measured} measurements, the last {probed}" if self.num_measured > 1 else ""
        return f"measured {measured}{best}"


def _gain(kept: Rates, probe: Rates, stored_as: str, rows: int) -> float:
    """How much faster the probe was, at its number of rows that is nearest; 1 where none is near."""
    probed = [pair for pair in probe.weight_s.get(stored_as, ()) if 1 / GAIN_REACH <= pair[0] / rows <= GAIN_REACH]
    if not probed:
        return 1.0
    nearest, probed_s = min(probed, key=lambda pair: abs(math.log(pair[0] / rows)))
    return kept.weights_s(stored_as, nearest) / probed_s


def exceeded_by(roofline_s: float, step_s: float) -> float | None:
    """By how much steps were faster than their roofline, when that is more than chance."""
    share = roofline_s / step_s if step_s >= JUDGED_S else 0.0
    return share if share > EXCEEDED else None


def rates_path(device: str, cache: Path) -> Path:
    """Where the rates of a device are kept."""
    return cache / f"rates-{device.replace(':', '-')}.json"


def save_rates(rates: Rates, path: Path) -> None:
    """Write them in one piece, whoever else writes them at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
        try:
            json.dump(rates.as_dict(), file, indent=1)
            file.flush()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def cached_rates(device: str, cache: Path) -> Rates | None:
    """What `bench --machine` measured here; None when it never ran, or for a file of another version or damaged."""
    try:
        return Rates.from_dict(json.loads(rates_path(device, cache).read_text()))
    except (OSError, ValueError, RecursionError):
        return None
