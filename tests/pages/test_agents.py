"""The block in AGENTS.md: brought up to date between its markers, while a person's bytes around it stay."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rotary_batch.cli import app
from rotary_batch.errors import InputError
from rotary_batch.pages.agents import BEGIN, END, MAX_LINES, block, with_block

FILE = Path("/r/AGENTS.md")
TEXT = block("rotary-docs")
begin, end = BEGIN.encode(), END.encode()


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["agents", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return str(done.exception) if code else done.stdout


@pytest.mark.parametrize("docs", ["rotary-docs", "a/b/", "/srv/docs", "we`ird <b>\n" + BEGIN])
def test_the_block_is_short_and_has_its_markers_once(docs):
    lines = block(docs).splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if "rotary-batch:" in line and line.strip() in (BEGIN, END)] == [BEGIN, END]
    assert "/srv" not in block(docs)


@given(
    before=st.binary(max_size=60).filter(lambda data: b"\0" not in data),
    after=st.binary(max_size=60).filter(lambda data: b"\0" not in data),
    old=st.sampled_from([b"", b"old\n", b"x\r\n\r\ny\r\n"]),
)
def test_nothing_outside_the_markers_changes(before, after, old):
    if before and not before.endswith((b"\n", b"\r")):
        before += b"\n"
    if before.endswith(b"\r") and old:
        before += b"\n"
    line_end = b"\r\n" if b"\r\n" in before + after + old else b"\n"
    data = before + begin + line_end + old + end + line_end + after
    new = with_block(data, TEXT, FILE)
    assert new == before + TEXT.encode().replace(b"\n", b"\r\n" if b"\r\n" in data else b"\n") + after
    assert with_block(new, TEXT, FILE) == new
    assert with_block(data, "", FILE) == before + after


@pytest.mark.parametrize("own", [b"", b"# Mine\n", b"# Mine", b"a\r\nb\r\n", b"caf\xe9\n", b"a\rb\r", b"\n\n"])
def test_without_markers_the_block_goes_to_the_end_and_can_be_taken_out(own):
    new = with_block(own, TEXT, FILE)
    assert new.startswith(own)
    assert with_block(new, TEXT, FILE) == new
    assert with_block(new, "", FILE) in (own, own + b"\n")
    assert with_block(own, "", FILE) == own


@pytest.mark.parametrize(
    "markers",
    [[begin], [end], [end, begin], [begin, begin, end], [begin, end, end], [begin, end, begin, end]],
)
def test_malformed_markers_are_an_error_that_names_the_file(markers):
    data = b"# Mine\n" + b"text\n".join(marker + b"\n" for marker in markers)
    for text in (TEXT, ""):
        with pytest.raises(InputError, match=r"^/r/AGENTS\.md: .* not one pair .line 2: "):
            with_block(data, text, FILE)


def test_a_file_that_is_no_text_is_left_alone():
    with pytest.raises(InputError, match="not UTF-8"):
        with_block("# Mine\n".encode("utf-16"), TEXT, FILE)


def test_the_command_writes_refreshes_and_removes(make_repository):
    root = make_repository({"a.py": "x = 1\n"})
    file = root / "AGENTS.md"
    assert run(root) == f"{file}: changed\n"
    assert file.read_text() == TEXT
    file.write_text("# Mine\n\n" + TEXT.replace("every", "no") + "more\n")
    file.chmod(0o640)
    run(root)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("# Mine\n\n" + TEXT + "more\n", 0o640)
    inode = file.stat().st_ino
    assert run(root) == f"{file}: unchanged\n"
    assert file.stat().st_ino == inode
    run(root, "--out", "docs/api")
    assert "`docs/api/index.md`" in file.read_text()
    run(root, "--remove")
    assert file.read_text() == "# Mine\n\nmore\n"
    file.write_text(TEXT)
    run(root, "--remove")
    run(root, "--remove")
    assert sorted(path.name for path in root.iterdir()) == [".git", "a.py"]


def test_no_link_is_followed(make_repository, tmp_path):
    root = make_repository({"a.py": "x = 1\n"})
    (tmp_path / "theirs").write_text("# Theirs\n")
    (root / "AGENTS.md").symlink_to(tmp_path / "theirs")
    assert "a symbolic link" in run(root, code=1)
    assert (tmp_path / "theirs").read_text() == "# Theirs\n"
    (root / "AGENTS.md").unlink()
    (root / "AGENTS.md").mkdir()
    assert "AGENTS.md: a folder" in run(root, code=1)


def test_a_bare_repository_has_no_place_for_it(make_repository, git, tmp_path):
    root = make_repository({"a.py": "x = 1\n"})
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare")
    assert "a bare repository" in run(tmp_path / "bare", code=1)
