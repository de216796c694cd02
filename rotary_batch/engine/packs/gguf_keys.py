"""The keys of one architecture in a GGUF file, read by type and range."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from rotary_batch.engine.packs.gguf_head import REMEDY, Value
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, open_regular, shown

_MAX_WHOLE = 2**26
_MAX_FACTORS = 2**14


class Keys:
    """Keys below the name of the architecture, and the tensors of the file.  Every method may raise ModelError."""

    def __init__(self, keys: Mapping[str, Value], tensors: Mapping[str, TensorPlace]) -> None:
        self.where = next(iter(tensors.values())).path
        self._table = Table(keys, self.where, REMEDY)
        self.tensors = tensors
        self.architecture = self._table.text("general.architecture")

    def _full(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def has(self, name: str) -> bool:
        """Whether a key exists."""
        return self._table.has(self._full(name))

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number; one for each layer counts as one when they are equal, but for zeros."""
        full = self._full(name)
        if default is not None and not self._table.has(full):
            return default
        if self._table.holds(full, list):
            numbers = set(self._table.wholes(full, _MAX_WHOLE, _MAX_WHOLE)) - {0}
            if len(numbers) != 1:
                raise self.error(name, f"differs from layer to layer ({len(numbers)} values), which cannot be read")
            return numbers.pop()
        return self._table.whole(full, _MAX_WHOLE, least=0)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number, as the decimal that it was before it became 32 bits."""
        full = self._full(name)
        return default if default is not None and not self._table.has(full) else decimal(self._table.finite(full))

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        return self._table.boolean(self._full(name)) if self.has(name) else default

    def text(self, name: str, default: str) -> str:
        """A text."""
        return self._table.text(self._full(name)) if self.has(name) else default

    def booleans(self, name: str, count: int) -> list[bool] | None:
        """True or false for each of the first layers; None when the key is absent or no list."""
        if not self._table.holds(self._full(name), list):
            return None
        values = self._table.rows(self._full(name), _MAX_WHOLE)
        if len(values) < count:
            raise self.error(name, f"has {len(values)} entries for {count} layers")
        return [bool(value) for value in values[:count]]

    def token(self, name: str) -> int | None:
        """The id of a token that has a part to play, such as `eos`."""
        full = f"tokenizer.ggml.{name}_token_id"
        return self._table.whole(full, _MAX_WHOLE, least=0) if self._table.has(full) else None

    def error(self, name: str, fact: str) -> ModelError:
        """The error for a fact about a key."""
        return ModelError(f"{self.where}: key {shown(self._full(name))} {fact}; {REMEDY}")

    def has_tensor(self, suffix: str) -> bool:
        """Whether some layer has this tensor."""
        return any(name.endswith(suffix) for name in self.tensors)

    def factors(self, name: str) -> list[float] | None:
        """The numbers of a small tensor of float32; None without it."""
        place = self.tensors.get(name)
        if place is None:
            return None
        if place.dtype != "F32" or len(place.shape) != 1 or place.shape[0] > _MAX_FACTORS:
            raise ModelError(f"{place.path}: tensor {shown(name)} is {list(place.shape)} of {place.dtype}; {REMEDY}")
        with open_regular(place.path, REMEDY) as file:
            file.seek(place.offset)
            data = file.read(place.nbytes)
        if len(data) != place.nbytes:
            raise ModelError(f"{place.path}: ends within tensor {shown(name)}; {REMEDY}")
        return [decimal(value) for value in struct.unpack(f"<{place.shape[0]}f", data)]


def decimal(value: float) -> float:
    """The shortest decimal that has these 32 bits: 1e-05, which is stored as 9.999999747378752e-06."""
    if _in_32_bits(value) != value:
        return value  # it was stored in 64 bits
    return next(near for digits in range(1, 18) if _in_32_bits(near := float(f"{value:.{digits}g}")) == value)


def _in_32_bits(value: float) -> float | None:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return None
