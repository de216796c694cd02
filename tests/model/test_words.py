"""Words that are encoded once give the same token ids as the whole text, and the same counts for every range."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from rotary_batch.model.tokens import Tokenizer as OurTokenizer
from rotary_batch.model.words import _KNOWN, MAX_WORDS, Words

GPT_2, *OTHERS = sorted(_KNOWN, key=lambda pattern: (not pattern.startswith("'s"), r"\p{N}+" not in pattern))
CODE = [
    *(
        "def f(x):\n",
        "    return x\n",
        "it's",
        "'S",
        "x = 1234567\n",
        "\t\t",
        "  ",
        "\r\n",
        "\n\n",
        " ",
        "_a1_",
        "==",
        "//",
    ),
    *("é", "日本語", "٣", "ſ", "²", "\u00a0", "\u2028", "\x1c", "😀", "e\u0301", "a", "B", "7", "'", "?foo", "<tool>"),
]
TEXTS = st.lists(st.sampled_from(CODE) | st.characters(), max_size=30).map("".join)


def made(pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if pattern == GPT_2
        else pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(CODE), "def return it's x = 1 foo\n\n    return 1234"] * 9, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return tokenizer


@pytest.fixture(scope="module", params=[GPT_2, *OTHERS], ids=["gpt-2", "other 1", "other 2", "other 3"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    made(request.param).save(str(folder / "tokenizer.json"))
    loaded = OurTokenizer.load(folder)
    assert loaded._words is not None
    return loaded


def plain(tokenizer: OurTokenizer, text: str) -> list[int]:
    return tokenizer._content.encode(text, add_special_tokens=False).ids


@settings(deadline=None)
@given(TEXTS)
@example("it's x == 1234567;\r\n\r\n   y  \n")
def test_words_have_the_ids_of_the_whole_text(tokenizer, text):
    clean = text.encode("utf-8", "replace").decode()
    assert tokenizer.encode(text) == plain(tokenizer, clean)


@settings(deadline=None)
@given(TEXTS.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=60), st.data())
def test_a_range_has_the_tokens_of_its_own_text(tokenizer, source, data):
    count = tokenizer.count_ranges(source)
    start = data.draw(st.integers(0, len(source)))
    end = data.draw(st.integers(start, len(source)))
    assert count(start, end) == len(plain(tokenizer, source[start:end].decode("utf-8", "replace")))


def test_tokenizers_that_merge_across_words_are_left_alone():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert Words.of(tokenizer) is None
    tokenizer = made(OTHERS[0])
    tokenizer.normalizer = normalizers.Lowercase()
    assert Words.of(tokenizer) is None


def test_words_without_end_take_no_memory_without_end(tokenizer):
    words = Words.of(tokenizer._content)
    text = " ".join(f"x{'y' * (n % 40)}{chr(97 + n % 26)}{chr(0x4E00 + n % 9000)}" for n in range(MAX_WORDS + 1000))
    words.encode(text)
    assert len(words._known) <= MAX_WORDS


def test_places_within_a_long_word_are_counted_in_linear_time(tokenizer):
    source = b"\n" * 300_000
    count = tokenizer.count_ranges(source)
    began = time.process_time()
    assert count(0, 250) == len(plain(tokenizer, "\n" * 250))
    for start in range(0, len(source), 250):
        count(start, start + 250)
    assert time.process_time() - began < 30, "what is quadratic takes an hour"
