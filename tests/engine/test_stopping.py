"""An answer ends before it rambles: at its limit of sentences, or when it says the same again and again."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.core import Request, StopCriteria
from rotary_batch.engine import open_engine
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


def ended_line(answers: AnswerForm, ids: list[int], prompt=(1,), resumed: int = 0) -> tuple[int, ...] | None:
    """What is kept of an answer that ends with its line; None when it goes on after all of `ids`."""
    request = Request(
        request_id=1,
        prompt_ids=prompt,
        max_new_tokens=500,
        generated_ids=tuple(ids[:resumed]),
        stop=StopCriteria(at_line_end=True),
    )
    sequence = Sequence(request, 0, 0, [*prompt, *ids[:resumed]], 0.0)
    for token_id in ids[resumed:]:
        if done := sequence.accept(token_id, 0.0, frozenset(), answers):
            assert (done.reason, done.num_scored) == ("stop", sequence.num_generated)
            return done.token_ids
    return None


WORDS = [" Reads", " it", ".", "\n", ".\n\n", " \n", "č\n", "ĉ", ".\n-", "<think>", "</think>", "</s>"]


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ([" Reads", " it", "."], None),
        ([" Reads", " it", ".", "\n", " it"], [" Reads", " it", "."]),
        (["\n", " \n", "ĉ", "č\n", " Reads", "\n"], ["\n", " \n", "ĉ", "č\n", " Reads"]),
        ([" Reads", ".\n\n", " it"], [" Reads", ".\n\n"]),  # without it the answer would have no end
        ([" Reads", " \n", " it"], [" Reads"]),
        ([" Reads", ".\n-", " it"], [" Reads"]),
        (["<think>", " it", "\n", " it", "</think>", "\n", " Reads", "\n"], ["<think>", " it", "\n", " it", "</think>", "\n", " Reads"]),
        (["<think>", " it", "\n", " it", "\n"], None),
    ],
)  # fmt: skip
def test_an_answer_of_one_line_ends_with_it(pieces, kept):
    answers = AnswerForm({"<think>": 9, "</think>": 10}, lambda: dict(enumerate(WORDS)))
    ids = [WORDS.index(piece) for piece in pieces]
    for resumed in range(len(ids) if kept is None else len(kept)):
        found = ended_line(answers, ids, (11,), resumed)
        assert found == (None if kept is None else tuple(WORDS.index(piece) for piece in kept))


@settings(max_examples=200, deadline=None)
@given(st.text("ab. \n", max_size=30))
def test_what_is_kept_of_a_line_is_its_text(tokenizer, text):
    kept = ended_line(tokenizer.answers, tokenizer.encode(text))
    line, newline, _ = text.lstrip().partition("\n")
    assert (kept is None) == (not newline)
    if kept is not None:
        assert tokenizer.decode(kept).lstrip() == line


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
    assert sequence.accept(5, -1.0, frozenset({7}), AnswerForm({}, dict)) is None
    done = sequence.accept(7, -2.0, frozenset({7}), AnswerForm({}, dict))
    assert (done.reason, done.token_ids, done.logprob_sum, done.num_scored) == ("stop", (5,), -3.0, 2)


def test_drafts_end_a_line_where_single_tokens_do(tmp_path):
    """Every seventh token is a newline here, so that answers of random weights have lines."""
    checkpoint = write_tiny_checkpoint(tmp_path / "hf")
    texts = {token: "\n" if token % 7 == 0 else "a" for token in range(320)}
    prompts = [tuple((step * n) % 250 for n in range(1, 40)) * 2 for step in range(1, 9)]

    def answers_of(stop: StopCriteria, draft_tokens: int) -> dict[int, tuple[int, ...]]:
        engine = open_engine(checkpoint, numerics="exact", draft_tokens=draft_tokens)
        engine.model = dataclasses.replace(engine.model, answers=AnswerForm({}, lambda: texts))
        engine.stop_ids = frozenset()
        for n, prompt in enumerate(prompts):
            engine.admit(Request(request_id=n, prompt_ids=prompt, max_new_tokens=40, stop=stop))
        found: dict[int, tuple[int, ...]] = {}
        while engine.num_live:
            found |= {done.request_id: done.token_ids for done in engine.step().completions}
        engine.close()
        return found

    whole = answers_of(StopCriteria(), 0)
    lines = {}
    for number, ids in whole.items():
        first = next((n for n, token in enumerate(ids) if token % 7), len(ids))
        lines[number] = ids[: next((n for n in range(first, len(ids)) if ids[n] % 7 == 0), len(ids))]
    assert lines != whole
    assert answers_of(StopCriteria(at_line_end=True), 0) == answers_of(StopCriteria(at_line_end=True), 4) == lines
