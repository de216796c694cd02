"""The dense weights by name, and what is computed with them.

T = rows, H = hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch

from rotary_batch.engine.kernels.matrices import Matrix
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.model.geometry import Geometry


class Weights:
    """Everything but the experts; stays in device memory."""

    def __init__(self, geometry: Geometry, dense: Mapping[str, Matrix], numerics: Numerics) -> None:
        self.geometry = geometry
        self.numerics = numerics
        self._dense = dense
        self._norms: dict[str, torch.Tensor] = {}

    def matrix(self, name: str) -> Matrix:
        """A matrix as it is stored."""
        return self._dense[name]

    def take(self, name: str) -> Matrix:
        """A matrix that the caller keeps in another form, and that is no longer kept here."""
        matrix = self._dense[name]
        if isinstance(self._dense, MutableMapping):  # others load what is wanted, and keep nothing
            del self._dense[name]
        return matrix

    def vector(self, name: str) -> torch.Tensor:
        """A tensor that is never quantised."""
        stored = self._dense[name]
        assert isinstance(stored, torch.Tensor), "norms, biases and convolutions are never quantised"
        return stored

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """x [T, in] times a matrix, plus its bias where it has one."""
        product = self.numerics.linear(x, self._dense[name])
        bias = f"{name}.bias"
        return product + self.vector(bias) if bias in self._dense else product

    def norm(self, x: torch.Tensor, name: str, eps: float | None = None) -> torch.Tensor:
        """RMSNorm or LayerNorm of the last dimension; `eps` is the model's unless given."""
        eps = self.geometry.rms_norm_eps if eps is None else eps
        if self.geometry.layer_norm:
            return self.numerics.layer_norm(x, self.vector(name), self.vector(f"{name}.bias"), eps)
        return self.numerics.rms_norm(x, self._norm_weight(name), eps)

    def _norm_weight(self, name: str) -> torch.Tensor:
        if not self.geometry.zero_centred_norm:
            return self.vector(name)
        if name not in self._norms:
            self._norms[name] = 1 + self.vector(name).float()
        return self._norms[name]

    def feed_forward(self, x: torch.Tensor, stem: str) -> torch.Tensor:
        """SwiGLU of a feed-forward that is not an expert's: x [T, H] -> [T, H]."""
        gate, up = (self.linear(x, f"{stem}.{name}") for name in ("gate", "up"))
        return self.linear(self.numerics.silu(gate).mul_(up), f"{stem}.down")
