"""A bf16 pack as the Hugging Face checkpoint that it would have come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.matrices import Matrix, num_columns, num_rows
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.engine.offload.slab import slab_views
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, Manifest
from rotary_batch.model.tokens import TOKENIZER_FILES

LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "moe_norm": "post_attention_layernorm",
    "router": "block_sparse_moe.gate",
    **{name: f"self_attn.{name}_proj" for name in "qkvo"},
}
TOP_NAMES = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


class DiskReader:
    """Slabs of a pack, read one at a time into memory of their own."""

    def __init__(self, pack_dir: Path, manifest: Manifest) -> None:
        self._places = manifest.slabs
        self._file = (pack_dir / EXPERTS_NAME).open("rb")

    def __enter__(self) -> Callable[[ExpertKey], torch.Tensor]:
        return self.read

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, key: ExpertKey) -> torch.Tensor:
        self._file.seek(self._places[key].offset)
        return torch.frombuffer(bytearray(self._file.read(self._places[key].nbytes)), dtype=torch.uint8)


def as_checkpoint(pack_dir: Path, folder: Path) -> Path:
    """Write it, one shard a layer, so that the memory of one layer is enough; quantised experts decoded to bf16."""
    manifest = Manifest.load(pack_dir)
    assert manifest.dense == "bf16", manifest.dense
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    with safe_open(str(pack_dir / DENSE_NAME), "pt") as dense, DiskReader(pack_dir, manifest) as read:
        names = list(manifest.geometry.dense_shapes())
        for layer in [None, *range(manifest.geometry.num_layers)]:
            stem = f"layers.{layer}."
            mine = (
                [n for n in names if n.startswith(stem)] if layer is not None else [n for n in names if n in TOP_NAMES]
            )
            weights = {hf_name(name): dense.get_tensor(name) for name in mine}
            if layer is not None:
                for expert in range(manifest.geometry.num_experts):
                    slab = slab_views(read(ExpertKey(layer, expert)), manifest, layer)
                    w1, w3 = plain(slab.gate_up[0], torch.bfloat16).chunk(2)
                    target = f"model.{stem}block_sparse_moe.experts.{expert}."
                    for name, weight in (("w1", w1), ("w2", plain(slab.down, torch.bfloat16)), ("w3", w3)):
                        weights[f"{target}{name}.weight"] = weight.clone()
            shard = f"model-{'rest' if layer is None else layer}.safetensors"
            save_file(weights, str(folder / shard), metadata={"format": "pt"})
            weight_map |= dict.fromkeys(weights, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(_config(pack_dir, manifest.geometry)))
    for name in TOKENIZER_FILES:
        if (pack_dir / name).is_file():
            shutil.copyfile(pack_dir / name, folder / name)
    return folder


def hf_name(name: str) -> str:
    if name in TOP_NAMES:
        return TOP_NAMES[name] + ".weight"
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def _config(pack_dir: Path, geometry: Geometry) -> dict[str, object]:
    if (pack_dir / "config.json").is_file():
        return json.loads((pack_dir / "config.json").read_text())
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": geometry.hidden_size,
        "intermediate_size": geometry.intermediate_size,
        "num_hidden_layers": geometry.num_layers,
        "num_attention_heads": geometry.num_heads,
        "num_key_value_heads": geometry.num_kv_heads,
        "num_local_experts": geometry.num_experts,
        "num_experts_per_tok": geometry.top_k,
        "vocab_size": geometry.vocab_size,
        "rms_norm_eps": geometry.rms_norm_eps,
        "rope_theta": geometry.rope_theta,
        "max_position_embeddings": geometry.max_position,
        "tie_word_embeddings": geometry.tie_word_embeddings,
        "sliding_window": None,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "eos_token_id": None,
        "bos_token_id": None,
        "pad_token_id": None,
    }


def plain(matrix: Matrix, dtype: torch.dtype) -> torch.Tensor:
    """A stored matrix decoded."""
    return dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix), dtype=dtype))
