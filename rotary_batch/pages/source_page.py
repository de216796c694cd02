"""Sources as pages of a built site, with an anchor for each line."""

from __future__ import annotations

import html

from rotary_batch.pages.page_paths import SOURCES_NAME
from rotary_batch.pages.sanitise import path_link, plain, title

MAX_LINE_CHARACTERS = 2000  # of a line; the rest of a longer one is cut away


def source_page_path(page: str) -> str:
    """Where the source of a page of the docs folder is in the site."""
    return f"{SOURCES_NAME}/{page.removesuffix('.md')}.html"


def source_page(path: str, data: bytes, page: str, project: str) -> str:
    """The HTML of one source; `page` is its page in the docs folder."""
    up = "../" * page.count("/")
    name = html.escape(title(path))
    lines = plain(data.decode("utf-8-sig", "replace")).removesuffix("\n").split("\n")
    body = "\n".join(f'<span id="L{number}">{_line(line)}</span>' for number, line in enumerate(lines, 1))
    docs = path_link(page.removesuffix(".md") + ".html")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name} - {html.escape(title(project))}</title>"
        f'<link rel="icon" href="{up}../assets/images/favicon.png">'
        f'<link rel="stylesheet" href="{up}site.css"><script src="{up}site.js"></script></head>'
        f'<body class="rb-source-page"><header><a href="{up}../index.html">{html.escape(title(project))}</a> / '
        f'<a href="{up}../{docs}">{name}</a></header>\n'
        f'<pre class="rb-source">{body}\n</pre></body></html>\n'
    )


def _line(line: str) -> str:
    return html.escape(line if len(line) <= MAX_LINE_CHARACTERS else line[:MAX_LINE_CHARACTERS] + " …", quote=False)


STYLE = """\
.rb-diagram { overflow-x: auto; margin: 1em 0; }
.rb-map { display: block; max-width: none; margin: auto; font: 12px ui-monospace, Menlo, Consolas, monospace; }
.rb-map rect { fill: var(--md-code-bg-color, #f4f4f6); stroke: var(--md-default-fg-color--light, #777); }
.rb-map a { text-decoration: none; }
.rb-map text { fill: var(--md-default-fg-color, #222); }
.rb-map a:hover rect { stroke: var(--md-accent-fg-color, #06c); stroke-width: 2; }
.rb-map .rb-edge { fill: none; stroke: var(--md-default-fg-color--lighter, #aaa); stroke-width: 1.4; }
.rb-map marker path { fill: var(--md-default-fg-color--light, #888); }
@media (min-width: 60em) { .md-typeset table:not([class]) td:first-child code { white-space: nowrap; } }
@media (max-width: 45em) { .md-typeset table:not([class]) :is(th, td) { padding: .6em .5em; min-width: 6em; } }
.rb-source-page { --fg: #24292f; --bg: #fff; --dim: #8c959f; --mark: #fff3bf; --bar: #f4f4f6; }
.rb-source-page { margin: 0; color: var(--fg); background: var(--bg); color-scheme: light; }
.rb-source-page[data-scheme=slate] { --fg: #d6d9e0; --bg: #14151a; --dim: #6b7280; --mark: #453a10; --bar: #1e2027; }
.rb-source-page[data-scheme=slate] { color-scheme: dark; }
.rb-source-page header { font: 15px system-ui, sans-serif; padding: .8em 1em; background: var(--bar); }
.rb-source-page header { position: sticky; left: 0; }
.rb-source-page a { color: inherit; }
.rb-source { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; margin: 0; padding: .5em 0; overflow-x: auto; }
.rb-source { counter-reset: line; tab-size: 4; }
.rb-source span { display: inline-block; min-width: 100%; }
.rb-source span::before { counter-increment: line; content: counter(line); display: inline-block; width: 4em; }
.rb-source span::before { padding-right: 1.2em; text-align: right; color: var(--dim); user-select: none; }
.rb-source span:target { background: var(--mark); scroll-margin-top: 30vh; }
"""

SCRIPT = """\
// A source page has the colours that were chosen on the other pages, else those of the system.
addEventListener("DOMContentLoaded", () => {
  let scheme = matchMedia("(prefers-color-scheme: dark)").matches ? "slate" : "default";
  for (const key of Object.keys(localStorage))
    if (key.endsWith("__palette")) {
      try { scheme = JSON.parse(localStorage.getItem(key)).color.scheme || scheme; } catch { /* not of ours */ }
    }
  document.body.dataset.scheme = scheme;
});
"""
