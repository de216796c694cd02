"""How byte-level tokenizers cut a text into words before they merge, by the names that GGUF files give the rules.

The expressions are those of each family's own tokenizer.json, the names (`tokenizer.ggml.pre`) those of llama.cpp's
src/llama-vocab.cpp.  A rule under another name gives other token ids without any error, so there is no fallback.
"""

from __future__ import annotations

from typing import Any, NamedTuple

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same where each digit was made a word before: in one expression for both steps.
DIGITS_ALONE = GPT_2.replace(r" ?\p{N}+", r"\p{N}").replace(r"\s+(?!\S)", r"\s+(?![^\s\p{N}])")
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
QWEN_2 = LLAMA_3.replace("{1,3}", "")
_QWEN_35 = rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _cased(letters: str, after: str, digits: str, ends: str) -> str:
    """Words that begin with capitals and go on in small letters; `letters` are of no case, or exclude a script."""
    begin = r"[^\r\n\p{L}\p{N}]?"
    upper, lower = rf"[\p{{Lu}}\p{{Lt}}{letters}]", rf"[\p{{Ll}}{letters}]"
    words = rf"{begin}{upper}*{lower}+{after}|{begin}{upper}+{lower}*{after}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[{ends}]*|{_SPACES}"


_GPT_4O = _cased(r"\p{Lm}\p{Lo}\p{M}", f"{_SHORT}?", r"\p{N}{1,3}", r"\r\n/")
_TEKKEN = _cased(r"\p{Lm}\p{Lo}\p{M}", "", r"\p{N}", r"\r\n/")
_KIMI = r"\p{Han}+|" + _cased(r"\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]", f"{_SHORT}?", r"\p{N}{1,3}", r"\r\n")
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
# Letters with a case as Unicode had them then.  As escapes: among them are letters that editors replace by others.
_DEEPSEEK_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_CJK = r"[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_DEEPSEEK_CASED}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    _DEEPSEEK_CJK,
    r"\p{N}",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")
_DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    rf"|{_SPACES}",
)


class SplitRule(NamedTuple):
    """A text is cut by each expression in turn; what an expression does not match stays a word of its own."""

    patterns: tuple[str, ...]
    normalises: bool = False  # to Unicode's NFC, before it is cut
    ignores_merges: bool = False  # a word that is a token is not merged from its letters

    def normaliser(self) -> dict[str, Any] | None:
        """Its part of tokenizer.json."""
        return {"type": "NFC"} if self.normalises else None

    def pre_tokeniser(self) -> dict[str, Any]:
        """Its part of tokenizer.json.  GPT-2's own expression is built into `tokenizers`, which runs it faster."""
        *others, last = self.patterns
        splits = others if last == GPT_2 else self.patterns
        steps = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in splits
        ]
        words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": last == GPT_2}
        return {"type": "Sequence", "pretokenizers": [*steps, words]} if steps else words


_DIGITS_FIRST = SplitRule((r"\p{N}", GPT_2))
SPLIT_RULES = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), SplitRule((LLAMA_3,), ignores_merges=True)),
    **dict.fromkeys(("glm4", "chatglm-bpe", "dbrx", "smaug-bpe"), SplitRule((LLAMA_3,))),
    "qwen2": SplitRule((QWEN_2,), normalises=True),
    "hunyuan": SplitRule((QWEN_2,)),
    "qwen35": SplitRule((_QWEN_35,), normalises=True),
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2"), SplitRule((_GPT_4O,))),
    "tekken": SplitRule((_TEKKEN,), ignores_merges=True),
    "kimi-k2": SplitRule((_KIMI,)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2"), SplitRule((_BAILING,))),
    "deepseek-llm": SplitRule(_DEEPSEEK_LLM),
    "deepseek-coder": SplitRule(_DEEPSEEK_CODER),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), SplitRule(_DEEPSEEK_3)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "mellum2"), _DIGITS_FIRST),
    "command-r": _DIGITS_FIRST._replace(normalises=True),
    **dict.fromkeys(("gpt-2", "olmo", "mellum"), SplitRule((GPT_2,))),
    "laguna": SplitRule((r"[^\n]+|[\n]+", QWEN_2)),
    "default": SplitRule((r"[\p{P}$+<=>^~|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]")),
}
