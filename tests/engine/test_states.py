"""The state of a sequence is what its cached tokens made of it, whatever is shared, retired or computed again."""

from __future__ import annotations

import random

import pytest
import torch

from rotary_batch.core import Request
from rotary_batch.engine.delta.states import SequenceState, StateArena
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.scheduler import ScheduledTokens, Scheduler
from rotary_batch.model.delta import DeltaShape
from rotary_batch.model.manifest import Manifest
from rotary_batch.testing import write_tiny_checkpoint

CPU = torch.device("cpu")
TINY = DeltaShape(num_key_heads=1, num_value_heads=1, key_head_dim=1, value_head_dim=1, conv_width=2)
INSTRUCTIONS = tuple(range(40))
KV_TOKENS = 400


@pytest.fixture(scope="module")
def geometry(tmp_path_factory):
    source = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"))
    folder = tmp_path_factory.mktemp("pack")
    pack(source, folder)
    return Manifest.load(folder).geometry


def folded(before: float, token_ids: list[int]) -> float:
    """A state that depends on every token and their order; whole numbers, so float32 is exact."""
    for token_id in token_ids:
        before = (before * 31 + token_id + 1) % 65521
    return before


def value(state: SequenceState) -> float:
    return float(state.arena.recurrent[0, state.index])


class World:
    """A scheduler whose layers are `folded`, and the promise that is checked before each step."""

    def __init__(self, geometry, num_states: int) -> None:
        self.kv = KvArena(geometry, KV_TOKENS, "bf16", torch.float32, CPU)
        self.states = StateArena(TINY, 1, num_states, CPU) if num_states else None
        self.scheduler = Scheduler(
            self.kv, context_tokens=1000, vocab_size=320, share_prefixes=True, states=self.states
        )
        self.num_admitted = 0

    def admit(self, prompt: tuple[int, ...], generated: int, shared: int = 0) -> None:
        request = Request(
            request_id=self.num_admitted,
            prompt_ids=prompt,
            shared_tokens=shared,
            max_new_tokens=generated + 3,
            generated_ids=tuple(range(generated)),
        )
        if self.scheduler.has_room(request):
            self.scheduler.admit(request)
            self.num_admitted += 1
        else:
            with pytest.raises(ValueError, match="no room now"):
                self.scheduler.admit(request)

    def step(self, *, prefill_tokens: int, span: int | None, breaks_off: bool) -> None:
        scheduled = self.scheduler.schedule_step(max_prefill_tokens=prefill_tokens, span_tokens=span)
        for number, part in enumerate(scheduled):
            self.compute(part)
            if breaks_off and number == len(scheduled) // 2:
                for one in scheduled:
                    one.sequence.restart()
                return
        for part in scheduled:
            is_last = part.is_last
            part.sequence.note_cached(part.num_tokens)
            if is_last:
                part.sequence.token_ids.append(part.sequence.num_generated)
        self.retire({part.sequence.request.request_id for part in scheduled if part.sequence.num_left <= 0})

    def compute(self, part: ScheduledTokens) -> None:
        sequence, state = part.sequence, part.sequence.state
        for segment in part.segments(0):
            ids = sequence.token_ids[segment.first_position : segment.num_kv_tokens]
            shape = (len(ids), *self.kv.tensors[0].shape[1:])
            written = torch.tensor(ids, dtype=torch.float32)[:, None, None].expand(shape)
            self.kv.write(0, torch.tensor(segment.slot_mapping()), written, written)
            cached, _ = self.kv.gather(0, torch.tensor(segment.kv_indices(segment.num_kv_tokens)), torch.float32)
            assert cached[:, 0, 0].tolist() == sequence.token_ids[: segment.num_kv_tokens]
        if state is None:
            return
        assert self.states is not None
        assert value(state) == folded(0, sequence.token_ids[: sequence.num_cached])
        self.states.recurrent[0, state.index] = folded(value(state), part.token_ids())
        assert part.state_segment(7) == (7, part.num_rows, state.index)

    def retire(self, request_ids: set[int]) -> None:
        self.scheduler.retire(request_ids)


@pytest.mark.parametrize("chunks", [0, 3])
@pytest.mark.parametrize("num_states", [0, 1, 2, 3, 5, 8, 20])
def test_a_state_is_always_what_the_cached_tokens_make_of_it(geometry, num_states, chunks):
    """And so is the KV cache.  Prompts begin alike, and with `chunks` some are siblings of a few chunks that do.

    Without states (0) a step goes on where a prefix ends.
    """
    draw = random.Random(num_states)
    world = World(geometry, num_states)
    for _ in range(1500):
        live, event = world.scheduler.live, draw.random()
        if event < 0.3:
            body = tuple(draw.randrange(200, 300) for _ in range(draw.randint(1, 30)))
            instructions = INSTRUCTIONS[draw.choice((0, 0, 5)) :]
            chunk = (250 + draw.randint(1, chunks),) * draw.choice((20, 50)) if chunks and draw.random() < 0.7 else ()
            shared = len(instructions) + len(chunk) if chunk else 0
            world.admit((*instructions, *chunk, *body), draw.randint(0, 2), shared)
        elif event < 0.9:
            span = draw.choice((None, 1, 7, 20))
            world.step(prefill_tokens=draw.randint(1, 60), span=span, breaks_off=draw.random() < 0.1)
        elif live:
            makers = [one for one in live if one.makes_prefix]
            world.retire({draw.choice(makers or live).request.request_id})
    for _ in range(100):
        world.step(prefill_tokens=64, span=None, breaks_off=False)
    assert not world.scheduler.live, "everything comes to its end"
    everything = Request(request_id=-1, prompt_ids=(7,) * KV_TOKENS, max_new_tokens=1)
    world.scheduler.admit(everything)
    world.retire({-1})
    assert world.kv.free_tokens == KV_TOKENS
    assert world.states is None or world.states.num_free == num_states


def test_sharers_begin_with_a_copy_and_nobody_computes_the_prefix_again(geometry):
    world = World(geometry, 6)
    for n in range(4):
        world.admit((*INSTRUCTIONS, 100 + n, 200 + n), 0)
    prefill = []
    while world.scheduler.live:
        scheduled = world.scheduler.schedule_step(max_prefill_tokens=1000)
        prefill.append([part.num_tokens for part in scheduled if not part.sequence.is_decoding])
        world.step(prefill_tokens=1000, span=None, breaks_off=False)
    # the first prompt was admitted before anybody knew that it would be shared; the second makes the prefix
    assert prefill[:2] == [[42, 40], [2, 2, 2]]


def test_without_a_free_state_there_is_no_room_although_there_is_kv_cache(geometry):
    world = World(geometry, 2)
    for n in range(2):
        world.admit((n,) * 30, 0)
    request = Request(request_id=9, prompt_ids=(5, 6), max_new_tokens=2)
    assert not world.scheduler.has_room(request)
    with pytest.raises(ValueError, match="request 9: no room now"):
        world.scheduler.admit(request)
    world.retire({0})
    assert world.scheduler.has_room(request)
