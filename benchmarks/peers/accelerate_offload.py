"""transformers with accelerate's disk offload: prefill and decode rates as JSON.

Run as a script: `python -m benchmarks.peers.accelerate_offload CHECKPOINT SEQUENCES PROMPT STEPS [ram]`.
Layers are offloaded to disk (on a CPU accelerate computes on their mapped pages); with `ram` everything is loaded.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from transformers import MixtralForCausalLM


def main(folder: Path, sequences: int, prompt_tokens: int, steps: int, *, in_ram: bool) -> None:
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{n}": "disk" for n in range(layers)}
    options = {} if in_ram else {"device_map": places, "offload_folder": str(folder / "offload")}
    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **options).eval()
    ids = torch.randint(0, 32000, (sequences, prompt_tokens), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        start = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        prefill_s = time.perf_counter() - start
        spent = []
        for _ in range(steps):
            start = time.perf_counter()
            out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
            spent.append(time.perf_counter() - start)
    step_s = sorted(spent)[len(spent) // 2]
    print(json.dumps({"prefill": sequences * prompt_tokens / prefill_s, "decode": sequences / step_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:5]), in_ram=sys.argv[5:] == ["ram"])
