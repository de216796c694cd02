"""Decode steps that are recorded once and replayed give the tokens of steps that are computed anew.

On CUDA as CUDA graphs; without it a replay runs the recorded function again, which shows that a step depends on nothing
but its inputs: attention and experts by Triton's interpreter.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from rotary_batch.core import Request
from rotary_batch.engine import build, graphs, open_engine
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.offload import source
from rotary_batch.engine.packs.pack import pack
from rotary_batch.testing import write_tiny_checkpoint
from tests.engine.test_grouped_engine import INTERPRETED, OPTIONS, OneBlock

pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which the dev extra installs on Linux x86-64"),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
SHARED = tuple((5 * place) % 250 for place in range(20))


class RunAgain:
    """Implements `Recording` without a device."""

    def on_host(self, function, rows):
        return function(rows)

    def record(self, function):
        output = function()
        return output, lambda: output.copy_(function())


@pytest.fixture(autouse=True)
def _as_on_cuda(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(build, "computes_groups", lambda *_: True)
        one_block = lambda tier, sizes, device, trace: OneBlock(tier, sizes, trace)  # noqa: E731
        monkeypatch.setattr(source, "open_transfer", one_block)
        attention = lambda geometry, numerics, kv: TritonAttention(geometry, numerics.dtype, kv.device)  # noqa: E731
        monkeypatch.setattr(build, "attention_for", attention)
        monkeypatch.setattr(graphs, "CudaRecording", RunAgain)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_local_experts": 3, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), **sizes)
    target = tmp_path_factory.mktemp("packed") / "pack"
    pack(checkpoint, target)
    return target


def run(
    folder: Path, *, recorded: bool | None, **options
) -> tuple[dict[int, tuple[tuple[int, ...], float]], list[int]]:
    """Tokens and log-probabilities of sequences that end one after the other; the rows of each step that was replayed."""
    with closing(open_engine(folder, **{"resident_share": 1.0, "ring_slots": 2, **OPTIONS, **options})) as engine:
        recorder = engine.model.graphs
        assert recorder is not None
        if not recorded:
            recorder.left_out = "as the test wants it"
        engine.stop_ids = frozenset()
        for number in range(3):
            prompt = (*SHARED, number) if number else (9, 8, 7)
            engine.admit(Request(request_id=number, prompt_ids=prompt, max_new_tokens=(13, 5, 9)[number]))
        results, replayed = {}, []
        while engine.num_live:
            before, live = recorder.num_replays, engine.num_live
            for done in engine.step().completions:
                results[done.request_id] = done.token_ids, done.logprob_sum
            replayed += [live] * (recorder.num_replays - before)
        assert recorder.left_out in {"", "as the test wants it"} or recorded is None, recorder.left_out
        return results, replayed


PLACES = {
    "all resident": {},
    "residents and a ring": {"resident_share": 0.5, "ring_slots": 3},
}
if not INTERPRETED:
    PLACES["a ring alone"] = {"resident_share": 0.0, "ring_slots": 4}
    PLACES["without prefetch"] = {"resident_share": 0.0, "ring_slots": 3, "prefetch": False}


@pytest.mark.parametrize("place", PLACES)
def test_replayed_steps_give_the_same_tokens(folder, place):
    """A number of rows is computed anew once or twice, then recorded, then replayed."""
    expected, never = run(folder, recorded=False, **PLACES[place])
    found, replayed = run(folder, recorded=True, **PLACES[place])
    assert never == []
    assert set(replayed) == {3, 2, 1}
    assert {number: tokens for number, (tokens, _) in found.items()} == {
        n: tokens for n, (tokens, _) in expected.items()
    }
    for number, (_, logprob) in found.items():
        assert logprob == pytest.approx(expected[number][1], rel=1e-3)


def test_what_cannot_be_recorded_is_computed_anew(folder, monkeypatch):
    class Fails(RunAgain):
        def record(self, function):
            raise RuntimeError("operation not permitted when stream is capturing")

    expected, _ = run(folder, recorded=False)
    monkeypatch.setattr(graphs, "CudaRecording", Fails)
    found, replayed = run(folder, recorded=None)
    assert (found, replayed) == (expected, [])


def test_steps_with_kv_cache_in_host_memory_are_not_recorded(folder):
    with closing(open_engine(folder, host_kv_tokens=2000, **OPTIONS)) as engine:
        assert engine.model.graphs is None


def test_rows_with_more_heads_than_the_kernel_takes_are_not_recorded(tmp_path):
    sizes = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 17, "num_key_value_heads": 1}
    pack(write_tiny_checkpoint(tmp_path / "hf", **sizes), tmp_path / "pack")
    with closing(open_engine(tmp_path / "pack", resident_share=1.0, ring_slots=2, **OPTIONS)) as engine:
        assert engine.model.graphs is None
