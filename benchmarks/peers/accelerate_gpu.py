"""transformers with accelerate's offload to host memory, under a cap on device memory: rates as JSON.

Run as a script: `python -m benchmarks.peers.accelerate_gpu SHAPE CAP_GB SEQUENCES PROMPT STEPS`.
Random weights in bf16; all layers share the memory of one, because 93 GB need not be there to be copied.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from accelerate import cpu_offload, init_empty_weights
from transformers import MixtralConfig, MixtralForCausalLM

from rotary_batch.model.shapes import shape


def main(name: str, cap_gb: int, sequences: int, prompt_tokens: int, steps: int) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gb * 1e9 / total))
    model = _model(name)
    cpu_offload(model, execution_device=torch.device("cuda:0"))
    ids = torch.randint(0, 32000, (sequences, prompt_tokens), device="cuda")
    with torch.inference_mode():
        out, prefill_s = _timed(lambda: model(ids, use_cache=True, logits_to_keep=1))
        spent = []
        for _ in range(steps):
            token, past = out.logits[:, -1:].argmax(-1), out.past_key_values
            out, step_s = _timed(lambda token=token, past=past: model(token, past_key_values=past, use_cache=True))
            spent.append(step_s)
    step_s = sorted(spent)[len(spent) // 2]
    peak = torch.cuda.max_memory_allocated()
    found = {"prefill": sequences * prompt_tokens / prefill_s, "decode": sequences / step_s, "peak_device_bytes": peak}
    print(json.dumps(found))


def _model(name: str) -> MixtralForCausalLM:
    geometry = shape(name)
    config = MixtralConfig(
        hidden_size=geometry.hidden_size,
        intermediate_size=geometry.intermediate_size,
        num_hidden_layers=geometry.num_layers,
        num_attention_heads=geometry.num_heads,
        num_key_value_heads=geometry.num_kv_heads,
        num_local_experts=geometry.num_experts,
        num_experts_per_tok=geometry.top_k,
        vocab_size=geometry.vocab_size,
        dtype=torch.bfloat16,
    )
    with init_empty_weights():
        model = MixtralForCausalLM(config)
    drawn: dict[tuple[int, ...], torch.Tensor] = {}
    for key, empty in model.state_dict().items():
        if empty.shape not in drawn:
            drawn[empty.shape] = torch.empty(empty.shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)
        _put(model, key, drawn[empty.shape])
    return model.eval()


def _put(model: torch.nn.Module, key: str, weight: torch.Tensor) -> None:
    path, _, last = key.rpartition(".")
    setattr(model.get_submodule(path), last, torch.nn.Parameter(weight, requires_grad=False))


def _timed(work):  # noqa: ANN001, ANN202
    torch.cuda.synchronize()
    start = time.perf_counter()
    found = work()
    torch.cuda.synchronize()
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1], *(int(text) for text in sys.argv[2:6]))
