"""Every format that the program reads: whole examples of it, and the real reader."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from rotary_batch import commands
from rotary_batch.commands import docs
from rotary_batch.commands.answer_rows import open_answers
from rotary_batch.commands.database import reading
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import EXPERT_FORMATS, Settings, user_values
from rotary_batch.core import FileClass, SourceFile
from rotary_batch.engine.packs.checkpoint import open_checkpoint
from rotary_batch.engine.packs.quantised.decoding import quantised_parts
from rotary_batch.engine.packs.quantised.expert import stored_alone
from rotary_batch.engine.packs.quantised.method import read_method
from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.errors import ModelError
from rotary_batch.jobs import load_job
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.rates import Rates, cached_rates, rates_path
from rotary_batch.model.tables import Table, read_object
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.pages import front
from rotary_batch.prompts import load_prompts
from rotary_batch.repo.files import classify
from rotary_batch.repo.folder import object_id
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.parse import parse_file
from rotary_batch.testing import ByteCounter, FakeEngine, write_tiny_checkpoint
from tests.engine.gguf_files import ARCHITECTURE, raw, string
from tests.engine.quantised import Random, written

RATES = Rates(
    machine="m",
    device="cpu",
    device_memory_nbytes=10**9,
    activation_nbytes=2,
    move_nbytes_per_s=1e9,
    disk_nbytes_per_s=1e9,
    memory_nbytes_per_s=1e10,
    attention_nbytes_per_s={"bf16": 1e10, "int8": 1e10},
    weight_s={name: [(1, 1e-9), (512, 1e-8)] for name in EXPERT_FORMATS},
    measured_at=1e9,
    probed_at=1e9,
)
GOLDEN = Path(__file__).parents[1] / "repo" / "golden"
SOURCES = {
    language: next(file for file in sorted((GOLDEN / language).iterdir()) if file.name != "expected.txt")
    for language in LANGUAGES
}
ROTARY_TOML = (
    b'model = "m"\nworktree = true\ndevice_memory = "22GB"\nlink_template = "https://h/{path}#L{start}-L{end}"\nout = "docs/api"\n',
    b'job = "summarize"\nnumerics = "exact"\nmax_batch = 4\ndb = "work.db"\nkv = "int8"\n',
)
REQUESTS = (
    b'{"custom_id": "1", "body": {"prompt": "hello", "max_tokens": 3}}\n',
    b'{"custom_id": "2", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}]}}\n{"custom_id": "3", "body": {"prompt": "x"}}\n',
)
ANSWERS = (
    b'{"id": "r", "custom_id": "a", "response": {"status_code": 200, "body": {"model": "m", "choices": [{"index": 0, "text": "Adds.", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.5, null]}}]}}, "error": null}\n{"custom_id": "b", "error": {"message": "no"}}\n',
    b'{"custom_id": "c", "response": {"status_code": 500, "body": {"error": {"message": "x"}}}}\n{"custom_id": "d", "response": {"body": {"choices": [{"message": {"content": "Adds."}, "finish_reason": "length", "mean_logprob": -1}]}}}',
)
IGNORES = (b"*.py\n!a.py\n/src/**\n# c\n\\#x\n[a-z]?.js\n**/b/*\n", b"build/\n*~\n", b"a*a*a*\n[!a-\n")
QUANTISATIONS = tuple(
    json.dumps({"quantization_config": values}).encode()
    for values in (
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": False, "desc_act": True, "dynamic": {"-:a": {}}},
        {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"},
        {"quant_method": "fp8", "weight_block_size": [16, 16]},
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {
                "group_0": {"weights": {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 16}},
                "group_1": {
                    "weights": {"type": "float", "num_bits": 8, "strategy": "block", "block_structure": "16x16"}
                },
            },
        },
    )
)
TREE_NAMES = (
    b"a.py",
    b"README.md",
    b"src",
    b"caf\xc3\xa9.py",
    b"-x.py",
    b"a b.js",
    b"index.md",
    b".gitattributes",
    b"x.rotary-tmp",
)


class Format(NamedTuple):
    """`read` gets the path of a damaged file."""

    seeds: Sequence[bytes]
    name: str  # of the file
    read: Callable[[Path], None]


def formats(folder: Path) -> dict[str, Format]:
    """All of them, in folders of their own below `folder`."""
    model = write_tiny_checkpoint(folder / "model")
    tokenizer, pack = Tokenizer.load(model), folder / "pack"
    shutil.copytree(EMBEDDED, pack)
    found = {
        f"source {name}": Format([file.read_bytes()], file.name, _source(name, tokenizer))
        for name, file in SOURCES.items()
    }
    bundled = Path(__file__).parent.parent.parent
    return found | {
        "rotary.toml": Format(ROTARY_TOML, "rotary.toml", _settings),
        "job": Format(
            [(bundled / "jobs" / "summarize.toml").read_bytes()], "summarize.toml", lambda path: _use(load_job(path))
        ),
        "prompt": Format(
            [path.read_bytes() for path in sorted((bundled / "prompts").glob("*.md"))], "chunk.md", _prompt
        ),
        "requests": Format(REQUESTS, "in.jsonl", _requests(tokenizer)),
        "results": Format([_results(folder, tokenizer)], "out.jsonl", _resume(folder, tokenizer)),
        "answers": Format(ANSWERS, "answers.jsonl", _answers),
        "config.json": Format([(model / "config.json").read_bytes()], "config.json", _beside(model, open_checkpoint)),
        "quantization_config": Format(QUANTISATIONS, "config.json", _quantised(folder)),
        "manifest.json": Format(
            [(EMBEDDED / "manifest.json").read_bytes()], "manifest.json", _beside(pack, Manifest.load)
        ),
        "tokenizer_config.json": Format(
            [(model / "tokenizer_config.json").read_bytes()], "tokenizer_config.json", _beside(model, Tokenizer.load)
        ),
        "tokenizer.json": Format([(model / "tokenizer.json").read_bytes()], "tokenizer.json", _beside(model, _encode)),
        "safetensors": Format([_small_safetensors()], "model.safetensors", read_header),
        "gguf": Format([_small_gguf()], "model.gguf", lambda path: _use(open_checkpoint(path))),
        "shard index": Format(
            [b'{"weight_map": {"a": "model.safetensors", "b": "b.safetensors"}}'],
            "model.safetensors.index.json",
            _beside(model, open_checkpoint),
        ),
        "rates": Format(
            [json.dumps(RATES.as_dict()).encode()],
            rates_path("cpu", Path()).name,
            lambda path: _use(cached_rates("cpu", path.parent)),
        ),
        "ignore file": Format(IGNORES, ".gitignore", _ignore(folder / "ignoring")),
        "database": Format([_database(folder)], "work.db", _status),
        "page": Format(
            [front.seal({"title": "T"}, [{"path": "a.py", "blob": object_id(b"x = 1\n")}], "# T\n\nText.\n")],
            "a.py.md",
            _page(folder / "paged"),
        ),
    }


def _use(_value: object) -> None:
    """What was read is of no interest here."""


def _source(language: str, tokenizer: Tokenizer) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        data = path.read_bytes()
        file = SourceFile(
            path=path.name, blob="0" * 40, nbytes=len(data), language=language, file_class=FileClass.SOURCE, reason=""
        )
        parsed = parse_file(file, data, 240, ByteCounter())
        spans = [(chunk.start_byte, chunk.end_byte) for chunk in parsed.chunks]
        assert b"".join(data[start:end] for start, end in spans) == data, "chunks are not the file"
        assert all(0 <= s.start_byte <= s.end_byte <= len(data) for s in parsed.symbols)

    return read


def _settings(path: Path) -> None:
    user_values(flags={}, environment={}, folders=[], config=path)
    user_values(flags={}, environment={}, folders=[path.parent], config=None)


def _prompt(path: Path) -> None:
    prompts = load_prompts(path.parent)
    for prompt in prompts.values():
        prompt.fill(dict.fromkeys(prompt.variables | {"text"}, "</s> $x ${y}"))


def _requests(tokenizer: Tokenizer) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        commands.generate.generate(path, path.with_name("new.jsonl"), tokenizer, FakeEngine, lambda _done, _total: None)
        path.with_name("new.jsonl").unlink(missing_ok=True)

    return read


def _answers(path: Path) -> None:
    answers = open_answers([path])
    for custom_id in answers.places:
        answers.read(custom_id)


def _results(folder: Path, tokenizer: Tokenizer) -> bytes:
    (folder / "in.jsonl").write_bytes(b"".join(REQUESTS))
    commands.generate.generate(
        folder / "in.jsonl", folder / "out.jsonl", tokenizer, FakeEngine, lambda _done, _total: None
    )
    return (folder / "out.jsonl").read_bytes()


def _resume(folder: Path, tokenizer: Tokenizer) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        before = path.read_bytes()
        try:
            commands.generate.generate(folder / "in.jsonl", path, tokenizer, FakeEngine, lambda _done, _total: None)
        except Exception:
            assert path.read_bytes() == before, "a file that was refused was changed"
            raise

    return read


def _beside(whole: Path, load: Callable[[Path], object]) -> Callable[[Path], None]:
    """The damaged file among the whole ones of a model."""

    def read(path: Path) -> None:
        for other in whole.iterdir():
            if not (path.parent / other.name).exists():
                os.link(other, path.parent / other.name)
        load(path.parent)

    return read


def _quantised(folder: Path) -> Callable[[Path], None]:
    """A module of each method, read as a damaged config says."""
    one, symmetric = Random((16, 32), 16), Random((16, 32), 16, is_symmetric=True)
    floats = {"fp8.weight": torch.ones(16, 32).to(torch.float8_e4m3fn), "fp8.weight_scale_inv": torch.ones(1, 2)}
    modules = {"gptq": one.gptq("gptq"), "awq": one.awq("awq"), "packed": symmetric.packed("packed"), "fp8": floats}
    tensors = written(folder / "quantised.safetensors", {k: v for own in modules.values() for k, v in own.items()})

    def read(path: Path) -> None:
        config = Table(read_object(path, 2**20, "fetch it"), path, "fetch it")
        method = read_method(path.parent, config, tensors)
        if method is None:
            raise ModelError(f"{path}: says nothing of the quantised tensors beside it")
        refused = []
        for name in modules:  # each config is of one of them; the others contradict it
            try:
                if matrix := method.matrix(tensors, name, (16, 32)):
                    quantised_parts([matrix], stored_alone(matrix))
            except ModelError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    return read


def _encode(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    tokenizer.decode(tokenizer.encode("def f(a): return '</s>'"))


def _small_safetensors() -> bytes:
    rows = {
        name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12 * n, 12 * n + 12]} for n, name in enumerate("abc")
    }
    text = json.dumps(rows).encode()
    return struct.pack("<Q", len(text)) + text + bytes(36)


def _small_gguf() -> bytes:
    wholes = {"block_count": 1, "embedding_length": 32, "context_length": 64, "feed_forward_length": 32}
    wholes |= {"attention.head_count": 2, "attention.head_count_kv": 1}
    tokens = b"".join(string(token) for token in ("a", "b", "caf\xe9"))
    keys = [ARCHITECTURE, *((f"llama.{name}", 4, struct.pack("<I", number)) for name, number in wholes.items())]
    keys += [
        ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        ("tokenizer.ggml.add_bos", 7, b"\1"),
    ]
    keys += [("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + tokens)]
    keys += [
        ("tokenizer.ggml.scores", 9, struct.pack("<IQ3f", 6, 3, 0, 1, 2)),
        ("split.count", 2, struct.pack("<H", 1)),
    ]
    shapes = {"token_embd.weight": (32, 3), "output_norm.weight": (32,), "rope_freqs.weight": (8,)}
    shapes |= {f"blk.0.{name}_norm.weight": (32,) for name in ("attn", "ffn")}
    shapes |= {f"blk.0.{name}.weight": (32, 32) for name in ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    shapes |= {f"blk.0.attn_{name}.weight": (32, 16) for name in "kv"}
    rows, end = [], 0
    for name, shape in shapes.items():
        kind, nbytes = (8, 34 * shape[1]) if len(shape) == 2 else (0, 4 * shape[0])  # Q8_0, F32
        rows.append((name, shape, kind, end))
        end += -(-nbytes // 32) * 32
    return raw(keys, rows, bytes(end))


def _ignore(root: Path) -> Callable[[Path], None]:
    for name in ("a.py", "src/b/c.js", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")

    def read(path: Path) -> None:
        shutil.copyfile(path, root / ".gitignore")
        shutil.copyfile(path, root / ".rotaryignore")
        classify(open_repository(root, worktree=True), docs_dir="rotary-docs")

    return read


def _database(folder: Path) -> bytes:
    from rotary_batch.work.connection import open_database
    from rotary_batch.work.schema import migrate

    db = open_database(folder / "whole.db", journal_mode="delete")
    migrate(db)
    db.close()
    return (folder / "whole.db").read_bytes()


def _status(path: Path) -> None:
    settings = Settings(db=path)
    try:
        with reading(settings) as store:
            commands.status.status(store, settings, [])
    finally:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _page(root: Path) -> Callable[[Path], None]:
    docs_folder = root / "rotary-docs"
    docs_folder.mkdir(parents=True)
    (root / "a.py").write_text("x = 1\n")

    def read(path: Path) -> None:
        data = path.read_bytes()
        front.read(data)
        assert front.read(front.mark_human(data)).is_human
        (docs_folder / "a.py.md").write_bytes(data)
        docs.check(Settings(worktree=True), root)

    return read


def odd_tree(root: Path, names: Sequence[bytes]) -> None:
    """A commit whose tree holds these names, whatever git thinks of them."""
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    blob = _git(root, b"x = 1\n", "hash-object", "-w", "--stdin")
    modes = (b"100644", b"100755", b"120000", b"160000", b"40000")
    empty = _git(root, b"", "hash-object", "-t", "tree", "-w", "--stdin")
    rows = {}
    for number, name in enumerate(names):
        clean = name.replace(b"\0", b"").replace(b"/", b"")[:200]
        if clean:
            mode = modes[number % 7] if number % 7 < len(modes) else modes[0]
            rows[clean] = mode + b" " + clean + b"\0" + bytes.fromhex(empty if mode == b"40000" else blob)
    data = b"".join(rows[name] for name in sorted(rows))
    tree = _git(root, data, "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    commit = _git(root, b"", "commit-tree", "-m", "x", tree)
    _git(root, b"", "update-ref", "HEAD", commit)


def _git(root: Path, data: bytes, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()
