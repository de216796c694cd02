"""The built site and the Markdown tree: no link is dead, no anchor doubled, nothing comes from another host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from rotary_batch.commands.serving import serving
from tests.link_check import html_faults, markdown_faults

FILES = {
    "README.md": "# Kettle\n\nKettle boils [water](LICENSE) quickly.\n",
    "src/kettle/__main__.py": '"""Run it."""\n\nfrom kettle.heat import boil\n\n\ndef main():\n    boil()\n',
    "src/kettle/heat.py": 'def boil():\n    """Make it hot.\n\n    See `<b>`.\n    """\n    _warm()\n\n\ndef _warm():\n    pass\n',
    "src/kettle/cool.go": "package kettle\n\ntype Get struct{}\n\nfunc get() {}\n\nfunc call() { get() }\n",
    "src/ops.cpp": "struct V { V operator--(); V operator+(V o); };\nV V::operator--() { return *this; }\n",
    "source-code/a b#c.py": "def odd():\n    pass\n",
    "assets/404.py": "def größe():\n    pass\n",
    "404.py": "class A:\n    def a(self): pass\n\n\ndef a(): pass\n",
    "symbol-index.md.py": "x = 1\n",
    "tests/test_heat.py": "def test_boil():\n    pass\n",
}


def rotary(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.fixture
def root(make_repository) -> Path:
    root = make_repository(FILES)
    rotary("index", root)
    return root


def test_no_link_is_dead_and_no_anchor_doubled_in_the_tree_and_in_the_site(root):
    assert markdown_faults(root / "rotary-docs", root) == []
    built = json.loads(rotary("site", root, "--json").stdout)
    site = Path(built["folder"])
    assert (site, built["forge"], built["notes"]) == (root / "rotary-site", None, [])
    assert built["source_pages"] == len(FILES)
    assert html_faults(site) == []
    page = (site / "src/kettle/heat.py.html").read_text()
    assert re.search(r'href="\.\./\.\./source-code/src/kettle/heat\.py\.html#L1"', page)
    assert '<span id="L2">    """Make it hot.</span>' in (site / "source-code/src/kettle/heat.py.html").read_text()
    home = (site / "index.html").read_text()
    assert "<title>project</title>" in home
    assert '<svg class="rb-map"' in home
    assert 'id="__search"' in home
    assert "boil" in (site / "search.json").read_text()
    assert (site / "llms.txt").is_file()


def test_no_page_of_the_site_may_ask_another_host(root):
    rotary("site", root)
    for path in (root / "rotary-site").rglob("*.html"):
        page = path.read_text()
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
        assert policy.startswith("default-src 'self'; script-src 'self'")
        assert "http" not in policy
        assert not re.search(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//', page)
        assert not re.search(r'<link[^>]* href="(?:https?:)?//', page)
        assert 'class="mermaid"' not in page


def test_a_page_of_a_stranger_runs_no_script(root, git):
    page = root / "rotary-docs" / "src" / "kettle" / "heat.py.md"
    page.write_text("---\nowner: human\n---\n# Mine\n\n<script>alert(1)</script>\n\n```mermaid\ngraph TD\n```\n")
    (root / "rotary-docs" / "evil.html").write_text("<script>alert(1)</script>")
    rotary("site", root)
    built = (root / "rotary-site" / "src" / "kettle" / "heat.py.html").read_text()
    (policy,) = re.findall(r"script-src ([^;]*);", built)
    clean = (root / "rotary-site" / "src" / "kettle" / "index.html").read_text()
    assert policy == re.findall(r"script-src ([^;]*);", clean)[0]
    assert 'class="mermaid"' not in built
    assert not (root / "rotary-site" / "evil.html").exists()


def test_links_lead_to_the_forge_that_has_the_commit_and_show_no_password(root, git):
    git(root, "remote", "add", "origin", "https://me:s3cret@github.com/tea/kettle.git")
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    built = json.loads(rotary("site", root, "--json").stdout)
    site, commit = Path(built["folder"]), git(root, "rev-parse", "HEAD").strip()
    assert (built["source_pages"], html_faults(site)) == (0, [])
    page = (site / "src/kettle/heat.py.html").read_text()
    assert f'href="https://github.com/tea/kettle/blob/{commit}/src/kettle/heat.py#L1-L6"' in page
    assert not any(b"s3cret" in path.read_bytes() for path in site.rglob("*") if path.is_file())
    assert json.loads(rotary("site", root, "--json", "--source-pages").stdout)["source_pages"] == len(FILES)


def test_a_site_replaces_a_site_and_nothing_else(root, tmp_path):
    site = root / "rotary-site"
    rotary("site", root)
    (site / "old.html").touch()
    rotary("site", root)
    assert not (site / "old.html").exists()
    for number, make in enumerate(
        (lambda path: (path.mkdir(), (path / "x").touch()), lambda path: path.symlink_to(site))
    ):
        target = tmp_path / f"mine{number}"
        make(target)
        done = rotary("site", root, "--to", target, check=False)
        assert (done.returncode, "not a site that rotary-batch built" in done.stderr) == (3, True)
    done = rotary("site", root, "--to", root / "rotary-docs" / "site", check=False)
    assert (done.returncode, "the docs folder" in done.stderr) == (3, True)


def test_sources_that_changed_since_the_index_have_no_page_and_a_note_says_so(root, git):
    (root / "404.py").write_text("class B: pass\n")
    git(root, "commit", "-qam", "change")
    built = json.loads(rotary("site", root, "--json").stdout)
    assert built["source_pages"] == len(FILES) - 1
    assert "1 sources changed since the index" in built["notes"][0]
    assert html_faults(Path(built["folder"])) == []


def test_the_first_page_follows_a_readme_that_is_no_source(make_repository, git):
    root = make_repository({"README.rst": "Kettle\n======\n\nIt boils water quickly.\n", "a.py": "x = 1\n"})
    rotary("index", root)
    home = root / "rotary-docs" / "index.md"
    assert "# project\n\nIt boils water quickly.\n" in home.read_text()
    (root / "README.rst").write_text("Kettle\n======\n\nIt boils milk slowly.\n")
    git(root, "commit", "-qam", "change")
    written = json.loads(rotary("index", root, "--json").stdout)[0]["pages_written"]
    assert ("# project\n\nIt boils milk slowly.\n" in home.read_text(), written) == (True, 4)
    git(root, "rm", "-q", "README.rst")
    git(root, "commit", "-qm", "remove")
    rotary("index", root)
    assert "It boils" not in home.read_text()


def test_mkdocs_builds_the_tree_in_strict_mode(root):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", "rotary-docs/.mkdocs/mkdocs.yml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_the_site_is_served_on_the_loopback_interface(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    with serving(tmp_path, 0) as url:
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url).read() == b"hello"
