"""The gradients by hand are those of autograd, and the operators give what their plain formulas give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from training.operators import Experts, FromExperts, HeadLoss, ToExperts, attend, places

NUM_EXPERTS, HIDDEN, INTERMEDIATE = 3, 4, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def mixture(x: Tensor, weights: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, chosen: Tensor) -> Tensor:
    row_of, place_of, counts = places(chosen, NUM_EXPERTS)
    out = Experts.apply(ToExperts.apply(x, row_of, place_of), w1, w2, w3, tuple(counts))
    return FromExperts.apply(out, weights, row_of, place_of)


def test_a_mixture_is_the_weighted_sum_of_its_experts():
    """One expert has no row at all."""
    chosen = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0]])
    x, weights = leaf(5, HIDDEN), leaf(5, 2)
    w1, w2, w3 = leaf(NUM_EXPERTS, INTERMEDIATE, HIDDEN), leaf(NUM_EXPERTS, HIDDEN, INTERMEDIATE), leaf(3, 5, 4)

    wanted = torch.stack(
        [
            sum(weights[n, k] * (w2[e] @ (F.silu(w1[e] @ x[n]) * (w3[e] @ x[n]))) for k, e in enumerate(chosen[n]))
            for n in range(5)
        ]
    )

    torch.testing.assert_close(mixture(x, weights, w1, w2, w3, chosen), wanted)
    assert gradcheck(lambda *inputs: mixture(*inputs, chosen), (x, weights, w1, w2, w3))


def test_every_expert_has_a_multiple_of_32_places():
    chosen = torch.randn(70, 3).topk(2).indices
    row_of, place_of, counts = places(chosen, NUM_EXPERTS)
    assert all(count % 32 == 0 for count in counts)
    assert sum(counts) == len(row_of)
    assert row_of[place_of].tolist() == [[n, n] for n in range(70)], "every row finds itself"
    assert int((row_of == 70).sum()) == len(row_of) - 140, "what is left over holds no row"
    expert_of = torch.arange(NUM_EXPERTS).repeat_interleave(torch.tensor(counts))
    assert torch.equal(expert_of[place_of], chosen)


def test_attention_is_that_of_torch():
    q, k, v = leaf(2, 4, 5, 4), leaf(2, 2, 5, 4), leaf(2, 2, 5, 4)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(attend(q, k, v), wanted)
    assert gradcheck(attend, (q, k, v))


def test_the_head_gives_cross_entropy_and_its_gradient():
    hidden, weight = torch.randn(700, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    targets, scale = torch.randint(50, (700,)), torch.rand(700)
    each = F.cross_entropy(F.linear(hidden, weight), targets, reduction="none")
    wanted = torch.autograd.grad((each * scale).sum(), (hidden, weight))

    total, mine = HeadLoss.apply(hidden, weight, targets, scale)

    torch.testing.assert_close(mine, each)
    torch.testing.assert_close(total, (each * scale).sum())
    torch.testing.assert_close(torch.autograd.grad(total, (hidden, weight)), wanted)
