"""The tokenizer of a GGUF file, from its keys, as the files that Hugging Face's `tokenizers` reads.

Two kinds exist.  `gpt2` is byte-level BPE: its merges are in the file, its split rule only by name.  `llama` is
SentencePiece BPE: its merges are rebuilt from the scores.  The keys are specified in
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  A file is untrusted: what does not fit together is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from tokenizers import Tokenizer as HfTokenizer

from rotary_batch.model.chat_tokens import ENDS
from rotary_batch.model.rust_tokenizers import reading_tokenizer
from rotary_batch.model.split_rules import SPLIT_RULES
from rotary_batch.model.tables import Table, shown

_REMEDY = "fetch the file again, or a newer conversion of the model"
_KEY = "tokenizer.ggml."
_MAX_TOKENS = 2**20
_MAX_MERGES = 2**21
# Rebuilding merges looks at every cut of every token: the squares of their lengths are 2 million for 32,000 tokens.
_MAX_CUT_LETTERS = 2**28
_SPACE = "▁"  # SentencePiece's
_END_IDS = ("eos", "eot", "eom")
# As llama.cpp's converter recognises control tokens that a checkpoint did not declare as such.
_LOOKS_CONTROL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>", re.DOTALL)
# Of their control tokens all but these take the white space behind them along, which a GGUF file does not say.
_STRIPPING, _NOT_STRIPPING = {"phi3", "phimoe"}, {"<unk>", "<s>", "<|endoftext|>"}


class TokenizerFiles(NamedTuple):
    """What a folder needs to be read as a tokenizer."""

    tokenizer_json: str
    config_json: str
    stop_ids: tuple[int, ...]

    def by_name(self) -> dict[str, str]:
        """File name -> text."""
        ends = json.dumps({"eos_token_id": list(self.stop_ids)})
        return {
            "tokenizer.json": self.tokenizer_json,
            "tokenizer_config.json": self.config_json,
            "generation_config.json": ends,
        }


def tokenizer_files(keys: Mapping[str, Any], where: object) -> TokenizerFiles:
    """The tokenizer that the keys of a GGUF file describe; `where` names the file in errors.  Raises ModelError."""
    table = Table(keys, where, _REMEDY)
    vocabulary = _Vocabulary.read(table)
    kind = table.one_of(_KEY + "model", ("gpt2", "llama"))
    parts = _byte_level(table, vocabulary) if kind == "gpt2" else _sentence_piece(table, vocabulary)
    text = json.dumps(_HEAD | {"added_tokens": _added_tokens(table, vocabulary)} | parts, ensure_ascii=False)
    _refuse_reachable(table, text, vocabulary, where)
    return TokenizerFiles(text, json.dumps(_config(table, vocabulary), ensure_ascii=False), vocabulary.end_ids)


_HEAD: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}


class _Type(IntEnum):
    """Of a token, in `tokenizer.ggml.token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class _Vocabulary(NamedTuple):
    """All tokens by id, each text once."""

    tokens: list[str]
    types: list[_Type]
    ids: dict[str, int]
    special_ids: Mapping[str, int]  # bos, eos, eot, eom and unknown, where the file has them

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer by the file's own keys."""
        return tuple(sorted({self.special_ids[name] for name in _END_IDS if name in self.special_ids}))

    @classmethod
    def read(cls, table: Table) -> _Vocabulary:
        """Raises ModelError."""
        tokens = _texts(table, _KEY + "tokens", _MAX_TOKENS)
        tokens = [token or f"[EMPTY_{place}]" for place, token in enumerate(tokens)]
        ids = {token: place for place, token in enumerate(tokens)}
        if not tokens or len(ids) < len(tokens):
            twice = next((token for place, token in enumerate(tokens) if ids[token] != place), None)
            fact = "is empty" if twice is None else f"has {shown(twice)} twice"
            raise table.error(f"{_KEY}tokens {fact}")
        special_ids = _special_ids(table, len(tokens))
        return cls(tokens, _types(table, tokens, set(special_ids.values())), ids, special_ids)


def _special_ids(table: Table, num_tokens: int) -> dict[str, int]:
    names = {name: f"{_KEY}{name}_token_id" for name in ("bos", *_END_IDS, "unknown")}
    return {name: table.whole(key, num_tokens - 1, least=0) for name, key in names.items() if table.has(key)}


def _types(table: Table, tokens: Sequence[str], special_ids: set[int]) -> list[_Type]:
    """Raises ModelError.  What ends or begins texts is a control token, also where the file says otherwise."""
    key = _KEY + "token_type"
    numbers = list(table.wholes(key, _MAX_TOKENS, max(_Type))) if table.has(key) else [_Type.NORMAL] * len(tokens)
    if len(numbers) != len(tokens):
        raise table.error(f"{key} has {len(numbers):,} entries for {len(tokens):,} tokens")
    types = [_Type(number) for number in numbers]
    for place, token in enumerate(tokens):
        looks_control = types[place] is _Type.USER_DEFINED and _LOOKS_CONTROL.fullmatch(token)
        if token in ENDS or looks_control or (place in special_ids and types[place] is not _Type.UNKNOWN):
            types[place] = _Type.CONTROL
    return types


def _texts(table: Table, key: str, most: int) -> list[str]:
    rows = table.rows(key, most)
    if not all(type(row) is str for row in rows):
        raise table.error(f"{key} holds something else than strings")
    return rows


def _added_tokens(table: Table, vocabulary: _Vocabulary) -> list[dict[str, Any]]:
    """Control tokens, and the user's, which are found whole in any text."""
    architecture = table.text("general.architecture") if table.has("general.architecture") else ""
    plain = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {"id": place, "content": token, **plain, "rstrip": strips, "special": special}
        for place, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if (special := kind in _SPECIAL) or (kind is _Type.USER_DEFINED and _SPACE not in token)
        for strips in [special and architecture in _STRIPPING and token not in _NOT_STRIPPING]
    ]


_SPECIAL = {_Type.CONTROL, _Type.UNKNOWN}


def _byte_level(table: Table, vocabulary: _Vocabulary) -> dict[str, Any]:
    """The parts of tokenizer.json.  Raises ModelError."""
    key = _KEY + "pre"
    rule = SPLIT_RULES.get(name := table.text(key))
    if rule is None:
        raise table.error(
            f"{key} is {shown(name)}, a rule to split words that this version does not know; known are "
            f"{', '.join(sorted(SPLIT_RULES))}"
        )
    merges = list(_merges(table, vocabulary))
    model = _model(vocabulary, merges) | {"ignore_merges": rule.ignores_merges}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    split = {"normalizer": rule.normaliser(), "pre_tokenizer": rule.pre_tokeniser()}
    return split | {"model": model, "decoder": decoder}


def _merges(table: Table, vocabulary: _Vocabulary) -> Iterator[tuple[str, str]]:
    """Pairs of tokens that become one; a line is cut at its first space that is not its first letter."""
    key, ids = _KEY + "merges", vocabulary.ids
    for place, line in enumerate(_texts(table, key, _MAX_MERGES)):
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise table.error(f"{key}: line {place} is {shown(line)}, not two tokens that make a third")
        if vocabulary.types[ids[left + right]] in _SPECIAL:
            raise table.error(f"{key}: line {place} makes the control token {shown(left + right)}")
        yield left, right


def _sentence_piece(table: Table, vocabulary: _Vocabulary) -> dict[str, Any]:
    """The parts of tokenizer.json.  Raises ModelError."""
    has_prefix = not table.has(_KEY + "add_space_prefix") or table.boolean(_KEY + "add_space_prefix")
    unknown = vocabulary.special_ids.get("unknown")
    model = _model(vocabulary, _rebuilt_merges(table, vocabulary)) | {
        "unk_token": None if unknown is None else vocabulary.tokens[unknown],
        "fuse_unk": True,
        "byte_fallback": True,
    }
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if has_prefix else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "model": model,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
    }


def _rebuilt_merges(table: Table, vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """Every way to make a token of two, the best score first: the order of the merges in published tokenizers."""
    scores, tokens = _scores(table, vocabulary), vocabulary.tokens
    pieces = [place for place, kind in enumerate(vocabulary.types) if _is_piece(kind, tokens[place])]
    if sum(len(tokens[place]) ** 2 for place in pieces) > _MAX_CUT_LETTERS:
        raise table.error(f"{_KEY}tokens are too long: the longest has {max(map(len, tokens)):,} letters")
    ids = {tokens[place]: place for place in pieces}
    merges: list[tuple[str, str]] = []
    for place in sorted(pieces, key=lambda place: -scores[place]):
        token = tokens[place]
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in cuts if pair[0] in ids and pair[1] in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def _is_piece(kind: _Type, token: str) -> bool:
    return kind in {_Type.NORMAL, _Type.UNDEFINED} or (kind is _Type.USER_DEFINED and _SPACE in token)


def _scores(table: Table, vocabulary: _Vocabulary) -> list[float]:
    key = _KEY + "scores"
    scores = table.rows(key, _MAX_TOKENS)
    if len(scores) != len(vocabulary.tokens):
        raise table.error(f"{key} has {len(scores):,} entries for {len(vocabulary.tokens):,} tokens")
    if not all(type(score) in {int, float} and math.isfinite(score) for score in scores):
        raise table.error(f"{key} holds something else than finite numbers")
    return scores


def _model(vocabulary: _Vocabulary, merges: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary.ids,
        "merges": merges,
    }


def _config(table: Table, vocabulary: _Vocabulary) -> dict[str, Any]:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in ("bos", "eos"):
        if name in vocabulary.special_ids:
            config[f"{name}_token"] = vocabulary.tokens[vocabulary.special_ids[name]]
    if table.has(_KEY + "add_bos_token"):
        config["add_bos_token"] = table.boolean(_KEY + "add_bos_token")
    if table.has("tokenizer.chat_template"):
        config["chat_template"] = table.text("tokenizer.chat_template")
    return config


def _refuse_reachable(table: Table, tokenizer_json: str, vocabulary: _Vocabulary, where: object) -> None:
    """Raise ModelError when the text of a control token, as content, becomes that token: content must never command."""
    with reading_tokenizer(len(tokenizer_json), where, _REMEDY):
        content = HfTokenizer.from_str(tokenizer_json)
    content.encode_special_tokens = True
    for place, kind in enumerate(vocabulary.types):
        if kind is _Type.CONTROL and place in content.encode(vocabulary.tokens[place], add_special_tokens=False).ids:
            raise table.error(f"the control token {shown(vocabulary.tokens[place])} can be written as ordinary text")
