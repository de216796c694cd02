"""Export a trained model and pack it: `python -m training.export --out training/out --pack rotary_batch/embedded`.

Writes a Hugging Face checkpoint (out/hf), packs it, and chooses the confidence below which prose is not shown:
the mean log-probability that the best quarter of held-out answers reaches.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.pack import pack
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import TOKENIZER_FILES, Tokenizer
from training.corpus import Pair, build
from training.model import Mixtral, Shape
from training.train import SEED

CHUNK_TOKENS = 256
MAX_ANSWER_TOKENS = 48
JUDGED_PAIRS = 300
SHOWN_SHARE = 0.25


def write_checkpoint(out: Path) -> Path:
    """The trained weights as a Hugging Face Mixtral checkpoint in bfloat16."""
    shape, folder = Shape(), out / "hf"
    folder.mkdir(exist_ok=True)
    model = Mixtral(shape)
    model.load_state_dict(torch.load(out / "checkpoint.pt", weights_only=True)["model"])
    weights = {f"model.{name}": value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(shape, Tokenizer.load(out)), indent=2))
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            shutil.copyfile(out / name, folder / name)
    return folder


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


def answers(pack_dir: Path, pairs: list[Pair]) -> list[tuple[float, str]]:
    """(mean log-probability, text) of each held-out prompt's answer, through the real engine."""
    tokenizer, engine = Tokenizer.load(pack_dir), open_engine(pack_dir)
    waiting = [
        Request(request_id=n, prompt_ids=tuple(tokenizer.encode_chat(p.prompt)), max_new_tokens=MAX_ANSWER_TOKENS)
        for n, p in enumerate(pairs)
    ]
    found: dict[int, tuple[float, str]] = {}
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        for done in engine.step().completions:
            found[done.request_id] = (done.mean_logprob, tokenizer.decode(done.token_ids))
    engine.close()
    return [found[n] for n in range(len(pairs))]


def main() -> None:
    """Export, pack, choose the threshold, print samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.pack, ignore_errors=True)
    extra = {"name": "rotary-demo", "demonstration": True, "chunk_tokens": CHUNK_TOKENS, "min_mean_logprob": -9.0}
    pack(write_checkpoint(arguments.out), arguments.pack, extra=extra)
    pairs = [pair for pair in build(SEED, held_out=True) if len(pair.prompt) < 2500][:JUDGED_PAIRS]
    found = answers(arguments.pack, pairs)
    ordered = sorted((mean for mean, _ in found), reverse=True)
    threshold = round(ordered[int(len(ordered) * SHOWN_SHARE)], 2)
    replace(Manifest.load(arguments.pack), min_mean_logprob=threshold).save(arguments.pack)
    print(f"threshold {threshold}: {SHOWN_SHARE:.0%} of {len(found)} held-out answers reach it")
    for pair, (mean, text) in list(zip(pairs, found, strict=True))[:10]:
        print(f"{mean:6.2f}  {text!r}  (the author: {pair.answer!r})")
    print(f"{sum(path.stat().st_size for path in arguments.pack.iterdir()):,} bytes in {arguments.pack}")


if __name__ == "__main__":
    main()
