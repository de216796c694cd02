"""Open a built site in headless Chromium: pictures, light and dark, wide and narrow; a search; no request elsewhere.

pip install playwright; apt-get install chromium
python benchmarks/site_pictures.py SITE OUT [--search WORD] [--page src/index.html]...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rotary_batch.commands.serving import HOST, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES = {"wide": (1440, 900), "phone": (390, 844)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--search", default="main")
    parser.add_argument("--page", action="append", default=[])
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with serving(options.site, 0) as url:
        print(json.dumps(visit(url, options), indent=1))


def visit(url: str, options: argparse.Namespace) -> dict[str, object]:
    """Raises AssertionError when a page asks another host, or logs an error."""
    from playwright.sync_api import sync_playwright

    hosts: set[str] = set()
    messages: list[str] = []
    hits: dict[str, int] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                context.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or request.url[:40]))
                page = context.new_page()
                page.on("console", lambda line: line.type == "error" and messages.append(line.text))
                page.on("response", lambda answer: answer.status >= 400 and messages.append(answer.url))
                page.on("pageerror", lambda error: messages.append(str(error)))
                for number, path in enumerate(["index.html", *options.page]):
                    page.goto(url + path, wait_until="networkidle")
                    page.screenshot(path=options.out / f"{number}-{size}-{scheme}.png")
                if size == "wide":
                    hits[scheme] = search(page, url, options, scheme)
                context.close()
        browser.close()
    assert hosts == {HOST}, hosts
    assert not messages, messages
    assert all(hits.values()), hits
    return {"hosts": sorted(hosts), "hits": hits}


def search(page: Page, url: str, options: argparse.Namespace, scheme: str) -> int:
    """Type a word into the search; returns the number of results."""
    page.goto(url + "index.html", wait_until="networkidle")
    page.keyboard.press("/")
    page.wait_for_timeout(400)
    page.keyboard.type(options.search, delay=30)
    page.wait_for_timeout(1500)
    page.screenshot(path=options.out / f"search-{scheme}.png")
    return page.locator(f"a[href*='.html']:has-text('{options.search}')").count()


if __name__ == "__main__":
    main()
