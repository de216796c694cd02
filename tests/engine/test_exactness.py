"""Exact mode gives the same bits whatever shares the batch and wherever the weights were."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.testing import write_tiny_checkpoint

PROMPT = [(7 * place + place * place) % 250 for place in range(83)]
NEW_TOKENS = 24


ROWS_ALONE = """
{imports}
torch.set_num_threads({threads})
from rotary_batch.engine.kernels.numerics import Numerics
numerics = Numerics("exact", torch.device("cpu"))
torch.manual_seed(0)
for outputs, columns in ((576, 1536), (1536, 576), (4096, 1024), (192, 576)):
    weight, x = torch.randn(outputs, columns), torch.randn(2200, columns)
    places = range(0, 2200, 73)
    alone = torch.cat([numerics.linear(x[[place]], weight) for place in places])
    for rows in (5, 16, 33, 64, 96, 128, 640, 1040, 2200):
        seen = [place for place in places if place < rows]
        if not torch.equal(numerics.linear(x[:rows], weight)[seen], alone[: len(seen)]):
            print(outputs, columns, rows)
"""


@pytest.mark.parametrize("imports", ["import rotary_batch.engine, torch", "import torch, rotary_batch.engine"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_has_the_same_bits_among_any_number_of_rows(imports, threads):
    """At the shapes of real models: MKL once cut the sums of some among its threads, for some numbers of rows."""
    code = ROWS_ALONE.format(imports=imports, threads=threads)
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.fixture(scope="module")
def exact_pack(tmp_path_factory):
    source = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), seed=5, num_hidden_layers=3, num_local_experts=8)
    folder = tmp_path_factory.mktemp("exact")
    pack(source, folder)
    return folder


@pytest.fixture(scope="module")
def expected(exact_pack, device):
    """Tokens with their running log-probability, and logits, in the simplest case: alone, all resident."""
    engine = open_engine(exact_pack, numerics="exact", device=device)
    tokens_and_logits = run(engine, [request(0, PROMPT)])[0], engine.logits(PROMPT)
    engine.close()
    return tokens_and_logits


def request(number: int, prompt, generated=(), logprob_sum: float = 0.0, new_tokens: int = NEW_TOKENS) -> Request:
    return Request(
        request_id=number,
        prompt_ids=tuple(prompt),
        max_new_tokens=new_tokens,
        generated_ids=tuple(generated),
        logprob_sum=logprob_sum,
    )


def run(engine, requests) -> dict[int, list[tuple[int, float]]]:
    """Drain the requests; (token, running log-probability) of each.  Stop tokens do not stop."""
    engine.stop_ids = frozenset()
    tokens = {r.request_id: [(token, None) for token in r.generated_ids] for r in requests}
    waiting = list(requests)
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        for new in engine.step().new_tokens:
            tokens[new.request_id].append((new.token_ids[0], new.logprob_sum))
    return tokens


def check(exact_pack, expected, device, **options):
    tokens, logits = expected
    engine = open_engine(exact_pack, numerics="exact", device=device, **options)
    assert run(engine, [request(0, PROMPT)])[0] == tokens
    assert torch.equal(engine.logits(PROMPT), logits)
    assert engine.trace.totals()["bytes_to_host"] == 0
    engine.close()


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("resident_share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("ring_slots", [2, 3, 5, 12, 24])
def test_bits_do_not_depend_on_ring_residents_or_prefetch(
    exact_pack, expected, device, ring_slots, resident_share, prefetch
):
    check(exact_pack, expected, device, ring_slots=ring_slots, resident_share=resident_share, prefetch=prefetch)


@pytest.mark.parametrize("tier", ["disk", "ram"])
def test_bits_do_not_depend_on_the_tier(exact_pack, expected, device, tier):
    check(exact_pack, expected, device, ring_slots=3, resident_share=0.0, tier=tier)


@pytest.mark.parametrize("span", [1, 7, 64])
def test_bits_do_not_depend_on_the_prefill_span(exact_pack, expected, device, span):
    check(exact_pack, expected, device, prefill_span=span)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_number_of_threads(exact_pack, expected, device, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(exact_pack, expected, device)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("place", [0, 7, 15])
def test_bits_do_not_depend_on_what_shares_the_batch(exact_pack, expected, device, place):
    lengths = [1, 2, 5, 9, 16, 17, 30, 47, 64, 65, 80, 100, 128, 129, 200]
    others = [
        request(n + 1, [(n + 3 * i) % 250 for i in range(size)], new_tokens=n + 1) for n, size in enumerate(lengths)
    ]
    mixed = [*others[:place], request(0, PROMPT), *others[place:]]
    engine = open_engine(exact_pack, numerics="exact", ring_slots=2, resident_share=0.0, max_batch=16, device=device)
    assert run(engine, mixed)[0] == expected[0]
    engine.close()


def test_bits_do_not_depend_on_where_a_sequence_was_resumed(exact_pack, expected, device):
    tokens = expected[0]
    engine = open_engine(exact_pack, numerics="exact", device=device)
    for done in range(NEW_TOKENS):
        generated = [token for token, _ in tokens[:done]]
        logprob_sum = tokens[done - 1][1] if done else 0.0
        resumed = run(engine, [request(0, PROMPT, generated, logprob_sum)])[0]
        assert resumed[done:] == tokens[done:]
    engine.close()
