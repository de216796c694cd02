"""Export a trained model and pack it: `python -m training.export --out training/out --pack rotary_batch/embedded`.

Writes a Hugging Face checkpoint in bfloat16 (out/hf) and packs it, experts in int8 and all else in bf16, with the
confidence below which prose is not shown (training/quality chooses it).  Knows the two forms of a model; knows
nothing of how it was trained or is judged.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.tokens import TOKENIZER_FILES, Tokenizer
from training.model import Mixtral, Shape
from training.quality.confidence import held_out_threshold

CHUNK_TOKENS = 256
NAME = "rotary-demo"
JOB = "summarize-small"  # whose prompts it is trained on
NOTHING_SHOWN = 0.0  # a threshold that no mean log-probability reaches: what stands when none keeps its promise


def write_checkpoint(out: Path, shape: Shape | None = None) -> Path:
    """The trained weights of `out` as a Hugging Face Mixtral checkpoint; its folder."""
    state = torch.load(out / "checkpoint.pt", weights_only=True, map_location="cpu")["model"]
    shape, folder = shape or shape_of(state), out / "hf"
    folder.mkdir(exist_ok=True)
    model = Mixtral(shape)
    model.load_state_dict(state)
    weights = {name: value.to(torch.bfloat16) for name, value in model.published().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(shape, Tokenizer.load(out)), indent=2))
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            shutil.copyfile(out / name, folder / name)
    return folder


def shape_of(state: Mapping[str, Tensor]) -> Shape:
    """The default shape with the numbers of layers and the widths that the weights have."""
    experts, inner, hidden = state["layers.0.block_sparse_moe.w1"].shape
    num_layers = sum(name.endswith("block_sparse_moe.w1") for name in state)
    vocabulary = len(state["embed_tokens.weight"])
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_experts": experts, "num_layers": num_layers}
    return replace(Shape(), vocab_size=vocabulary, **sizes)


def _config(shape: Shape, tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "num_local_experts": shape.num_experts,
        "num_experts_per_tok": shape.top_k,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.max_position,
        "tie_word_embeddings": True,
        "sliding_window": None,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "eos_token_id": min(tokenizer.stop_ids),
        "bos_token_id": 0,
    }


def swap(made: Path, target: Path) -> None:
    """Put a finished pack in the place of the one that is there.  Raises SystemExit when that is no pack."""
    if target.exists():
        if not (target / MANIFEST_NAME).is_file():
            raise SystemExit(f"{target}: is there and holds no pack; name another folder for --pack")
        shutil.rmtree(target)
    made.rename(target)


def main() -> None:
    """Export, pack, choose the threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--experts", choices=("bf16", "int8", "int4"), default="int8")
    arguments = parser.parse_args()
    beside = arguments.out / "pack"
    shutil.rmtree(beside, ignore_errors=True)
    extra = {"name": NAME, "demonstration": True, "job": JOB, "chunk_tokens": CHUNK_TOKENS}
    extra |= {"min_mean_logprob": NOTHING_SHOWN}
    pack(write_checkpoint(arguments.out), beside, experts=arguments.experts, extra=extra)
    chosen = held_out_threshold(beside)
    if chosen.threshold is not None:
        replace(Manifest.load(beside), min_mean_logprob=chosen.threshold).save(beside)
    print(chosen)
    swap(beside, arguments.pack)
    print(f"{sum(path.stat().st_size for path in arguments.pack.iterdir()):,} bytes in {arguments.pack}")


if __name__ == "__main__":
    main()
