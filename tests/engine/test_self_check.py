"""A new pack is compared with its checkpoint before it gets a manifest."""

from __future__ import annotations

import pytest

from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.self_check import self_check
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, MANIFEST_NAME, Manifest
from rotary_batch.testing import write_tiny_checkpoint
from tests.engine.test_families import CASES, write_checkpoint


@pytest.mark.parametrize("name", CASES)
def test_packs_of_every_family_pass(name, tmp_path):
    write_checkpoint(tmp_path / "hf", name, 1)
    pack(tmp_path / "hf", tmp_path / "pack", check=self_check)
    assert (tmp_path / "pack" / MANIFEST_NAME).is_file()


@pytest.mark.parametrize(("experts", "dense"), [("int8", "bf16"), ("int4", "int8"), ("bf16", "int8")])
def test_what_is_quantised_is_compared_with_its_dequantised_self(experts, dense, tmp_path):
    source = write_tiny_checkpoint(tmp_path / "hf", hidden_size=64, intermediate_size=96)
    pack(source, tmp_path / "pack", experts=experts, dense=dense, check=self_check)


@pytest.mark.parametrize("file", [EXPERTS_NAME, DENSE_NAME])
def test_a_pack_that_computes_something_else_gets_no_manifest(file, tiny_checkpoint, tmp_path):
    def damaged(checkpoint, pack_dir, manifest):
        path = pack_dir / file
        data = bytearray(path.read_bytes())
        half = len(data) // 2  # beyond the header
        data[half:] = data[half:][::-1]
        path.write_bytes(data)
        self_check(checkpoint, pack_dir, manifest)

    with pytest.raises(ModelError, match="differ from the checkpoint's"):
        pack(tiny_checkpoint, tmp_path / "pack", check=damaged)
    assert not (tmp_path / "pack" / MANIFEST_NAME).exists()
    pack(tiny_checkpoint, tmp_path / "pack", check=self_check)  # the damaged slabs are written again
    assert Manifest.load(tmp_path / "pack").geometry.num_layers == 2
