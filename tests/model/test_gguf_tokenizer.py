"""The tokenizer of a GGUF file gives the token ids of the tokenizer that it was made from."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import sentencepiece
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

import rotary_batch
from rotary_batch.engine.packs.gguf import read_gguf
from rotary_batch.errors import ModelError
from rotary_batch.model.gguf_tokenizer import tokenizer_files
from rotary_batch.model.split_rules import SPLIT_RULES
from rotary_batch.model.tokens import Tokenizer
from tests.model.gguf_keys import CONTROL, NORMAL, UNUSED, USER_DEFINED, smollm2_path, written_keys

SOURCES = "".join(path.read_text() for path in sorted(Path(rotary_batch.__file__).parent.glob("*.py")))
BITS = [
    *("it's", "'S", "'LL", "don't", "12345678", "3.14", "ABCdef", "XMLHttpRequest", "x_1", "ǅ", "ʰ", "ªº", "Ⅷ²½", "٣٤"),
    *("  ", "   ", "\t\t", "\n\n\n", "\r\n", " \n ", "\n  ", "\u00a0", "\u2028", "\u3000", "\u200b", "\x1c", " "),
    *("é", "e\u0301", "naïve", "Ω", "日本語のテスト", "汉字", "한국어", "नमस्ते", "ไทย", "שלום", "مرحبا", "мир"),
    *(
        "😀",
        "👩‍👩‍👧",
        "🇪🇺",
        "//",
        "==",
        "/*",
        "*/",
        "?.",
        "¿",
        "—",
        "…",
        "$",
        "`",
        "<tool>",
        "<|im_end|>",
        "</s>",
        "[INST]",
    ),
]


def texts(count: int) -> list[str]:
    """Pieces of real code, of what tokenizers treat differently, and of letters of many scripts."""
    chance, result = random.Random(7), []
    ranges = [
        (32, 127),
        (0xA1, 0x180),
        (0x391, 0x3C9),
        (0x410, 0x44F),
        (0x4E00, 0x9FA5),
        (0xAC00, 0xD7A3),
        (0x1F300, 0x1F5FF),
    ]
    for number in range(count):
        if number % 3 == 0:
            begin = chance.randrange(len(SOURCES))
            result.append(SOURCES[begin : begin + chance.randrange(1, 200)])
        elif number % 3 == 1:
            result.append(
                "".join(chance.choice(BITS) + chance.choice(["", " ", "a"]) for _ in range(chance.randrange(1, 10)))
            )
        else:
            result.append(
                "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(chance.randrange(1, 30)))
            )
    return result


def loaded(keys: dict[str, object], folder: Path) -> Tokenizer:
    for name, text in tokenizer_files(keys, "model.gguf").by_name().items():
        (folder / name).write_text(text)
    return Tokenizer.load(folder)


class Gpt2:
    """The algorithm of GPT-2's encoder.py, with digits alone before it."""

    SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
    WORDS = regex.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?[^\p{{L}}\p{{N}}{SPACE[1:]}+|{SPACE}+(?=\Z|{SPACE})|{SPACE}+"
    )
    DIGITS = regex.compile(r"\p{N}|\P{N}+")

    def __init__(self, tokens: list[str], merges: list[str]) -> None:
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in plain]
        self.letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
        self.ids = {token: place for place, token in enumerate(tokens)}
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(merges)}
        self.merged = cache(self.merged)

    def encode(self, text: str) -> list[int]:
        words = [word for part in self.DIGITS.findall(text) for word in self.WORDS.findall(part) or [part]]
        return [token for word in words for token in self.merged(word)]

    def merged(self, word: str) -> list[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined, place = [], 0
            while place < len(parts):
                step = 2 if tuple(parts[place : place + 2]) == best else 1
                joined.append("".join(parts[place : place + step]))
                place += step
            parts = joined
        return [self.ids[part] for part in parts if part in self.ids]  # it lacks 21 bytes, most of which no text has


def test_smollm2_has_the_ids_of_the_original_algorithm(tmp_path):
    keys = read_gguf(smollm2_path()).keys
    tokenizer = loaded(keys, tmp_path)
    oracle = Gpt2(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.merges"])
    strings = texts(10_000)
    assert [tokenizer.encode(text) for text in strings] == [oracle.encode(text) for text in strings]
    assert tokenizer._words is not None, "encoded word by word"
    assert tokenizer.stop_ids == {0, 2}
    greeting = oracle.encode("system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face")
    newline, begun = oracle.encode("\n"), oracle.encode("assistant\n")
    for text in filter(None, map(str.strip, strings[:100])):
        turn = [1, *oracle.encode(f"user\n{text}"), 2, *newline]
        assert tokenizer.encode_chat(text) == [1, *greeting, 2, *newline, *turn, 1, *begun]


# Of the tokenizer.json that each family publishes.
GPT_4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KIMI = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
DEEPSEEK_3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
PUBLISHED = {
    "llama-bpe": (LLAMA_3,),
    "glm4": (LLAMA_3,),
    "qwen2": (QWEN_2,),
    "hunyuan": (QWEN_2,),
    "qwen35": (QWEN_35,),
    "gpt-4o": (GPT_4O,),
    "minimax-m2": (GPT_4O,),
    "tekken": (TEKKEN,),
    "kimi-k2": (KIMI,),
    "bailingmoe2": (BAILING,),
    "deepseek-v3": (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_3),
    "deepseek-llm": (
        "[\r\n]",
        r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        "[一-龥ࠀ-一가-퟿]+",
        r"\p{N}",
    ),
    "deepseek-coder": ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    "laguna": (r"[^\n]+|[\n]+", QWEN_2),
    "gpt-2": (),
    "smollm": ("digits",),
    "starcoder": ("digits",),
    "command-r": ("digits",),
}
NORMALISED, WHOLE_WORDS = {"qwen2", "qwen35", "command-r"}, {"llama-bpe", "tekken"}


@cache
def trained(pre: str) -> HfTokenizer:
    patterns = PUBLISHED[pre]
    is_gpt_2 = patterns in {(), ("digits",)}
    digits, split = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split
    steps = [digits if one == "digits" else split(Regex(one), "isolated") for one in patterns]
    tokenizer = HfTokenizer(models.BPE(ignore_merges=pre in WHOLE_WORDS))
    tokenizer.normalizer = normalizers.NFC() if pre in NORMALISED else None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=is_gpt_2)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([SOURCES, *texts(300)], trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("</s>", "<|im_end|>")])
    return tokenizer


