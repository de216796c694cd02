"""The sources of a pack's tensors in a quantised checkpoint.  No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.quantised.expert import rows_alone, some_columns, some_rows, stacked_as, stored_alone
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix
from rotary_batch.engine.packs.tensors import Source, TensorPlace, pieces
from rotary_batch.errors import ModelError

Matrix = QuantisedMatrix | TensorPlace


def matrix_source(matrix: QuantisedMatrix, halves: tuple[int, int, int] | None) -> Source:
    """A dense matrix that stays quantised; `halves` are the arguments of the recipe rows_to_halves."""
    return _source([matrix], stored_alone(rows_alone(matrix) if halves else matrix), halves)


def dequantised_source(matrix: QuantisedMatrix) -> Source:
    """A matrix that becomes float32."""
    return Source(matrix.shape, tuple(matrix.places.values()), recipe="dequantised", arguments=(matrix,))


def rows_source(matrix: QuantisedMatrix, ranges: tuple[tuple[int, int], ...], *, dequantise: bool) -> Source:
    """Some rows of a dense matrix, each range from its first to before its end; quantised still, or in float32."""
    alone = rows_alone(matrix)
    shape, places = (sum(end - begin for begin, end in ranges), matrix.columns), tuple(matrix.places.values())
    if dequantise:
        return Source(shape, places, recipe="dequantised", arguments=(alone, ranges))
    return Source(shape, places, stored_alone(alone), "quantised", (ranges, alone))


def expert_sources(gate: Matrix, up: Matrix, down: Matrix) -> dict[str, Source]:
    """The matrices of an expert: gate over up where they are stored alike; rows follow the columns of down."""
    followed = down if isinstance(down, QuantisedMatrix) and down.is_ordered else None
    if followed and not (isinstance(gate, QuantisedMatrix) and isinstance(up, QuantisedMatrix)):
        raise ModelError(
            f"{followed.name}: columns are in the order of activations (desc_act), but gate or up of the same expert "
            "is not quantised, which this version does not read; take a version of the model without desc_act"
        )
    if isinstance(gate, TensorPlace) and isinstance(up, TensorPlace):
        both = Source((gate.shape[0] + up.shape[0], gate.shape[1]), (gate, up))
        return {"gate_up": both, "down": _down(down)}
    if isinstance(gate, QuantisedMatrix) and isinstance(up, QuantisedMatrix) and (form := stacked_as(gate, up)):
        return {"gate_up": _source([gate, up], form, followed), "down": _down(down)}
    return {"gate": _alone(gate, followed), "up": _alone(up, followed), "down": _down(down)}


def slice_sources(gate: Matrix, up: Matrix, down: Matrix, begin: int, end: int) -> dict[str, Source]:
    """A slice of a dense feed-forward: the rows of gate and up and the columns of down from `begin` to before `end`."""
    height = end - begin
    halves = [
        some_rows(matrix, begin, end)
        if isinstance(matrix, QuantisedMatrix)
        else matrix.part(begin // height, (height, matrix.shape[1]))
        for matrix in (gate, up)
    ]
    if isinstance(down, QuantisedMatrix):
        return expert_sources(halves[0], halves[1], some_columns(down, begin, end))
    sources = expert_sources(halves[0], halves[1], down)
    return sources | {"down": Source((down.shape[0], height), (down,), recipe="columns", arguments=(begin, end))}


def require_zeros(name: str, place: TensorPlace) -> None:
    """Raise ModelError unless all bytes of a tensor are 0."""
    if any(any(piece) for piece in pieces(place)):
        raise ModelError(f"{place.path}: tensor {name} is a bias that models of this family do not have, and is not 0")


def require_alike(model_dir: Path, experts: Mapping[ExpertKey, Mapping[str, Source]]) -> None:
    """Raise ModelError unless the experts of each layer are stored alike: their slabs have one layout."""
    first: dict[int, dict[str, str]] = {}
    for key, expert in experts.items():
        stored = {name: source.stored_as for name, source in expert.items()}
        if stored != first.setdefault(key.layer, stored):
            raise ModelError(
                f"{model_dir}: layer {key.layer}: expert {key.expert} is stored as {_listed(stored)}, an earlier one "
                f"as {_listed(first[key.layer])}; this version reads layers whose experts are stored alike"
            )


def _alone(matrix: Matrix, followed: QuantisedMatrix | None) -> Source:
    if isinstance(matrix, TensorPlace):
        return Source(matrix.shape, (matrix,))
    return _source([matrix], stored_alone(matrix), followed)


def _down(matrix: Matrix) -> Source:
    """Its columns are in the order of their groups, and so are the rows of gate and up: nothing is gathered."""
    if isinstance(matrix, TensorPlace):
        return Source(matrix.shape, (matrix,))
    return _source([matrix], matrix.stored_as, None)


def _source(
    matrices: list[QuantisedMatrix], stored_as: str, row_order: QuantisedMatrix | tuple[int, int, int] | None
) -> Source:
    rows, columns = sum(matrix.shape[0] for matrix in matrices), matrices[0].shape[1]
    places = tuple(place for matrix in matrices for place in matrix.places.values())
    return Source((rows, columns), places, stored_as, "quantised", (row_order, *matrices))


def _listed(stored: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {form}" for name, form in stored.items())
