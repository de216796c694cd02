"""Our Gated DeltaNet layer is that of `transformers`, and in exact numerics its bits are those of each sequence alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache, Qwen3_5MoeTextConfig, Qwen3NextConfig
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeGatedDeltaNet
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from rotary_batch.engine.delta.base import DeltaInputs, StateSegment, sum_by_halves
from rotary_batch.engine.delta.fast import FastDeltaRule
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.mixers.base import StepRows
from rotary_batch.engine.mixers.gated_delta import GatedDelta
from rotary_batch.engine.weights import Weights
from rotary_batch.errors import ModelError
from rotary_batch.model.delta import DeltaShape
from rotary_batch.model.geometry import DELTA, FULL, Geometry

CPU = torch.device("cpu")
HIDDEN = 48
# key heads, value heads, key head dim, value head dim, width of the convolution
SHAPES = [(2, 4, 16, 16, 4), (1, 3, 24, 8, 4), (4, 4, 8, 40, 3), (2, 8, 128, 128, 4)]
LENGTHS = [1, 2, 63, 64, 65, 200]


@dataclass
class Oracle:
    """A layer of `transformers` with random weights, and ours with the same."""

    module: torch.nn.Module
    config: Qwen3NextConfig
    geometry: Geometry
    dense: dict[str, torch.Tensor]

    def run(self, x: torch.Tensor, cuts: list[int]) -> torch.Tensor:
        """Outputs [T, H] of one sequence that is read in parts."""
        cache = DynamicCache(config=self.config)
        with torch.no_grad():
            return torch.cat([self.module(part[None], cache=cache)[0] for part in x.split(cuts)])


def oracle(shape: tuple[int, ...], *, is_next: bool) -> Oracle:
    torch.manual_seed(sum(shape))
    sizes = dict(
        zip(
            ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"),
            shape[:4],
            strict=True,
        )
    )
    keywords = {f"linear_{name}": size for name, size in sizes.items()}
    config = (Qwen3NextConfig if is_next else Qwen3_5MoeTextConfig)(
        hidden_size=HIDDEN, num_hidden_layers=4, linear_conv_kernel_dim=shape[4], **keywords
    )
    module = (Qwen3NextGatedDeltaNet if is_next else Qwen3_5MoeGatedDeltaNet)(config, 0).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.nn.init.uniform_(module.A_log, -3.0, 2.0)
    geometry = geometry_of(shape, config.rms_norm_eps)
    weights = weights_of(module, DeltaShape(**sizes, conv_width=shape[4]))
    return Oracle(module, config, geometry, {f"layers.2.delta.{name}": tensor for name, tensor in weights.items()})


def geometry_of(shape: tuple[int, ...], eps: float) -> Geometry:
    """A model whose third layer is the second of linear attention."""
    return Geometry(
        hidden_size=HIDDEN,
        intermediate_size=8,
        num_layers=3,
        num_heads=1,
        num_kv_heads=1,
        head_dim=2,
        num_experts=1,
        top_k=1,
        vocab_size=9,
        rope_theta=1e4,
        rms_norm_eps=eps,
        tie_word_embeddings=True,
        max_position=99,
        sliding_window=None,
        dtype="F32",
        eos_ids=(),
        attention_kinds=(DELTA, FULL, DELTA),
        delta_key_heads=shape[0],
        delta_value_heads=shape[1],
        delta_key_dim=shape[2],
        delta_value_dim=shape[3],
        delta_conv=shape[4],
    )


def weights_of(module: torch.nn.Module, shape: DeltaShape) -> dict[str, torch.Tensor]:
    """The tensors of a layer in our layout; Qwen3-Next has its projections of each key head together."""
    found = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    if "in_proj_qkv.weight" in found:
        qkv, z, b, a = (found[f"in_proj_{name}.weight"] for name in ("qkv", "z", "b", "a"))
    else:
        dims = [shape.key_head_dim] * 2 + [shape.heads_per_key * shape.value_head_dim] * 2
        by_head = found["in_proj_qkvz.weight"].view(shape.num_key_heads, -1, HIDDEN).split(dims, 1)
        *parts, z = (part.reshape(-1, HIDDEN) for part in by_head)
        qkv = torch.cat(parts)
        both = found["in_proj_ba.weight"].view(shape.num_key_heads, 2, shape.heads_per_key, HIDDEN)
        b, a = (part.reshape(-1, HIDDEN) for part in both.unbind(1))
    return {
        "qkv": qkv,
        "z": z,
        "b": b,
        "a": a,
        "conv": found["conv1d.weight"][:, 0],
        "A_log": found["A_log"],
        "dt_bias": found["dt_bias"],
        "norm": found["norm.weight"],
        "out": found["out_proj.weight"],
    }


class Layer:
    """Our layer with sequences at work."""

    def __init__(self, oracle_: Oracle, mode: str, num_states: int = 8) -> None:
        numerics = Numerics(mode, CPU)
        if mode == "fast":  # bf16 could not be compared so closely
            numerics.dtype, numerics.linear = torch.float32, torch.nn.functional.linear
        geometry = oracle_.geometry
        assert geometry.delta is not None
        self.states = StateArena(geometry.delta, len(geometry.delta_layers), num_states, CPU)
        self._delta = GatedDelta(Weights(geometry, oracle_.dense, numerics), self.states)
        kv = KvArena(geometry, 1, "bf16", torch.float32, CPU)
        nothing = torch.empty(0)
        self._step = StepRows((), (nothing, nothing), nothing, kv)

    def step(self, parts: list[tuple[int, torch.Tensor]]) -> list[torch.Tensor]:
        """Read rows [n, H] into states; the outputs of each part."""
        segments, begin = [], 0
        for state, rows in parts:
            segments.append(StateSegment(begin, len(rows), state))
            begin += len(rows)
        self._delta.plan(segments)
        out = self._delta.mix(2, torch.cat([rows for _, rows in parts]), self._step)
        return list(out.split([len(rows) for _, rows in parts]))


def rows(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, HIDDEN, generator=torch.Generator().manual_seed(seed))


def cuts_of(length: int, size: int) -> list[int]:
    return [min(size, length - begin) for begin in range(0, length, size)]


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("is_next", [True, False])
@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_are_those_of_transformers(shape, mode, is_next):
    reference = oracle(shape, is_next=is_next)
    layer = Layer(reference, mode)
    for length in LENGTHS:
        x, state = rows(length, length), layer.states.allocate().index
        (found,) = layer.step([(state, x)])
        assert_close(found, reference.run(x, [length]))
        (following,) = layer.step([(state, rows(1))])
        assert_close(following, reference.run(torch.cat([x, rows(1)]), [length, 1])[-1:])


@pytest.mark.parametrize("size", [1, 7, 63, 64, 65])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_prompt_may_be_cut_anywhere(mode, size):
    reference = oracle(SHAPES[0], is_next=True)
    layer, x = Layer(reference, mode), rows(200)
    state, whole = layer.states.allocate().index, layer.states.allocate().index
    found = torch.cat([layer.step([(state, part)])[0] for part in x.split(cuts_of(200, size))])
    expected = layer.step([(whole, x)])[0]
    assert_close(found, reference.run(x, cuts_of(200, size)))
    if mode == "exact":
        assert torch.equal(found, expected)
        assert torch.equal(layer.states.recurrent[:, state], layer.states.recurrent[:, whole])
        assert torch.equal(layer.states.conv[:, state], layer.states.conv[:, whole])


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sequences_of_one_step_do_not_meet(shape, mode):
    """Decode rows, prompts and single tokens in any mixture, in states that do not follow each other."""
    reference = oracle(shape, is_next=False)
    layer = Layer(reference, mode)
    # for each of six sequences, its rows in each of the steps
    plans = [[70, 1, 1, 1], [1, 1, 1, 1], [3, 130, 1, 0], [0, 64, 1, 1], [0, 1, 65, 1], [20, 0, 1, 1]]
    held = [layer.states.allocate().index for _ in range(8)]
    states = [held[n] for n in (5, 0, 1, 2, 7, 4)]
    everything = [rows(sum(plan), seed) for seed, plan in enumerate(plans)]
    found: list[list[torch.Tensor]] = [[] for _ in plans]
    for step in range(4):
        begins = [sum(plan[:step]) for plan in plans]
        joining = [n for n, plan in enumerate(plans) if plan[step]]
        parts = [(states[n], everything[n][begins[n] : begins[n] + plans[n][step]]) for n in joining]
        for n, out in zip(joining, layer.step(parts), strict=True):
            found[n].append(out)
    for n, x in enumerate(everything):
        assert_close(torch.cat(found[n]), reference.run(x, [len(x)]))
        if mode == "exact":
            alone = Layer(reference, mode)
            assert torch.equal(torch.cat(found[n]), alone.step([(alone.states.allocate().index, x)])[0])


def test_a_row_that_is_not_finite_stays_alone():
    layer = Layer(oracle(SHAPES[0], is_next=True), "fast")
    broken, sound = layer.states.allocate().index, layer.states.allocate().index
    x = rows(40)
    _, found = layer.step([(broken, torch.full((3, HIDDEN), torch.nan)), (sound, x)])
    alone = Layer(oracle(SHAPES[0], is_next=True), "fast")
    assert_close(found, alone.step([(alone.states.allocate().index, x)])[0])


def test_a_copied_state_goes_on_as_the_first_does():
    layer = Layer(oracle(SHAPES[0], is_next=True), "exact")
    first, second = layer.states.allocate(), layer.states.allocate()
    layer.step([(first.index, rows(30))])
    second.copy_from(first)
    one, other = layer.step([(first.index, rows(5, 1)), (second.index, rows(5, 1))])
    assert torch.equal(one, other)


def test_a_state_is_empty_when_it_is_allocated_and_the_lowest_free_one():
    layer = Layer(oracle(SHAPES[0], is_next=True), "exact", num_states=3)
    states = [layer.states.allocate().index for _ in range(3)]
    assert (states, layer.states.num_free) == ([0, 1, 2], 0)
    with pytest.raises(ValueError, match="none of 3 states is free"):
        layer.states.allocate()
    layer.step([(state, rows(9)) for state in states])
    for state in (2, 1):
        layer.states.free(state)
    assert (layer.states.allocate().index, layer.states.num_free) == (1, 1)
    assert not layer.states.recurrent[:, 1].any()
    assert not layer.states.conv[:, 1].any()
    assert layer.states.recurrent[1, 0].any()


def test_a_state_takes_the_bytes_that_its_shape_says():
    shape = DeltaShape(num_key_heads=16, num_value_heads=32, key_head_dim=128, value_head_dim=128, conv_width=4)
    assert 30 * shape.state_nbytes == 30 * 4 * (32 * 128 * 128 + 3 * 8192)  # Qwen3.6-35B-A3B: 66 MB
    arena = StateArena(shape, 2, 3, CPU)
    assert arena.nbytes == 2 * 3 * shape.state_nbytes


@pytest.mark.parametrize(
    ("sizes", "fact"),
    [
        ((3, 4, 8, 8, 4), "4 linear value heads are not a multiple of 3 linear key heads"),
        ((2, 4, 8, 8, 1), "a linear convolution of width 1; the least is 2"),
    ],
)
def test_shapes_that_cannot_be(sizes, fact):
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_width")
    with pytest.raises(ModelError, match=fact):
        DeltaShape(**dict(zip(names, sizes, strict=True)))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 100, 128])
def test_a_sum_by_halves_is_the_sum_whatever_is_next_to_it(length):
    x = torch.randn(5, length, 3, generator=torch.Generator().manual_seed(length))
    found = sum_by_halves(x.clone(), 1)
    assert torch.allclose(found, x.double().sum(1, keepdim=True).float(), atol=1e-5)
    assert torch.equal(found[2:3, :, :1], sum_by_halves(x[2:3, :, :1].clone(), 1))


@pytest.mark.parametrize(
    ("key_heads", "value_heads", "key_dim", "value_dim"), [(2, 4, 16, 40), (1, 1, 7, 8), (3, 3, 32, 64)]
)
def test_compiled_states_are_those_of_torch_and_do_not_depend_on_the_batch(key_heads, value_heads, key_dim, value_dim):
    """Of rows in any order, in states with gaps between them, while a prompt is read; other states stay as they are."""
    kernels = cpu.default()
    if not kernels.supports_states(value_dim):
        pytest.skip("needs compiled kernels")
    shape = DeltaShape(
        num_key_heads=key_heads,
        num_value_heads=value_heads,
        key_head_dim=key_dim,
        value_head_dim=value_dim,
        conv_width=4,
    )
    generator = torch.Generator().manual_seed(0)
    q, k = (F.normalize(torch.randn(8, key_heads, key_dim, generator=generator), dim=-1) for _ in range(2))
    v = torch.randn(8, value_heads, value_dim, generator=generator)
    log_decay, beta = -torch.rand(8, value_heads, generator=generator), torch.rand(8, value_heads, generator=generator)
    inputs = DeltaInputs(q, k, v, log_decay, beta)
    before = torch.randn(9, value_heads, key_dim, value_dim, generator=generator)
    segments = [
        StateSegment(0, 1, 7),
        StateSegment(1, 4, 3),
        StateSegment(5, 1, 0),
        StateSegment(6, 1, 8),
        StateSegment(7, 1, 1),
    ]

    def run(rule: FastDeltaRule, chosen: list[StateSegment]) -> tuple[torch.Tensor, torch.Tensor]:
        states = before.clone()
        rule.plan(chosen)
        return rule.apply(inputs, states), states

    torch_alone, compiled = FastDeltaRule(shape, CPU), FastDeltaRule(shape, CPU, kernels)
    (expected, states), (found, own) = run(torch_alone, segments), run(compiled, segments)
    assert_close(found, expected)
    assert_close(own, states)
    untouched = [2, 4, 5, 6]
    assert torch.equal(own[untouched], before[untouched])
    for segment in segments:
        if segment.num_rows == 1:
            alone, after = run(compiled, [segment])
            assert torch.equal(alone[segment.first_row], found[segment.first_row])
            assert torch.equal(after[segment.state], own[segment.state])


def test_states_outside_the_arena_are_refused():
    kernels, part = cpu.default(), torch.zeros(2, 1, 8)
    if not kernels.supports_states(8):
        pytest.skip("needs compiled kernels")
    tensors = {"q": part, "k": part, "v": part, "decay": part[..., 0].contiguous(), "beta": part[..., 0].contiguous()}
    tensors |= {"states": torch.zeros(3, 1, 8, 8), "out": part.clone()}
    kernels.advance_states(tensors, torch.tensor([[0, 1], [2, 0]]))
    for bad in ([[0, 2], [0, 1]], [[0, 1], [0, 3]], [[-1, 1], [0, 1]]):
        with pytest.raises(ValueError, match="cannot be advanced"):
            kernels.advance_states(tensors, torch.tensor(bad))
    for name, wrong in (
        ("k", part.double()),
        ("states", torch.zeros(3, 1, 8, 9)),
        ("out", torch.zeros(2, 1, 16)[..., ::2]),
    ):
        with pytest.raises(ValueError, match="cannot be advanced"):
            kernels.advance_states(tensors | {name: wrong}, torch.tensor([[0], [0]]))
