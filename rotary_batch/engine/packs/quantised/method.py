"""Which method quantised a checkpoint, by its config."""

from __future__ import annotations

from pathlib import Path

from rotary_batch.engine.packs.quantised.awq import Awq
from rotary_batch.engine.packs.quantised.compressed import CompressedTensors
from rotary_batch.engine.packs.quantised.fp8 import Fp8
from rotary_batch.engine.packs.quantised.gptq import Gptq
from rotary_batch.engine.packs.quantised.mxfp4 import Mxfp4
from rotary_batch.engine.packs.quantised.source import Method, Tensors
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, read_object, shown

# Of GPTQ and AWQ, before config.json had it, and of ModelOpt.
CONFIG_NAMES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_MAX_CONFIG_NBYTES = 2**20
_REMEDY = "fetch the file again, or name another checkpoint"
_KNOWN = ("gptq", "awq", "compressed-tensors", "fp8", "fbgemm_fp8", "mxfp4", "modelopt (FP8)")
CODE_SUFFIXES = (".qweight", ".weight_packed")  # instead of .weight
# Of activations, which stay as they are, and shapes, which the config says too.
UNUSED_SUFFIXES = (
    ".weight_shape",
    ".input_scale",
    ".input_zero_point",
    ".input_global_scale",
    ".activation_scale",
    ".output_scale",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".q_scale",
)
_UNEXPLAINED = {  # the last part of a tensor's name: which method it is of
    ".qweight": "GPTQ or AWQ",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_inv": "FP8",
    "_blocks": "MXFP4",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes",
}


def read_method(model_dir: Path, config: Table, tensors: Tensors) -> Method | None:
    """How a checkpoint is quantised; None for a plain one.  `config` is its config.json.

    Raises ModelError for a method that is not read, by its name, and for quantised tensors that no config explains.
    """
    table = _quantisation(model_dir, config)
    if table is None:
        _refuse_unexplained(tensors)
        return None
    # the file quantize_config.json may lack the name: AutoGPTQ and AutoAWQ wrote one each, under their own names
    name = table.text("quant_method").lower() if table.has("quant_method") else _own_name(table)
    if name == "gptq":
        return Gptq(table)
    if name == "awq":
        return Awq(table)
    if name == "compressed-tensors":
        return CompressedTensors(table, tensors)
    if name == "mxfp4":
        return Mxfp4()
    if name in ("fp8", "fbgemm_fp8") or (name == "modelopt" and _modelopt_kind(table) == "FP8"):
        return Fp8(table)
    kind = f"{name} ({_modelopt_kind(table)})" if name == "modelopt" else name
    raise table.error(f"quantised by {shown(kind)}; this version reads {', '.join(_KNOWN)}")


def _quantisation(model_dir: Path, config: Table) -> Table | None:
    """`compression_config` is what compressed-tensors called it at first."""
    for key in ("quantization_config", "compression_config"):
        if config.has(key):
            return config.table(key)
    for name in CONFIG_NAMES:
        path = model_dir / name
        if path.exists():
            return Table(read_object(path, _MAX_CONFIG_NBYTES, _REMEDY), path, _REMEDY)
    return None


def _own_name(table: Table) -> str:
    if table.has("config_groups"):
        return "compressed-tensors"
    if table.has("w_bit") or table.has("zero_point"):
        return "awq"
    if table.has("bits"):
        return "gptq"
    if table.has("quantization"):
        return "modelopt"
    raise table.wrong("quant_method", "the name of a method")


def _modelopt_kind(table: Table) -> str:
    for part in (table, table.table("quantization")):
        if part.has("quant_algo"):
            return part.text("quant_algo").upper()
    return "?"


def _refuse_unexplained(tensors: Tensors) -> None:
    for name, place in tensors.items():
        for suffix, method in _UNEXPLAINED.items():
            if name.endswith(suffix):
                raise ModelError(
                    f"{place.path}: tensor {name} is quantised ({method}), but neither config.json "
                    f"(quantization_config) nor {CONFIG_NAMES[0]} says how; fetch the missing file"
                )
