"""One matrix as a quantised checkpoint has it: its tensors, each with a checked type and shape.  No torch here."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError

PAIR_NAMES = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
MAX_SCHEMES = 64  # that differ: each module is compared with all of them
MIN_GROUP = 8  # columns: a scale and a zero in float32 take as much as 16 codes
READ_GROUPS = range(512, 0, -32)  # of int4, that the compiled kernels read in place
Tensors = Mapping[str, TensorPlace]  # of a checkpoint, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedMatrix:
    """One matrix [rows, columns] of a file, or a part of it; decoding.py makes it from `places`."""

    name: str  # of the module in the checkpoint
    rows: int
    columns: int
    stored_as: str
    layout: str  # of decoding.LAYOUTS: how the file packs it
    places: Mapping[str, TensorPlace]  # by the last part of their names
    bits: int = 4  # of a code
    group: int = 0  # columns that share a scale in the file; of FP8, see `block`
    block: tuple[int, int] = (0, 0)  # of FP8: rows and columns that share a scale in the file; 0 = all
    is_symmetric: bool = True  # the config says that every zero point is the middle
    is_ordered: bool = False  # columns of a group need not be neighbours in the file
    taken_rows: tuple[int, int, int] | None = None  # first, end, step; None = all
    taken_columns: tuple[int, int] | None = None  # first and end, counted in the order of groups

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are taken."""
        rows, columns = self.taken_rows or (0, self.rows, 1), self.taken_columns or (0, self.columns)
        return len(range(*rows)), columns[1] - columns[0]

    @property
    def tensor_names(self) -> list[str]:
        """What it consists of, as the checkpoint spells it."""
        return [self.name + suffix for suffix in self.places]


class RowOrder(NamedTuple):
    """Rows as they are wanted: those of some ranges (none: all of them), then halves instead of pairs in each head."""

    ranges: tuple[tuple[int, int], ...]  # the first row, and the one after the last
    halves: tuple[int, int, int] | None  # arguments of the recipe rows_to_halves

    def count(self, rows: int) -> int:
        """How many rows of a matrix of `rows` are wanted."""
        return sum(end - begin for begin, end in self.ranges) if self.ranges else rows


class Method(Protocol):
    """One way to quantise a checkpoint."""

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """The matrix of the module `name`; None for a module that is not quantised.  Raises ModelError."""
        ...


def place_of(tensors: Tensors, name: str, dtypes: Collection[str], *shapes: tuple[int, ...]) -> TensorPlace:
    """A tensor with one of these types and shapes.  Raises ModelError naming file, tensor and fact."""
    place = tensors.get(name)
    if place is None:
        folder = next((one.path.parent for one in tensors.values()), "the checkpoint")
        raise ModelError(f"{folder}: tensor {name} is in none of its files; is a shard missing? fetch the model again")
    if place.dtype not in dtypes:
        raise ModelError(f"{place.path}: tensor {name} is of type {place.dtype}, not {' or '.join(dtypes)}")
    if place.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise ModelError(f"{place.path}: tensor {name} has shape {list(place.shape)}; the configs say {wanted}")
    return place


def words(count: int, bits: int) -> int:
    """32-bit words that hold `count` numbers of some bits."""
    return -(-count * bits // 32)


def num_groups(columns: int, group: int) -> int:
    """How many groups a row has; the last may be short."""
    return -(-columns // group)


def stored_group(name: str, columns: int, group: int) -> int:
    """The largest group of READ_GROUPS, else of any size, that cuts rows and the file's groups evenly.

    Scales are repeated, nothing is lost: 0.4 % more bytes where a row was one group of 4 bits.

    Raises ModelError where scales would take more than their codes.
    """
    common = math.gcd(columns, group)
    if common < min(MIN_GROUP, columns):
        raise ModelError(f"{name}: rows of {columns} columns in groups of {group} have only {common} in common")
    return next((group for group in READ_GROUPS if common % group == 0), common)
