"""A model that is named as on Hugging Face: the error says how to get it onto disk, or where it is already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.commands.hub import not_on_disk

NAME = "mistralai/Mixtral-8x7B-Instruct-v0.1"


def index_with(model: object, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", "index", str(root), "--model", str(model)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=root.parent)


def snapshot(hub: Path, checkpoint: Path, revision: str, *, main: bool = True) -> Path:
    """A checkpoint as huggingface_hub stores it: blobs, and a folder of links to them for each revision."""
    folder = hub / f"models--{NAME.replace('/', '--')}"
    revisions = folder / "snapshots" / revision
    for directory in (folder / "blobs", folder / "refs", revisions):
        directory.mkdir(parents=True, exist_ok=True)
    for path in checkpoint.iterdir():
        blob = folder / "blobs" / f"{revision}-{path.name}"
        blob.write_bytes(path.read_bytes())
        (revisions / path.name).symlink_to(f"../../blobs/{blob.name}")
    if main:
        (folder / "refs" / "main").write_text(revision)
    return revisions


def test_a_name_says_how_to_get_the_model_onto_disk(make_repository):
    root = make_repository({"a.py": "x = 1\n"})
    done = index_with(NAME, root)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.partition("reading files\n")[2] == (
        f"rotary-batch: {root}: {NAME}: no such folder, and rotary-batch downloads nothing; get it with "
        f"`hf download {NAME} --local-dir Mixtral-8x7B-Instruct-v0.1` (from `pip install huggingface-hub`), then name "
        "the folder Mixtral-8x7B-Instruct-v0.1\n"
    )


@pytest.mark.parametrize("path", ["/no/where", "name", "a/b/c", "org/name; rm", "-/x", "org/..", "org/\u202ename"])
def test_any_other_path_is_a_folder_that_is_not_there(path):
    assert not_on_disk(Path(path), {}) == f"{path}: no such folder; name the folder of a pack or of a checkpoint"


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_a_downloaded_model_is_named_by_its_folder(variable, make_repository, tiny_checkpoint, tmp_path, monkeypatch):
    root, place = make_repository({"a.py": "x = 1\n"}), tmp_path / "a b"
    below = {
        "HF_HUB_CACHE": ".",
        "HF_HOME": "hub",
        "XDG_CACHE_HOME": "huggingface/hub",
        "HOME": ".cache/huggingface/hub",
    }
    snapshot(place / below[variable], tiny_checkpoint, "0000", main=False)
    wanted = snapshot(place / below[variable], tiny_checkpoint, "1111")
    os.utime(wanted, (0, 0))  # that of `main`, though another is newer
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("ROTARY_BATCH_MAX_ISA", "portable")  # without the cache, kernels would be compiled
    done = index_with(NAME, root, **{variable: str(place)})
    assert f"this one is on disk already: '{wanted}'" in done.stderr.replace("/./", "/")
    assert index_with(wanted, root).returncode == 0


def test_a_download_without_weights_is_no_model(make_repository, tmp_path):
    root = make_repository({"a.py": "x = 1\n"})
    folder = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (folder / "snapshots" / "2222").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_bytes(b"\xff\x00")
    assert "rotary-batch downloads nothing" in index_with(NAME, root, HF_HUB_CACHE=str(tmp_path / "hub")).stderr
