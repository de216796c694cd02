"""Where pages are: no two in one place on any file system, none too long, none outside, whatever sources are called."""

from __future__ import annotations

import hashlib
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.pages.page_paths import (
    LLMS_NAME,
    MAX_NAME_NBYTES,
    MAX_PATH_NBYTES,
    NEW_SUFFIX,
    folders_of,
    page_paths,
)

NAMES = st.sampled_from(
    [
        "a",
        "A",
        "é",
        "e\u0301",
        "É",
        "index",
        "index.md",
        "Index.MD",
        "onboarding",
        "Onboarding.md",
        "a.md",
        "a.py",
        "a.py.md",
        "llms.txt",
        "LLMS.txt",
        ".mkdocs",
        ".git",
        "..",
        ".",
        "",
        "x" * 239,
        "x" * 241,
        "X" * 241,
        "é" * 130,
        "a.rotary-new",
        "ß",
        "ss",
        "\udc80",
        "a\nb",
        "long-paths",
        "x.rotary-tmp",
        "index-8a5edab2",
    ]
)
PATHS = st.lists(
    st.lists(NAMES | st.text(min_size=1, max_size=3).filter(lambda name: "/" not in name), min_size=1, max_size=5).map(
        "/".join
    ),
    max_size=12,
    unique=True,
)


def folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def digest(thing: str) -> str:
    return hashlib.sha256(thing.encode()).hexdigest()[:8]


def assert_sound(paths: list[str]) -> None:
    found = page_paths(paths)
    assert set(found) == {"/", "/onboarding.md", *(f"{folder}/" for folder in folders_of(paths)), *paths}
    pages = [*found.values(), LLMS_NAME, ".mkdocs/mkdocs.yml"]
    assert len({folded(page) for page in pages}) == len(pages)
    files = {folded(page) for page in pages}
    for page in found.values():
        *folders, name = page.split("/")
        assert name.endswith(".md")
        assert not {folded("/".join(folders[: n + 1])) for n in range(len(folders))} & files, (
            "no folder where a page is"
        )
        assert len(page.encode()) <= MAX_PATH_NBYTES
        assert all(len(part.encode()) <= MAX_NAME_NBYTES and part.isprintable() for part in page.split("/"))
        assert not {part.casefold() for part in page.split("/")} & {"", ".", "..", ".git"}
        assert not any(part.casefold().endswith(NEW_SUFFIX) for part in page.split("/"))
    assert page_paths(reversed(paths)) == found


@given(PATHS)
def test_page_paths_are_sound(paths):
    assert_sound(paths)


def test_what_collides_or_does_not_fit_gets_a_digest_and_everything_else_its_own_name():
    paths = [
        "index.md/a.py",
        "a.py",
        "a.py.md/b.py",
        "llms.txt/c.py",
        "A/x.py",
        "a/x.py",
        "n" * 250 + ".py",
        "x.rotary-tmp/d.py",
    ]
    found = page_paths(paths)
    assert {thing: page for thing, page in found.items() if not page.startswith("nnn")} == {
        "/": "index.md",
        "/onboarding.md": "onboarding.md",
        "A/": "A/index.md",
        "A/x.py": "A/x.py.md",
        "a/": f"a-{digest('a/')}/index.md",
        "a/x.py": f"a-{digest('a/')}/x.py.md",
        "a.py": f"a.py-{digest('a.py')}.md",
        "a.py.md/": "a.py.md/index.md",
        "a.py.md/b.py": "a.py.md/b.py.md",
        "index.md/": f"index.md-{digest('index.md/')}/index.md",
        "index.md/a.py": f"index.md-{digest('index.md/')}/a.py.md",
        "llms.txt/": f"llms.txt-{digest('llms.txt/')}/index.md",
        "llms.txt/c.py": f"llms.txt-{digest('llms.txt/')}/c.py.md",
        "x.rotary-tmp/": "x.rotary-tmp/index.md",
        "x.rotary-tmp/d.py": "x.rotary-tmp/d.py.md",
    }
    assert_sound(paths)


def test_a_thousand_nested_folders_have_pages_of_bounded_paths():
    assert_sound(["/".join(["deep"] * 1000) + "/a.py", "/".join(["n" * 200] * 30) + "/b.py"])


def test_somebody_who_guesses_a_digest_gets_another_path():
    guessed = page_paths(["index.md/a.py"])["index.md/"].removesuffix("/index.md")
    assert_sound(["index.md/a.py", f"{guessed}/b.py", f"{guessed.upper()}/b.py", "INDEX.MD/c.py"])
