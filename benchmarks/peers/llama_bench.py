"""Time llama.cpp on a GGUF file, as its llama-batched-bench does: `python -m benchmarks.peers.llama_bench MODEL N PROMPT STEPS`.

It calls the shared libraries of a folder (LLAMA_CPP), so that nothing is compiled: those of the npm package
`@node-llama-cpp/linux-x64`, which has one for each kind of processor.  LLAMA_CPP_API is the folder of the Python package
`llama-cpp-py-sync`, whose declarations of llama.h are used.  LLAMA_CPP_REPACK=0 leaves weights as they are mapped.  Prints tokens per second of prefill and decode as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

LLAMA, API = Path(os.environ["LLAMA_CPP"]), Path(os.environ["LLAMA_CPP_API"])
MAX_BATCH = 2048
MMAP = 1  # llama_load_mode
THREADS = len(os.sched_getaffinity(0))


def library() -> tuple[Any, Any]:
    """The libraries, with the back end for this processor loaded."""
    spec = importlib.util.spec_from_file_location("declarations", API / "_cffi_bindings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ffi = module.ffi
    ffi.cdef("void ggml_backend_load_all_from_path(const char * path);")
    loaded = [
        ffi.dlopen(str(next(LLAMA.glob(f"{name}*.so"))), 0x102) for name in ("libggml-base", "libggml.v", "libllama.v")
    ]
    loaded[1].ggml_backend_load_all_from_path(str(LLAMA).encode())
    return ffi, loaded[2]


def measure(path: str, sequences: int, prompt_tokens: int, steps: int) -> dict[str, float]:
    """Prefill all prompts, then decode `steps` tokens of every sequence; the median of the steps."""
    ffi, llama = library()
    model_params, params = llama.llama_model_default_params(), llama.llama_context_default_params()
    if os.environ.get("LLAMA_CPP_REPACK") == "0":
        model_params.use_extra_bufts, model_params.load_mode = 0, MMAP
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    assert model != ffi.NULL, f"{path} cannot be loaded"
    params.n_ctx = sequences * 256
    params.n_batch, params.n_ubatch, params.n_seq_max = MAX_BATCH, 512, sequences
    params.n_threads = params.n_threads_batch = THREADS
    context = llama.llama_init_from_model(model, params)
    assert context != ffi.NULL, f"{path}: no context"
    batch = llama.llama_batch_init(max(MAX_BATCH, sequences), 0, 1)

    def decode(tokens: list[tuple[int, int, int]]) -> None:  # sequence, position, whether logits are wanted
        batch.n_tokens = len(tokens)
        for row, (sequence, position, wanted) in enumerate(tokens):
            batch.token[row], batch.pos[row] = (7 * row + position) % 256, position
            batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, sequence, wanted
        assert llama.llama_decode(context, batch) == 0
        llama.llama_synchronize(context)

    decode([(0, position, 1) for position in range(16)])  # warm up
    llama.llama_memory_clear(llama.llama_get_memory(context), 1)
    prompts = [
        (sequence, position, position == prompt_tokens - 1)
        for sequence in range(sequences)
        for position in range(prompt_tokens)
    ]
    start = time.perf_counter()
    for begin in range(0, len(prompts), MAX_BATCH):
        decode(prompts[begin : begin + MAX_BATCH])
    prefill_s = time.perf_counter() - start
    steps_s = []
    for step in range(steps):
        start = time.perf_counter()
        decode([(sequence, prompt_tokens + step, 1) for sequence in range(sequences)])
        steps_s.append(time.perf_counter() - start)
    return {"prefill": len(prompts) / prefill_s, "decode": sequences / statistics.median(steps_s)}


if __name__ == "__main__":
    found = measure(sys.argv[1], *(int(number) for number in sys.argv[2:5]))
    print(json.dumps(found))
