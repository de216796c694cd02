"""Whole models whose experts are computed in groups: from wherever they come, on CUDA, else in Triton's interpreter."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

from rotary_batch.core import Request
from rotary_batch.engine import build, open_engine
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.offload import source
from rotary_batch.engine.offload.prefetch import CpuTransfer
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.runtime.buffers import page_buffer
from rotary_batch.testing import write_tiny_checkpoint

INTERPRETED = not torch.cuda.is_available()
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which the dev extra installs on Linux x86-64"),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
# the interpreter cannot multiply bf16, so there the processor is one that computes in float32
OPTIONS = {"numerics": "fast", "kv": "int8"} | ({"max_isa": "portable"} if INTERPRETED else {"device": "cuda"})
PLACES = {
    "all resident": {"resident_share": 1.0},
    "residents and a ring": {"resident_share": 0.4, "ring_slots": 8},
    "a ring without a prefetcher": {"resident_share": 0.0, "ring_slots": 9, "prefetch": False},
    "the shortest ring": {"resident_share": 0.0, "ring_slots": 2},
    "from disk": {"resident_share": 0.2, "ring_slots": 8, "tier": "disk"},
}


class OneBlock(CpuTransfer):
    """Slots as they are on a CUDA device."""

    def __init__(self, tier, slot_sizes, trace):
        super().__init__(tier, slot_sizes, trace)
        self.memory = page_buffer(len(slot_sizes) * max(slot_sizes))
        self.slots = torch.split(self.memory, max(slot_sizes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_local_experts": 6, "num_hidden_layers": 2}
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), **sizes)
    target = tmp_path_factory.mktemp("packed") / "pack"
    pack(checkpoint, target)
    return target


def run(folder: Path, **place) -> tuple[torch.Tensor, list[int], dict[str, float]]:
    """Logits of a prompt; how many tokens sequences got, of which one ends first: a sweep, then few rows."""
    with closing(open_engine(folder, **OPTIONS, **place)) as engine:
        logits = engine.logits([(7 * place) % 250 for place in range(12)]).cpu().double()
        engine.stop_ids = frozenset()
        for number in range(4):
            engine.admit(Request(request_id=number, prompt_ids=(3, 1 + number), max_new_tokens=5 if number == 2 else 2))
        counts = []
        while engine.num_live:
            counts += [len(done.token_ids) for done in engine.step().completions]
        return logits, counts, engine.trace.totals()


@pytest.mark.parametrize("place", PLACES)
def test_experts_in_groups_are_those_one_by_one(place, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build, "computes_groups", lambda *_: False)
        expected, _, one_by_one = run(folder, **PLACES[place])
    if INTERPRETED:
        monkeypatch.setattr(build, "computes_groups", lambda *_: True)
        one_block = lambda tier, sizes, device, trace: OneBlock(tier, sizes, trace)  # noqa: E731
        monkeypatch.setattr(source, "open_transfer", one_block)
    found, counts, totals = run(folder, **PLACES[place])
    apart = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert apart.median() <= (0.01 if INTERPRETED else 0.05)
    assert sorted(counts) == [2, 2, 2, 5]
    for name in ("sweeps", "speculative_revolutions", "bytes_to_host"):
        assert totals[name] == one_by_one[name], name
    assert totals["speculative_revolutions"] > 0 or place == "all resident"
