"""Finish the HTML pages of a built site: links to sources lead somewhere, and no page can make a request to a host.

A docs folder has links to sources that are outside of it.  In the site they lead to the page of the source, or to the
code forge, or they are no links.
"""

from __future__ import annotations

import base64
import hashlib
import html
import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from rotary_batch.pages.page_paths import parent_of

SourceLink = Callable[[str, str], str | None]  # (path in the repository, fragment) -> target from the top of the site
_HREF = re.compile(r'\bhref="([^"]*)"')
_SCRIPT = re.compile(r"<script>([^<]*(?:<(?!/script)[^<]*)*)</script>")
_ADDRESS = re.compile(r'new URL\("[./]*"')  # of the top of the site, which differs from page to page
_HEAD = '<meta charset="utf-8">'


def inline_scripts(page: str) -> set[str]:
    """The scripts of the theme, as they are on a page that has nothing but the theme."""
    return {_ADDRESS.sub("", script) for script in _SCRIPT.findall(page)}


def with_policy(page: str, theme_scripts: set[str]) -> str:
    """The page with a policy that allows requests to its own host, and the scripts of the theme, nothing else."""
    own = [script for script in _SCRIPT.findall(page) if _ADDRESS.sub("", script) in theme_scripts]
    hashes = "".join(f" 'sha256-{_digest(script)}'" for script in dict.fromkeys(own))
    policy = (
        f"default-src 'self'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
    )
    return page.replace(_HEAD, f'{_HEAD}<meta http-equiv="Content-Security-Policy" content="{policy}">', 1)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def with_plain_title(page: str) -> str:
    """The first page without the name of the project twice in its title."""
    return re.sub(r"<title>([^<]*) - \1</title>", r"<title>\1</title>", page, count=1)


def with_source_links(page: str, path: str, docs_root: str, root: str, link: SourceLink) -> str:
    """The page at a path of the site with its links out of the docs folder replaced.

    `docs_root` and `root` are the absolute paths of the docs folder and the repository.
    """
    first, *rest = page.split("<a ")
    parts = [first]
    up = "../" * path.count("/")
    for piece in rest:
        tag, closed, after = piece.partition(">")
        href = _HREF.search(tag)
        outside = _outside(href[1], path, docs_root, root) if href and closed else None
        if href is None or outside is None:
            parts += ["<a ", piece]
        elif target := link(*outside):
            shown = target if "://" in target else up + target
            parts += ["<a ", tag[: href.start(1)], html.escape(shown), tag[href.end(1) :], closed, after]
        else:
            parts.append(after.replace("</a>", "", 1))
    return "".join(parts)


def _outside(target: str, path: str, docs_root: str, root: str) -> tuple[str, str] | None:
    """(path in the repository, fragment) of a link that leads out of the docs folder; None for any other."""
    try:
        parts = urlsplit(html.unescape(target))
    except ValueError:
        return None
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return None
    place = posixpath.normpath(posixpath.join(parent_of(path), unquote(parts.path)))
    if not place.startswith("../"):
        return None
    absolute = posixpath.normpath(posixpath.join(docs_root, place))
    inside = f"{root.rstrip('/')}/"
    return (absolute.removeprefix(inside) if absolute.startswith(inside) else "", parts.fragment)


def lines_of(fragment: str) -> tuple[int, int] | None:
    """The first and last line that a fragment like `L4-L9` names."""
    match = re.fullmatch(r"L(\d{1,9})(?:-L(\d{1,9}))?", fragment)
    return (int(match[1]), int(match[2] or match[1])) if match else None
