"""Packing: the same bytes after any kill, and bad checkpoints explained before anything is written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack, verify
from rotary_batch.errors import BusyError, ModelError, StorageError
from rotary_batch.model.manifest import EXPERTS_NAME, MANIFEST_NAME, Manifest
from rotary_batch.testing import write_tiny_checkpoint

KILLED = """
import os, signal, sys
from pathlib import Path
import shutil
from rotary_batch.engine.packs import pack, writer
left = [int(sys.argv[3])]
def wrap(owner, name):
    inner = getattr(owner, name)
    def wrapped(*a, **k):
        left[0] -= 1
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
        return inner(*a, **k)
    setattr(owner, name, wrapped)
for owner, name in (
    (writer, "_write_all"), (writer, "_commit"), (pack, "write_dense"), (pack, "_manifest"),
    (os, "fdatasync"), (Path, "replace"), (shutil, "copyfile"),
):
    wrap(owner, name)
writer.SYNC_NBYTES = 1
pack.pack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_slabs_are_page_aligned_and_any_safetensors_reader_opens_them(tiny_pack):
    manifest = Manifest.load(tiny_pack)
    assert all(offset % 4096 == 0 and nbytes % 4096 == 0 for offset, nbytes, _ in manifest.slabs.values())
    with safe_open(str(tiny_pack / EXPERTS_NAME), framework="pt") as file:
        assert len(file.keys()) == len(manifest.slabs)
    assert verify(tiny_pack) == []


@pytest.mark.parametrize("every", [20, pytest.param(6, marks=pytest.mark.faults)])
def test_packing_killed_at_any_point_goes_on_and_gives_the_same_bytes(every, tiny_checkpoint, tiny_pack, tmp_path):
    expected = tree(tiny_pack)
    for count in range(1, 60, every):
        dst = tmp_path / str(count)
        for again in (count, count + 1, count + 2):
            command = [sys.executable, "-c", KILLED, str(tiny_checkpoint), str(dst), str(again)]
            if subprocess.run(command, capture_output=True).returncode != -signal.SIGKILL:
                break
            assert not (dst / MANIFEST_NAME).exists() or tree(dst) == expected
        pack(tiny_checkpoint, dst)
        assert tree(dst) == expected


def stopped_before_the_dense_part(tiny_checkpoint, dst, monkeypatch) -> None:
    def killed(_packing):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rotary_batch.engine.packs.pack.write_dense", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(tiny_checkpoint, dst)


@pytest.mark.parametrize("lost", ["all", "zeros", "a slab", "journal lines"])
def test_a_journal_is_believed_only_where_the_bytes_are_there(tiny_checkpoint, tiny_pack, tmp_path, monkeypatch, lost):
    """A journal stood while its `.part` was gone: every slab of the pack was zeros, and the exit code 0."""
    dst = tmp_path / "pack"
    stopped_before_the_dense_part(tiny_checkpoint, dst, monkeypatch)
    experts, journal = dst / EXPERTS_NAME, dst / "packing.journal"
    if lost == "all":
        experts.unlink()
    elif lost == "zeros":
        experts.write_bytes(bytes(experts.stat().st_size))
    elif lost == "a slab":
        data = bytearray(experts.read_bytes())
        data[-5000] ^= 1
        experts.rename(experts.with_name(EXPERTS_NAME + ".part")).write_bytes(data)
    else:
        lines = journal.read_text().splitlines()
        journal.write_text(
            "\n".join([lines[0], "0 0 nonsense", "9 9 0 4096 " + "0" * 64, "\xff", *lines[3:]]) + "\n0 1 40"
        )
    pack(tiny_checkpoint, dst)
    assert tree(dst) == tree(tiny_pack)


def test_two_that_pack_into_one_folder(tiny_checkpoint, tmp_path):
    def second(_done, _total):
        with pytest.raises(BusyError, match="another process packs into it"):
            pack(tiny_checkpoint, tmp_path / "pack")

    pack(tiny_checkpoint, tmp_path / "pack", progress=second)
    assert verify(tmp_path / "pack") == []


@pytest.mark.parametrize("moment", ["rotary_batch.engine.packs.pack._require_space", "fcntl.flock"])
def test_a_pack_that_another_process_finished_meanwhile_is_kept(tiny_checkpoint, tmp_path, monkeypatch, moment):
    """It was deleted and packed anew: the manifest was looked for before the journal was locked."""
    dst, calls, finished = tmp_path / "pack", [], []

    def finished_by_another(*_arguments):
        monkeypatch.undo()
        finished.append((pack(tiny_checkpoint, dst), (dst / EXPERTS_NAME).stat()))
        return fcntl.flock(*_arguments) if moment == "fcntl.flock" else None

    monkeypatch.setattr(moment, finished_by_another)
    found = pack(tiny_checkpoint, dst, progress=lambda *done: calls.append(done))
    ((manifest, experts),) = finished
    assert (found, calls) == (manifest, [])
    assert os.path.samestat((dst / EXPERTS_NAME).stat(), experts)
    assert not (dst / "packing.journal").exists()


