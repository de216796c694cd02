"""The packs that are judged, and what they store as plain float32 weights.

Knows packs, checkpoints and `transformers`; knows nothing of examples.  A quantised pack is judged by what it holds:
its matrices are decoded and run by `transformers`, which shares no code with the engine or with training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import MixtralForCausalLM

from benchmarks.checkpoints import DiskReader, hf_name, plain
from rotary_batch.engine.kernels.matrices import Int8Matrix, Matrix
from rotary_batch.engine.offload.source import slab_views
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.manifest import DENSE_NAME, Manifest

EXPORTED = Path(__file__).parents[1] / "out" / "hf"
FORMATS = (("bf16", "bf16"), ("int8", "bf16"), ("int4", "int8"))  # experts, everything else


class Judged(NamedTuple):
    """One pack under judgement."""

    folder: Path
    manifest: Manifest
    nbytes: int

    @classmethod
    def of(cls, folder: Path) -> Judged:
        """Read its manifest, weigh its weights."""
        manifest = Manifest.load(folder)
        return cls(folder, manifest, manifest.experts_nbytes + (folder / DENSE_NAME).stat().st_size)

    @property
    def digest(self) -> str:
        """Of every weight."""
        return self.manifest.weights_digest

    @property
    def name(self) -> str:
        """How it stores its weights, in words."""
        return f"{self.manifest.experts} experts, {self.manifest.dense} rest"


def judged_packs(shipped: Path, exported: Path | None, folder: Path) -> list[Judged]:
    """The exported checkpoint in every format, the shipped pack in the place of its equal or at the end."""
    mine = Judged.of(shipped)
    made = pack_all(exported, folder) if exported else []
    found = [mine if one.digest == mine.digest else one for one in made]
    return found if mine in found else [*found, mine]


def pack_all(checkpoint: Path, folder: Path) -> list[Judged]:
    """A checkpoint in every format, bf16 first."""
    found = []
    for experts, dense in FORMATS:
        target = folder / f"{experts}-{dense}"
        pack(checkpoint, target, experts=experts, dense=dense)
        found.append(Judged.of(target))
    return found


def reference(pack_dir: Path, folder: Path) -> MixtralForCausalLM:
    """`transformers`' Mixtral with the weights that a pack stores, in float32; `folder` holds them meanwhile."""
    manifest = Manifest.load(pack_dir)
    folder.mkdir(parents=True)
    weights = _dense(pack_dir, manifest) | _experts(pack_dir, manifest)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = json.loads((pack_dir / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    model = load(folder)
    shutil.rmtree(folder)
    return model


def load(checkpoint: Path) -> MixtralForCausalLM:
    """A checkpoint in float32 with the plainest attention."""
    model = MixtralForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def _dense(pack_dir: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    found = {}
    with safe_open(str(pack_dir / DENSE_NAME), "pt") as file:
        scaled = set(file.keys())
        for name in manifest.geometry.dense_shapes():
            stored: Matrix = file.get_tensor(name)
            if f"{name}.scale" in scaled:
                stored = Int8Matrix(stored, file.get_tensor(f"{name}.scale"))
            found[hf_name(name)] = stored.float() if isinstance(stored, torch.Tensor) else plain(stored, torch.float32)
    return found


def _experts(pack_dir: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    found = {}
    with DiskReader(pack_dir, manifest) as read:
        for key in manifest.slabs:
            slab = slab_views(read(key), manifest, key.layer)
            w1, w3 = plain(slab.gate_up[0], torch.float32).chunk(2)
            stem = f"model.layers.{key.layer}.block_sparse_moe.experts.{key.expert}."
            parts = {"w1": w1, "w2": plain(slab.down, torch.float32), "w3": w3}
            found |= {f"{stem}{name}.weight": weight.clone() for name, weight in parts.items()}
    return found
