"""How routers choose: from the scores of a layer's experts to the experts of each row, and their weights.

T = rows, E = experts, K = experts of a row.
"""

from __future__ import annotations

import torch

from rotary_batch.model.geometry import Geometry

_TINY = 1e-20  # added to a sum of sigmoids, as the reference does
_JITTER = 0.01  # of Phi-3.5-MoE: scores within twice this relative distance of the best share its softmax
Routed = tuple[torch.Tensor, torch.Tensor]  # weights [T, K] in float32, chosen experts [T, K]


def route(scores: torch.Tensor, geometry: Geometry, choice_bias: torch.Tensor | None = None) -> Routed:
    """Router scores [T, E], and a bias [E] that counts for the choice only -> weights and chosen experts."""
    scores = scores.float()
    if geometry.scoring == "sparsemixer":
        return _sparsemixer(scores, geometry.top_k)
    if geometry.scoring == "topk_softmax":
        best, chosen = scores.topk(geometry.top_k)
        return best.softmax(-1), chosen
    shares = _shares(scores, geometry)
    preferred = preferences(scores, geometry, choice_bias)
    if choice_bias is None and geometry.num_groups == 1:
        weights, chosen = shares.topk(geometry.top_k)
    else:
        chosen = preferred.topk(geometry.top_k).indices
        weights = shares.gather(-1, chosen)
    if geometry.renormalise:
        weights = weights / _divisor(weights, geometry)
    return weights * geometry.routed_scale if geometry.routed_scale != 1 else weights, chosen


def preferences(scores: torch.Tensor, geometry: Geometry, choice_bias: torch.Tensor | None) -> torch.Tensor:
    """What a row's experts are chosen by: the largest of [T, E]."""
    if choice_bias is None and geometry.num_groups == 1:
        return scores
    preferred = _shares(scores.float(), geometry)
    if choice_bias is not None:
        preferred = preferred + choice_bias.float()
    if geometry.num_groups == 1:
        return preferred
    return _in_best_groups(preferred, geometry, by_two=choice_bias is not None)


def _shares(scores: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    if geometry.scoring == "sigmoid":  # not torch's own, whose bits depend on the number of rows: numerics.py
        return 1 / (1 + torch.exp(-scores))
    return scores.softmax(-1)


def _divisor(weights: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    total = weights.sum(-1, keepdim=True)
    if geometry.renormalise_min:
        return total.clamp_min(geometry.renormalise_min)
    return total + _TINY if geometry.scoring == "sigmoid" else total


def _in_best_groups(preferred: torch.Tensor, geometry: Geometry, *, by_two: bool) -> torch.Tensor:
    """Only the experts of a row's best groups stay; a group counts by its best expert, or its two best."""
    groups = preferred.view(len(preferred), geometry.num_groups, -1)
    value = groups.topk(2).values.sum(-1) if by_two else groups.amax(-1)
    best = value.topk(geometry.top_groups).indices
    is_best = torch.zeros_like(value, dtype=torch.bool).scatter_(1, best, value=True)
    return groups.masked_fill(~is_best[..., None], float("-inf")).view_as(preferred)


def _sparsemixer(scores: torch.Tensor, top_k: int) -> Routed:
    """Phi-3.5-MoE: the best expert, weighted by a softmax over those that come close; then the same without it."""
    weights, chosen, left = [], [], scores
    for _ in range(top_k):
        best, expert = left.max(-1, keepdim=True)
        distance = (best - scores) / scores.abs().clamp(min=best)
        close = left.masked_fill(distance > 2 * _JITTER, float("-inf")).softmax(-1)
        weights.append(close.gather(-1, expert))
        chosen.append(expert)
        left = left.scatter(-1, expert, float("-inf"))
    return torch.cat(weights, -1), torch.cat(chosen, -1)
