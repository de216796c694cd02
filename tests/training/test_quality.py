"""The measures of the quality report: each against values worked out by hand, or a law it must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rotary_batch.engine import open_engine
from rotary_batch.model.rouge import rouge_l
from rotary_batch.model.threshold import Point, choose_and_check, choose_threshold, curve, passing
from rotary_batch.testing import write_tiny_checkpoint
from training.corpus import Example
from training.quality.baselines import first_comment, most_frequent, split_name, subject
from training.quality.generation import checked, confirmed
from training.quality.loss import answer_bits
from training.quality.mixture import VOICES, Counted, Row, fit_weights, mixed, prompt_voices
from training.quality.ngram import KneserNey
from training.quality.packs import pack_all, reference
from training.quality.picking import set_aside
from training.quality.samples import samples

PROMPT = """Say in one or two plain sentences what this python code does.

File: store.py
class Store
<text-0a1b2c>
@cached
async def get_userName2(self, key):
    # Look it up in the table.
    return self.table[key]
</text-0a1b2c>"""


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Return the name.", "Return the name.", 1.0),
        ("Return the name of `get_user`.", "return the user", 2 * 2 / (5 + 3)),  # get_user is one word
        ("a b c d e", "a x c y e z", 2 * 3 / (5 + 6)),
        ("c b a", "a b c", 2 * 1 / (3 + 3)),
        ("", "Return.", 0.0),
        ("one", "two", 0.0),
    ],
)
def test_rouge_l_by_hand(answer, reference, expected):
    assert rouge_l(answer, reference) == rouge_l(reference, answer) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_sums_to_one_whatever_the_context(order):
    draw = np.random.default_rng(0)
    rows = [draw.zipf(1.5, size=length).clip(max=19).tolist() for length in draw.integers(1, 12, 200)]
    model = KneserNey(rows, vocab_size=20, order=order)
    for context in ([], [1], [1, 2], [19, 18, 17, 16, 15], [0, 0, 0, 0, 0, 0], rows[0], rows[1]):
        found = model.distribution(context)
        assert found.shape == (20,)
        assert (found > 0).all()
        assert found.sum() == pytest.approx(1.0)


def test_kneser_ney_prefers_what_it_saw_and_counts_contexts_below():
    """`5` stands often but only after `4`; `6` stands less often after many: unseen contexts expect `6`."""
    rows = [[4, 5]] * 10 + [[n, 6] for n in range(4)]
    model = KneserNey(rows, vocab_size=8, order=2)
    assert model.distribution([4]).argmax() == 5
    assert model.distribution([7])[6] > model.distribution([7])[5]
    whole = model.probabilities([[4, 5], [2, 6]])
    assert whole.tolist() == [
        model.distribution([])[4],
        model.distribution([4])[5],
        model.distribution([])[2],
        model.distribution([2])[6],
    ]


def test_bigram_by_hand():
    """One row `0 1`: counts of 1 everywhere, so every discount is its clipped formula."""
    model = KneserNey([[0, 1]], vocab_size=2, order=2)
    # n1 = 2, n2 = n3 = n4 counted as 1: D1 = 1 - 2 * (2 / 4) * 1 / 2 = 0.5
    # unigrams: each has one predecessor, total 2: (1 - 0.5) / 2 + 0.5 / 2
    # after 0: 1 came once: (1 - 0.5) / 1 + 0.5 * 0.5
    assert model.distribution([1]).tolist() == pytest.approx([0.5, 0.5])
    assert model.distribution([0]).tolist() == pytest.approx([0.25, 0.75])


def test_the_prompt_is_heard():
    row = _row("symbol", [7, 8, 9, 8, 3], [8, 9, 8, 3, 5])
    shares, followers, matches = prompt_voices(row)
    assert shares.tolist() == [0.4, 0.2, 0.4, 0.2, 0.0]
    assert matches.tolist() == [0, 1, 2, 3, 0]  # `3` ends the prompt, so nothing follows it
    assert followers.tolist() == [0.4, 0.5, 1.0, 1.0, 0.0]


def test_the_mixture_sums_to_one_and_learns_whom_to_trust():
    draw = np.random.default_rng(1)
    rows = [_row("symbol", prompt := draw.integers(0, 9, 12), prompt[3:7]) for _ in range(40)]
    counted = Counted.of([*rows, _row("name", [1, 2], [3])], vocab_size=10)
    weights = fit_weights(counted.listen(rows[:20]))
    assert weights.sum(1) == pytest.approx(np.ones(len(weights)))
    assert VOICES[weights[3].argmax()] == "followers in the prompt"
    ends = [_row("symbol", rows[0].prompt, [*rows[0].answer[:2], token]) for token in range(10)]
    assert mixed(counted.listen(ends), weights)[2::3].sum() == pytest.approx(1.0)


def _row(task: str, prompt, answer) -> Row:
    return Row(task, np.array(prompt, np.int32), np.array(answer, np.int32))


def test_baselines_on_a_small_source():
    assert subject(PROMPT) == "get_userName2"
    assert split_name(PROMPT) == "Get user name 2."
    assert first_comment(PROMPT) == "Look it up in the table."
    assert first_comment(PROMPT.replace("#", "")) == "Get user name 2."
    notes = "Say in one or two plain sentences what the file wire_format.py is for.\n<text-1>\n- f: def f()\n</text-1>"
    assert split_name(notes) == "Wire format."
    assert split_name("class HTTPServer:\n    pass") == "Http server."


def test_the_most_frequent_sentence_is_that_of_the_task():
    """Ties go to the answer that shares most with others."""
    answers = ["Open it.", "Open it.", "Return the name.", "Return the name.", "Return the key."]
    training = [Example("symbol", str(n), answer, "p") for n, answer in enumerate(answers)]
    way = most_frequent([*training, Example("file", "", "D", "p")])
    found = [way(Example(task, "", "", "q")) for task in ("symbol", "file", "directory")]
    assert found == ["Return the name.", "D", ""]


def test_names_are_those_of_the_page_check():
    found = checked("Return `get_userName2` of self.table through `Cache` and make_key().", PROMPT)
    assert found.names == ("get_userName2", "Cache", "self.table", "make_key")
    assert found.invented == ("Cache", "make_key")
    assert confirmed(found, "Call make_key and get_userName2.") == 2
    assert not found.repeats
    assert not found.stands
    assert checked("Look it up in the table.", PROMPT).stands
    looped = checked("the key of the table " * 4, PROMPT, "length", -0.1)
    assert (looped.repeats, looped.stands) == (True, False)
    assert checked("Look it up.", PROMPT, "loop").repeats


def test_threshold_is_the_lowest_that_keeps_the_target():
    means, scores = [-0.1, -0.2, -0.3, -0.4, -0.5, -math.inf], [1, 1, 0, 1, 0, 1]
    assert curve(means, scores) == [
        Point(-0.1, 1, 1 / 6, 1.0),
        Point(-0.2, 2, 2 / 6, 1.0),
        Point(-0.3, 3, 3 / 6, 2 / 3),
        Point(-0.4, 4, 4 / 6, 3 / 4),
        Point(-0.5, 5, 5 / 6, 3 / 5),
    ]
    assert choose_threshold(means, scores, target=0.7, min_passing=1) == -0.2, "3 of 4 may be luck"
    assert choose_threshold(means, scores, target=0.9, min_passing=1) == -0.2
    assert choose_threshold(means, scores, target=0.9, min_passing=3) is None
    assert passing(means, scores, -0.4) == Point(-0.4, 4, 4 / 6, 3 / 4)


def test_answers_of_one_confidence_pass_together():
    assert curve([-1, -1, -2], [1, 0, 0]) == [Point(-1, 2, 2 / 3, 0.5), Point(-2, 3, 1.0, 1 / 3)]
    assert choose_threshold([-1, -1], [1, 0], target=0.8, min_passing=1) is None


def test_one_half_chooses_and_the_other_checks():
    means = [-n / 100 for n in range(100)]
    scores = [float(n < 60) for n in range(100)]
    found = choose_and_check(means, scores, target=0.75)
    assert found.threshold == -0.7
    assert found.here == Point(-0.7, 36, 36 / 50, 30 / 36)
    assert found.elsewhere == Point(-0.7, 35, 35 / 50, 30 / 35)
    assert choose_and_check(means, [0.0] * 100, target=0.5).threshold is None


def test_whole_packages_are_set_aside():
    sizes = {"large": 500, **{f"small{n}": 10 for n in range(50)}}
    training = [Example("symbol", f"{name} {n}", "A.", name) for name, size in sizes.items() for n in range(size)]
    counted, aside = set_aside(training)
    assert len(aside) == 30
    assert not {one.package for one in counted} & {one.package for one in aside}
    assert len(counted) + len(aside) == len(training)


def test_a_sample_cannot_break_its_table():
    example = Example("symbol", PROMPT, "Look <b>up</b> | `a_b` it.", "store")
    row = samples([(example, checked("Use `other_table\n| now", PROMPT, "length", -1.5))])[2]
    cells = row.replace(r"\|", "!").split("|")
    assert len(cells) == 8
    assert cells[2] == r" Look \<b\>up\</b\> ! `a_b` it. "
    assert cells[3] == r" Use \`other\_table ! now "
    assert cells[6] == " length, invents `other_table` "


def test_the_reference_of_a_pack_has_the_weights_that_the_engine_uses(tmp_path):
    """Two programs, one pack: what is decoded for the loss is what answers are written with."""
    checkpoint = write_tiny_checkpoint(tmp_path / "hf", intermediate_size=64)
    tokens = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(3))
    found = []
    for judged in pack_all(checkpoint, tmp_path):
        engine = open_engine(judged.folder, numerics="exact")
        expected = engine.logits(tokens.tolist())
        engine.close()
        with torch.no_grad():
            found.append(reference(judged.folder, tmp_path / "float32")(tokens[None]).logits[0])
        assert (found[-1] - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_bits_of_a_row_do_not_depend_on_its_batch(tiny_pack, tmp_path):
    model = reference(tiny_pack, tmp_path / "float32")
    draw = np.random.default_rng(2)
    rows = [_row("symbol", draw.integers(0, 256, n), draw.integers(0, 256, 20 - n)) for n in (3, 9, 15)]
    rows.append(_row("symbol", draw.integers(0, 256, 50), draw.integers(0, 256, 7)))
    together = answer_bits(model, rows)
    assert together == pytest.approx([answer_bits(model, [row])[0] for row in rows])
    with torch.no_grad():
        chances = model(torch.from_numpy(rows[0].whole).long()[None]).logits[0].log_softmax(-1)
    by_hand = -sum(chances[2 + n, token].item() for n, token in enumerate(rows[0].answer)) / math.log(2)
    assert together[0] == pytest.approx(by_hand)