def test_a_journal_that_was_replaced_before_its_lock_was_taken_locks_nothing(tiny_checkpoint, tmp_path, monkeypatch):
    journal, flock = tmp_path / "pack" / "packing.journal", fcntl.flock
    others = []

    def replaced(file, how):
        if not others:
            journal.unlink()
            others.append(journal.open("w"))
            flock(others[0], fcntl.LOCK_EX)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(BusyError, match="another process packs into it"):
        pack(tiny_checkpoint, tmp_path / "pack")
    others[0].close()


def test_what_another_packing_left_is_packed_anew(tiny_checkpoint, tmp_path, monkeypatch):
    """The first was killed between its experts and its manifest; so was a pack that lost its manifest and journal."""

    def killed(_packing):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rotary_batch.engine.packs.pack.write_dense", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(tiny_checkpoint, tmp_path / "one", experts="int8")
    pack(tiny_checkpoint, tmp_path / "one")
    pack(tiny_checkpoint, tmp_path / "other")
    expected = tree(tmp_path / "other")
    assert tree(tmp_path / "one") == expected
    (tmp_path / "other" / MANIFEST_NAME).unlink()
    pack(tiny_checkpoint, tmp_path / "other")
    assert tree(tmp_path / "other") == expected


def test_packing_again_does_nothing_and_another_checkpoint_is_refused(tiny_checkpoint, tiny_pack, tmp_path):
    before = (tiny_pack / EXPERTS_NAME).stat().st_mtime_ns
    pack(tiny_checkpoint, tiny_pack)
    assert (tiny_pack / EXPERTS_NAME).stat().st_mtime_ns == before
    other = write_tiny_checkpoint(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="another checkpoint"):
        pack(other, tiny_pack)
    with pytest.raises(ModelError, match="the same folder"):
        pack(other, other)


def test_a_flipped_byte_is_found(tiny_pack, tmp_path):
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    with (folder / EXPERTS_NAME).open("r+b") as file:
        file.seek(Manifest.load(folder).slabs[1, 2].offset + 5)
        file.write(b"\x00\xff")
    assert verify(folder) == [f"{EXPERTS_NAME}: layer 1 expert 2"]


def damage(folder: Path, kind: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "no header":
        weights.write_bytes(b"\xff" * 200)
    elif kind == "missing shard":
        next(folder.glob("model-00002*")).unlink()
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif kind == "no config":
        config.unlink()
    else:
        table = json.loads(config.read_text())
        changes = {
            "shape": {"hidden_size": 64},
            "architecture": {"architectures": ["MambaForCausalLM"], "model_type": "mamba"},
            "layers": {"num_hidden_layers": 3},
            "number": {"num_local_experts": "many"},
            "heads": {"num_key_value_heads": 3},
        }
        config.write_text(json.dumps(table | changes[kind]))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", r"model\.safetensors: truncated"),
        ("no header", "truncated or not safetensors"),
        ("missing shard", "is a shard missing"),
        ("no tokenizer", r"tokenizer\.json: No such file"),
        ("no config", r"config\.json"),
        ("shape", "has shape"),
        ("architecture", 'unknown architecture "MambaForCausalLM"'),
        ("layers", "is in none of its files"),
        ("number", r"config\.json"),
        ("heads", "not a multiple"),
    ],
)
def test_a_bad_checkpoint_is_explained_and_nothing_is_written(tmp_path, kind, words):
    source = write_tiny_checkpoint(tmp_path / "hf", num_shards=3 if kind == "missing shard" else 1)
    damage(source, kind)
    with pytest.raises(ModelError, match=words):
        pack(source, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills_up_keeps_what_was_written_and_goes_on_later(
    tiny_checkpoint, tiny_pack, tmp_path, monkeypatch
):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(StorageError, match="packing needs"):
            pack(tiny_checkpoint, small / "pack")
        monkeypatch.setattr("rotary_batch.engine.packs.pack._require_space", lambda *_: None)
        with pytest.raises(StorageError, match="No space left"):
            pack(tiny_checkpoint, small / "pack")
        assert not (small / "pack" / MANIFEST_NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        pack(tiny_checkpoint, small / "pack")
        assert tree(small / "pack") == tree(tiny_pack)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_dense_tensor_of_another_shape_is_named(tiny_pack, tmp_path):
    """The kernels take pointers: a matrix of another width would be read past its end."""
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    with safe_open(str(folder / "dense.safetensors"), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["layers.0.k"] = tensors["layers.0.k"].T.contiguous()
    save_file(tensors, str(folder / "dense.safetensors"))
    digest = hashlib.sha256((folder / "dense.safetensors").read_bytes()).hexdigest()
    replace(Manifest.load(folder), dense_sha256=digest).save(folder)
    rows, columns = tensors["layers.0.k"].shape
    with pytest.raises(ModelError, match=rf"layers\.0\.k is \[{rows}, {columns}\] of BF16, not \[{columns}, {rows}\]"):
        open_engine(folder)
