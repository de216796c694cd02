"""Which numerics a pack has when none are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import ADAPTER, EMBEDDED
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import EXACT_MAX_NBYTES, PACK_FIELDS_NAME, Manifest, SlabPlace, pack_fields


def test_the_author_of_a_pack_says_its_numerics_and_else_its_size_does(tmp_path: Path) -> None:
    small = Manifest.load(EMBEDDED)
    large = replace(small, slabs={key: SlabPlace(0, EXACT_MAX_NBYTES, "") for key in small.slabs})
    assert (small.default_numerics, large.default_numerics) == ("exact", "fast")
    for numerics in ("exact", "fast"):
        assert replace(large, numerics=numerics).default_numerics == numerics
        replace(small, numerics=numerics).save(tmp_path)
        assert Manifest.load(tmp_path).default_numerics == numerics


def test_the_default_model_is_fast() -> None:
    assert pack_fields(ADAPTER)["numerics"] == "fast"


def test_other_numerics_are_refused(tmp_path: Path) -> None:
    (tmp_path / PACK_FIELDS_NAME).write_text('{"name": "a", "demonstration": true, "numerics": "quick"}')
    with pytest.raises(ModelError, match="numerics"):
        pack_fields(tmp_path)
