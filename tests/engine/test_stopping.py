"""An answer ends before it rambles: at its limit of sentences, or when it says the same again and again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.core import Request, StopCriteria
from rotary_batch.engine.sequence import Sequence
from rotary_batch.engine.stopping import LONGEST_PERIOD, LOOP_REPEATS, LOOP_TOKENS, loop_tokens
from rotary_batch.model.answers import AnswerForm
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.sentences import is_whole, num_sentences, split_sentences
from rotary_batch.testing import write_tiny_checkpoint


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.load(write_tiny_checkpoint(tmp_path_factory.mktemp("hf")))


def written(tokenizer, text: str, stop: StopCriteria, max_new_tokens: int = 500, resumed: int = 0):
    """Let a sequence write a text token by token; its completion, or None when the criteria let all of it pass."""
    ids = tokenizer.encode(text)
    request = Request(
        request_id=1, prompt_ids=(1,), max_new_tokens=max_new_tokens, generated_ids=tuple(ids[:resumed]), stop=stop
    )
    sequence = Sequence(request, 0, 0, [1, *ids[:resumed]], -0.5 * resumed)
    for token_id in ids[resumed:]:
        if done := sequence.accept(token_id, -0.5, frozenset(), tokenizer.answers):
            return done
    return None


@pytest.mark.parametrize("resumed", [0, 3, 20])
def test_an_answer_ends_before_one_sentence_too_many(tokenizer, resumed):
    text = "Reads `a.py` at 3.5 Hz. Then it stops!  \nWrites more. And more."
    for limit, kept in ((2, "Reads `a.py` at 3.5 Hz. Then it stops!"), (3, text[:-10])):
        done = written(tokenizer, text, StopCriteria(max_sentences=limit), resumed=resumed)
        assert (done.reason, tokenizer.decode(done.token_ids).strip()) == ("sentences", kept)
        assert done.logprob_sum == -0.5 * done.num_scored
    assert written(tokenizer, text, StopCriteria(max_sentences=4)) is None
    assert written(tokenizer, text, StopCriteria()) is None


def test_points_within_names_and_numbers_end_nothing():
    text = "Uses os.path.join, e.g. with 1.5 and i.e. nothing else"
    assert [num_sentences(text[:n]) for n in range(len(text))] == [0] + [1] * (len(text) - 1)
    assert num_sentences(' Says "so." (Then `x`.)  9 more.') == 3
    for one in ("Reads names, e.g. `os.path`", "1. Foo vs. Rust, cf. JSON", "Ends i.e. JSON"):
        assert (num_sentences(one), split_sentences(one), is_whole(one)) == (1, [one], False)
    assert split_sentences("Reads one (or none.) Then `x`. then 2! So") == [
        "Reads one (or none.)",
        "Then `x`.",
        "then 2!",
        "So",
    ]
    assert not is_whole("names, e.g.")


@pytest.mark.parametrize("resumed", [0, 10, 40])
def test_a_loop_ends_after_its_first_round(tokenizer, resumed):
    text = "It adds numbers. " + "The sum is x. " * 9
    done = written(tokenizer, text, StopCriteria(stops_loops=True), resumed=resumed)
    assert done.reason == "loop"
    kept = tokenizer.decode(done.token_ids)
    assert kept.count("The sum is x") == 1
    assert text.startswith(kept)
    assert written(tokenizer, text, StopCriteria()) is None
    # ". The sum is x" is the same loop, and is complete two tokens before "The sum is x. "
    assert done.num_scored == len("It adds numbers") + LOOP_REPEATS * len(". The sum is x")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=LONGEST_PERIOD))
def test_what_repeats_long_enough_is_found_and_what_is_found_repeats(before, period):
    rounds = max(LOOP_REPEATS, -(-LOOP_TOKENS // len(period)))
    looping = [*before, *period * rounds]
    surplus = loop_tokens(looping)
    assert surplus > 0
    kept, tail = looping[:-surplus], looping[-surplus:]
    units = [size for size in range(1, len(period) + 1) if surplus % size == 0]
    assert any(tail == kept[-size:] * (surplus // size) for size in units), (
        "what is cut says again how what is kept ends"
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=LOOP_TOKENS - 1))
def test_short_repetitions_are_no_loop(tokens):
    assert loop_tokens(tokens) == 0


def test_a_sequence_that_ends_by_itself_is_left_alone():
    sequence = Sequence(Request(request_id=1, prompt_ids=(1,), max_new_tokens=9), 0, 0, [1], 0.0)
    assert sequence.accept(5, -1.0, frozenset({7}), AnswerForm({}, {})) is None
    done = sequence.accept(7, -2.0, frozenset({7}), AnswerForm({}, {}))
    assert (done.reason, done.token_ids, done.logprob_sum, done.num_scored) == ("stop", (5,), -3.0, 2)