def keys_of(tokenizer: HfTokenizer, pre: str, path: Path) -> dict[str, object]:
    """As llama.cpp's converter writes them."""
    vocabulary = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    tokens = [vocabulary[place] for place in range(len(vocabulary))]
    kinds = {"<tool>": USER_DEFINED, "</s>": CONTROL, "<|im_end|>": CONTROL}
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    types = [kinds.get(token, NORMAL) for token in tokens]
    return written_keys(
        path, [*tokens, "[PAD]"], [*types, UNUSED], pre=pre, merges=merges, eos_token_id=len(tokens) - 1
    )


@pytest.mark.parametrize("pre", PUBLISHED)
def test_every_rule_gives_the_ids_of_the_family_s_own_tokenizer(pre, tmp_path):
    original = trained(pre)
    tokenizer = loaded(keys_of(original, pre, tmp_path / "model.gguf"), tmp_path)
    original.encode_special_tokens = True
    strings = texts(600)
    expected = [one.ids for one in original.encode_batch(strings, add_special_tokens=False)]
    assert [tokenizer.encode(text) for text in strings] == expected
    assert any(original.token_to_id("<tool>") in ids for ids in expected), "what the user defined is found whole"
    assert tokenizer.stop_ids == {original.token_to_id("<|im_end|>")}


def test_every_rule_can_be_read():
    for rule in SPLIT_RULES.values():
        tokenizer = HfTokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        table = json.loads(tokenizer.to_str()) | {
            "pre_tokenizer": rule.pre_tokeniser(),
            "normalizer": rule.normaliser(),
        }
        assert HfTokenizer.from_str(json.dumps(table)).encode("a").ids == [0]


@pytest.fixture(scope="module")
def sentence_piece() -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((SOURCES + "\n".join(texts(300))).splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=1500,
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def spm_keys(model: sentencepiece.SentencePieceProcessor, path: Path, **more: object) -> dict[str, object]:
    places = range(model.get_piece_size())
    types = [
        2 if model.is_unknown(n) else 3 if model.is_control(n) else 6 if model.is_byte(n) else NORMAL for n in places
    ]
    scores = [model.get_score(n) for n in places]
    tokens = [model.id_to_piece(n) for n in places]
    ids = {"bos_token_id": model.bos_id(), "eos_token_id": model.eos_id(), "unk_token_id": model.unk_id()}
    return written_keys(path, tokens, types, scores=scores, **ids, **more)


def test_merges_rebuilt_from_scores_give_the_ids_of_sentencepiece(sentence_piece, tmp_path):
    tokenizer = loaded(spm_keys(sentence_piece, tmp_path / "model.gguf"), tmp_path)
    strings = [text for text in texts(1500) if not text.startswith(" ")]
    assert [tokenizer.encode(text) for text in strings] == sentence_piece.encode(strings)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in strings] == strings
    assert tokenizer.stop_ids == {sentence_piece.eos_id()}
    bare = loaded(spm_keys(sentence_piece, tmp_path / "bare.gguf", add_space_prefix=False), tmp_path)
    assert [bare.encode(text[1:]) for text in (" abc def", " x = 1")] != [
        tokenizer.encode(text) for text in ("abc def", "x = 1")
    ]


LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
GOOD = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [*LETTERS, "ab", "<|im_end|>", "<think>"],
    "tokenizer.ggml.token_type": [NORMAL] * 257 + [CONTROL, USER_DEFINED],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 257,
}
SPM = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "</s>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [2, 3, 1, 1, 1],
    "tokenizer.ggml.scores": [0.0, 0.0, -2.0, -3.0, -1.0],
}
BAD = {
    "no model": (GOOD, "model", None, "tokenizer.ggml.model is missing"),
    "another model": (GOOD, "model", "bert", "is \"bert\", not one of gpt2, llama"),
    "no rule": (GOOD, "pre", None, "tokenizer.ggml.pre is missing"),
    "an unknown rule": (GOOD, "pre", "qwen9", "tokenizer.ggml.pre is \"qwen9\", a rule to split words that"),
    "no tokens": (GOOD, "tokens", [], "tokenizer.ggml.tokens is empty"),
    "tokens of numbers": (GOOD, "tokens", [1], "something else than strings"),
    "a token twice": (GOOD, "tokens", [*LETTERS, "a", "b", "c"], "has \"a\" twice"),
    "too few types": (GOOD, "token_type", [1], "has 1 entries for 259 tokens"),
    "an unknown type": (GOOD, "token_type", [7] * 259, "whole numbers up to 6"),
    "an end out of range": (GOOD, "eos_token_id", 259, "eos_token_id is 259, not a whole number from 0 to 258"),
    "a negative id": (GOOD, "bos_token_id", -1, "bos_token_id is -1"),
    "no merges": (GOOD, "merges", None, "tokenizer.ggml.merges is missing"),
    "a merge of one": (GOOD, "merges", ["ab"], "line 0 is \"ab\", not two tokens that make a third"),
    "a merge of nothing known": (GOOD, "merges", ["a b", "a zz"], "line 1 is \"a zz\""),
    "a merge into nothing known": (GOOD, "merges", ["b a"], "line 0 is \"b a\""),
    "a control token of one letter": (GOOD, "token_type", [CONTROL] * 256 + [1, 3, 4], "can be written as ordinary text"),
    "a template that is a list": (GOOD, "", [1], "chat_template"),
    "no scores": (SPM, "scores", None, "tokenizer.ggml.scores is missing"),
    "too few scores": (SPM, "scores", [0.0], "has 1 entries for 5 tokens"),
    "scores that are no numbers": (SPM, "scores", [float("nan")] * 5, "something else than finite numbers"),
    "a token of a million letters": (SPM, "tokens", ["<unk>", "</s>", "a", "b", "ab" * 500_000], "tokens are too long"),
}  # fmt: skip


@pytest.mark.parametrize(("good", "key", "value", "fact"), BAD.values(), ids=BAD)
def test_a_damaged_tokenizer_is_refused_with_the_file_the_key_and_the_fact(good, key, value, fact):
    assert tokenizer_files(good, "m.gguf")
    changed = good | {f"tokenizer.ggml.{key}" if key else "tokenizer.chat_template": value}
    with pytest.raises(ModelError) as error:
        tokenizer_files({name: kept for name, kept in changed.items() if kept is not None}, "m.gguf")
    assert str(error.value).startswith("m.gguf: ")
    assert fact in str(error.value)
    assert len(str(error.value)) < 1500


def test_a_merge_line_is_cut_at_its_first_space_behind_its_first_letter(tmp_path):
    tokens = [*LETTERS, " a", " ab"]
    keys = GOOD | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": [" a b"], "tokenizer.ggml.eos_token_id": 0}
    del keys["tokenizer.ggml.token_type"], keys["tokenizer.ggml.eos_token_id"]
    text = tokenizer_files(keys, "m.gguf").tokenizer_json
    assert json.loads(text)["model"]["merges"] == [[" a", "b"]]


def test_what_ends_a_turn_is_a_control_token_whatever_the_file_says(tmp_path):
    tokens = [*LETTERS, "<|im_end|>", "<|im_start|>", "<think>", ""]
    types = [NORMAL] * 257 + [USER_DEFINED, USER_DEFINED, NORMAL]
    changed = {"tokens": tokens, "token_type": types, "merges": [], "eos_token_id": 256}
    tokenizer = loaded(GOOD | {f"tokenizer.ggml.{name}": value for name, value in changed.items()}, tmp_path)
    assert not {256, 257} & set(tokenizer.encode("<|im_end|><|im_start|>"))
    assert tokenizer.encode("<think>") == [258]
    assert tokenizer.stop_ids == {256}
