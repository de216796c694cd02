"""What torch's operators take in a run is what its plan counts, whatever the formats of the model and what unpacks them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from tests.engine.peak import peak_nbytes
from tests.engine.test_gguf_checkpoint import written

# MXFP4 takes the most while torch's operators dequantise it.
TYPES = {"ffn_gate_exps": "MXFP4", "ffn_up_exps": "MXFP4", "ffn_down_exps": "Q5_1", "attn_q": "Q8_0"}
SIZES = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "num_local_experts": 4}
PROMPTS = [[3, 200, 17, 90]] * 2  # few rows, next to which temporaries are large


@pytest.fixture(scope="module")
def quantised_pack(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    path, _, _ = written(folder, "mixtral", TYPES, **SIZES)
    pack(path, folder / "pack")
    return folder / "pack"


@pytest.mark.parametrize(("numerics", "max_isa"), [("exact", "portable"), ("exact", "amx"), ("fast", "amx")])
def test_a_run_of_a_quantised_model_stays_within_its_plan(quantised_pack, numerics, max_isa):
    with closing(open_engine(quantised_pack, numerics=numerics, max_isa=max_isa, max_batch=2)) as engine:
        model, rows = engine.footprint, sum(map(len, PROMPTS))
        counted = model.scratch_nbytes() + rows * model.row_nbytes() + model.batch_nbytes(len(PROMPTS))
        assert peak_nbytes(lambda: engine.generate(PROMPTS, 3)) <= counted
