"""The configuration that Zensical builds a site with: its own theme, search, system fonts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from rotary_batch.pages.onboarding import TITLE as TOPICS_TITLE
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import SOURCES_NAME, TOPICS_NAME
from rotary_batch.pages.sanitise import quoted, title
from rotary_batch.pages.symbol_index import INDEX_NAME

MAX_FILES_IN_NAVIGATION = 150  # of one folder, whose page lists all of them; every page has the list of its folder
CONFIG_NAME, DOCS_NAME, SITE_NAME = "mkdocs.yml", "docs", "site"  # in the folder that is built
STYLE_NAME, SCRIPT_NAME = f"{SOURCES_NAME}/site.css", f"{SOURCES_NAME}/site.js"

_FIXED = f"""\
docs_dir: {DOCS_NAME}
site_dir: {SITE_NAME}
use_directory_urls: false
theme:
  font: false
  features:
    - content.code.copy
    - navigation.indexes
    - navigation.prune
    - navigation.top
    - search.highlight
    - toc.follow
  palette:
    - media: "(prefers-color-scheme)"
      toggle:
        icon: lucide/sun-moon
        name: Switch to light mode
    - media: "(prefers-color-scheme: light)"
      scheme: default
      toggle:
        icon: lucide/sun
        name: Switch to dark mode
    - media: "(prefers-color-scheme: dark)"
      scheme: slate
      toggle:
        icon: lucide/moon
        name: Switch to the mode of the system
extra:
  generator: false
extra_css:
  - {STYLE_NAME}
markdown_extensions:
  - tables
  - toc:
      permalink: true
  - pymdownx.highlight:
      use_pygments: true
  - pymdownx.superfences:
      custom_fences: []
"""


def web_config(view: IndexView) -> str:
    """The text of the configuration file."""
    return "\n".join([f"site_name: {quoted(title(view.name))}", _FIXED + "nav:", *_navigation(view), ""])


def _navigation(view: IndexView) -> Iterator[str]:
    """Folders before files, each folder's own page first.  A list, not recursion: folders may be nested deep."""
    yield f"  - {quoted(title(view.name))}: index.md"
    yield f"  - {quoted(TOPICS_TITLE)}: {TOPICS_NAME}"
    yield f'  - "Symbol index": {INDEX_NAME}'
    waiting = [*_things_in(view, "", "  ")]
    while waiting:
        thing, indent = waiting.pop()
        name = quoted(title(thing.rstrip("/").rpartition("/")[2]))
        if not thing.endswith("/"):
            yield f"{indent}- {name}: {quoted(view.paths[thing])}"
            continue
        yield f"{indent}- {name}:"
        yield f"{indent}    - {quoted(view.paths[thing])}"
        waiting += _things_in(view, thing[:-1], f"{indent}    ")


def _things_in(view: IndexView, folder: str, indent: str) -> list[tuple[str, str]]:
    """In reverse."""
    inside = view.inside[folder]
    files = inside.files if len(inside.files) <= MAX_FILES_IN_NAVIGATION else []
    return [(thing, indent) for thing in (*reversed(files), *(f"{inner}/" for inner in reversed(inside.folders)))]
