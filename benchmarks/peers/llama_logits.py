"""Logits of llama.cpp at every position of some prompts: `python -m benchmarks.peers.llama_logits MODEL PROMPTS OUT [plain]`.

PROMPTS is a JSON file of texts.  OUT is a .npz of each prompt's `tokens_N` and its `logits_N` [tokens, vocabulary]
float32.  With `plain` keys and values are kept in float32 and attention is not fused; else llama.cpp does as it does
by itself.  The libraries are those of llama_bench.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.llama_bench import THREADS, library

F32, NOT_FUSED = 0, 0  # ggml_type, llama_flash_attn_type
MAX_TOKENS = 1024


class Llama:
    """A model of llama.cpp with room for one prompt."""

    def __init__(self, path: str, *, plain: bool) -> None:
        self._ffi, self._llama = library()
        self._model = self._llama.llama_model_load_from_file(path.encode(), self._llama.llama_model_default_params())
        assert self._model != self._ffi.NULL, f"{path} cannot be loaded"
        self._vocabulary = self._llama.llama_model_get_vocab(self._model)
        self._context = self._llama.llama_init_from_model(self._model, self._parameters(plain=plain))
        assert self._context != self._ffi.NULL, f"{path}: no context"

    def _parameters(self, *, plain: bool) -> Any:
        parameters = self._llama.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = MAX_TOKENS
        parameters.n_threads = parameters.n_threads_batch = THREADS
        if plain:
            parameters.type_k = parameters.type_v = F32
            parameters.flash_attn_type = NOT_FUSED
        return parameters

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, whose control tokens are read as such; none is added."""
        data, ids = text.encode(), self._ffi.new(f"int32_t[{MAX_TOKENS}]")
        add_special, parse_special = 0, 1
        count = self._llama.llama_tokenize(
            self._vocabulary, data, len(data), ids, MAX_TOKENS, add_special, parse_special
        )
        assert 0 < count <= MAX_TOKENS, f"a prompt takes {count} tokens"
        return list(ids[0:count])

    def logits(self, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[tokens, vocabulary]."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), 1)
        batch = self._llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row], batch.logits[row] = token, row, 1
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
        assert self._llama.llama_decode(self._context, batch) == 0
        size = self._llama.llama_vocab_n_tokens(self._vocabulary)
        found = self._ffi.buffer(self._llama.llama_get_logits(self._context), len(tokens) * size * 4)
        self._llama.llama_batch_free(batch)
        return np.frombuffer(bytes(found), np.float32).reshape(len(tokens), size)


def main(model: str, prompts: str, out: str, *, plain: bool) -> None:
    """Write the logits of every prompt."""
    llama = Llama(model, plain=plain)
    found = {}
    for number, text in enumerate(json.loads(Path(prompts).read_text())):
        found[f"tokens_{number}"] = np.array(tokens := llama.tokens(text))
        found[f"logits_{number}"] = llama.logits(tokens)
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:4], plain=sys.argv[4:] == ["plain"])
