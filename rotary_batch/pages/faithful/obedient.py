"""What is not a description: words to the reader or to a program, calls of tools, control markers, markup with effects.

Pages escape all of it, so it has no effect there.  It is not shown at all because other programs read the pages, and a
model that was talked into it by a repository describes nothing.
"""

from __future__ import annotations

import re

_CODE_SPAN = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_PATTERNS = {
    "instruction": re.compile(
        r"\b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|the|your|these|those|previous|prior|above|earlier|every)\s+)+"
        r"(?:\w+\s+){0,2}(?:instructions?|prompts?|rules?|messages?|directions?|context|guidelines)\b"
        r"|\bsystem\s+prompt\b|\b(?:new|following|these)\s+instructions\s*:"
        r"|\b(?:do\s+not|don't|never)\s+(?:tell|inform|mention|reveal|alert)\s+(?:\w+\s+)?(?:the\s+)?(?:user|human|anyone|developer)s?\b"
        r"|\byou\s+(?:must|should|are\s+now)\s+\w+|(?:^|[.!?:]\s+)you\s+(?:are|can|may|will)\s+\w+"
        r"|\b(?:please|kindly)\s+(?:run|execute|visit|open|click|provide|install|download|send|paste|copy|let|note|enter|tell)\b"
        r"|\b(?:act|respond|reply|behave)\s+as\s+(?:an?|the|if)\b"
        r"|\bcurl\s+\S+\s*\|\s*(?:ba|z)?sh\b|\brm\s+-rf?\b|\bsudo\s+\w+",
        re.IGNORECASE,
    ),
    "talk": re.compile(
        r"\bas\s+an?\s+(?:ai|assistant|(?:large\s+)?language\s+model)\b|\bi(?:'m|\s+am|'ll|\s+will|\s+cannot|\s+can't|\s+can|'d|\s+would|"
        r"\s+don't|\s+do\s+not|\s+have|\s+hope|\s+apologi[sz]e)\b|\blet\s+me\s+know\b|\bhow\s+can\s+i\s+help\b|\bfeel\s+free\s+to\b"
        r"|^(?:user|assistant|system|human)\s*:",
        re.IGNORECASE,
    ),
    "tool call": re.compile(
        r"</?(?:tool|function|invoke|parameter|antml|tool_call|tool_response|tool_calls|function_call|function_calls)\b[^>]*>?"
        r"|\[/?(?:TOOL_CALLS?|TOOL_RESULTS|AVAILABLE_TOOLS)\]|\{\s*\"(?:name|tool|function|arguments|tool_calls?)\"\s*:"
        r"|\b(?:tool_calls?|function_call)\s*[:=(]|\bto=functions\.",
        re.IGNORECASE,
    ),
    "control marker": re.compile(
        r"<\|[^|>\n]{0,40}\|?>?|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<[\uff5c|][^>\n]{1,40}[\uff5c|]>|</?think(?:ing)?>"
        r"|</?text-[0-9a-f]{6}>|^\s*###\s*(?:instruction|response|input|system)\b",
        re.IGNORECASE,
    ),
    "markup": re.compile(
        r"```|~~~|!?\[[^\]\n]*\]\([^)\n]*\)|^\s*\[[^\]\n]+\]:\s|(?<![\w<])<(?:[a-z][a-z0-9-]*\s[^>\n]*=[^>\n]*|/?(?:script|style|iframe|object|embed|img|svg|a|form|base|meta|link)/?)>|<!--|<!\[?[a-z]|<\?[a-z]"
        r"|\bjavascript:|\bdata:\w+/|^\s*(?:#{1,6}|>)\s|&#?\w{2,8};|\{\{|\{%"
    ),
}
_ANYWHERE = frozenset({"control marker", "tool call"})  # code spans do not excuse them


def not_a_description(text: str) -> str | None:
    """What a text is instead of a description, in a word; None when nothing of the sort is in it."""
    outside = _CODE_SPAN.sub("`x`", text)
    for what, pattern in _PATTERNS.items():
        if pattern.search(text if what in _ANYWHERE else outside):
            return what
    return None
