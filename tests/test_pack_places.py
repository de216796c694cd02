"""The pack of a model is found without reading the model's files, as long as they are as they were."""

from __future__ import annotations

import os
import shutil

import pytest

from rotary_batch.commands.packs import find_pack, pack_folder, packs_cache
from rotary_batch.config import Settings
from rotary_batch.engine.packs import adapter


@pytest.fixture
def reads(monkeypatch) -> list[object]:
    """The models whose headers were read."""
    read, opened = [], adapter.open_model

    def noted(model):
        read.append(model)
        return opened(model)

    monkeypatch.setattr(adapter, "open_model", noted)
    return read


def test_headers_are_read_again_only_when_a_file_changed(tiny_checkpoint, tmp_path, reads):
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    settings = Settings(model=model)
    pack = find_pack(settings)
    reads.clear()
    assert (find_pack(settings), pack_folder(settings), reads) == (pack, pack, [])
    weights = next(model.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))
    other = pack_folder(settings)
    assert (other != pack, reads) == (True, [model])
    assert pack_folder(Settings(model=model, experts="int8")) not in {pack, other}


@pytest.mark.parametrize("note", ["", "x" * 10_000, "{digest} ../../away", "{digest} a/b", "\udcff"])
def test_a_note_that_is_none_of_ours_is_not_believed(tiny_checkpoint, reads, note):
    settings = Settings(model=tiny_checkpoint)
    pack = find_pack(settings)
    (path,) = (packs_cache().parent / "pack-places").iterdir()
    digest = path.read_text().split()[0]
    path.write_bytes(note.replace("{digest}", digest).encode("utf-8", "surrogateescape"))
    reads.clear()
    assert (pack_folder(settings), reads) == (pack, [tiny_checkpoint])


def test_a_pack_that_was_deleted_is_made_again(tiny_checkpoint, reads):
    settings = Settings(model=tiny_checkpoint)
    pack = find_pack(settings)
    shutil.rmtree(pack)
    assert (find_pack(settings), (pack / "manifest.json").is_file()) == (pack, True)
