"""Whatever stands in the files of a model, it is a ModelError that names the file, before memory is taken for it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.pack import pack
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.testing import TINY_CONFIG, write_tiny_checkpoint

MAX_PEAK_NBYTES = 64 * 2**20
DEEP = "[" * 100_000 + "]" * 100_000


def refused(action, *words: str) -> str:
    """The message of the ModelError that `action` ends in; little memory is taken on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            action()
        assert tracemalloc.get_traced_memory()[1] < MAX_PEAK_NBYTES
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\x1b" not in message
    assert len(message) < 1000
    return message


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "hf"))


@pytest.fixture
def a_pack(tiny_pack, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_pack, tmp_path / "pack"))


SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_local_experts",
    "num_experts_per_tok",
    "vocab_size",
    "max_position_embeddings",
)
WRONG_SIZES = ("0", "-1", "1000000000", "1" + "0" * 400, "2.0", '"2"', "true", "[2]", "{}", "NaN", "Infinity", "1e999")


@pytest.mark.parametrize("name", SIZES)
def test_every_size_of_a_config_is_a_whole_number_in_its_range(checkpoint, name):
    for value in (*WRONG_SIZES, "null", None):
        if name == "vocab_size" and value == "1000000000":
            continue  # in range for its checks of shape
        table = {key: json.dumps(found) for key, found in TINY_CONFIG.items()} | {name: value}
        text = ", ".join(f'"{key}": {found}' for key, found in table.items() if found is not None)
        (checkpoint / "config.json").write_text("{" + text + "}")
        refused(lambda: pack(checkpoint, checkpoint.parent / "pack"), "config.json", name)
    assert not (checkpoint.parent / "pack").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"type": "sideways", "factor": 2}}, "rope type"),
        ({"rope_scaling": {"rope_type": 7}}, "rope_type"),
        ({"rope_parameters": "default"}, "rope_parameters"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": "1e6"}, "rope_theta"),
        ({"rope_theta": [1]}, "rope_theta"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"torch_dtype": "float8"}, "dtype"),
        ({"torch_dtype": 16}, "dtype"),
        ({"dtype": ["bfloat16"]}, "dtype"),
        ({"head_dim": 0}, "head_dim"),
        ({"head_dim": 7}, "head_dim"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"num_key_value_heads": 3}, "key/value heads"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "multiple"),
        ({"num_experts_per_tok": 5}, "5 of 4 experts"),
        ({"num_hidden_layers": 4096, "num_local_experts": 4096}, "experts"),
        ({"sliding_window": "all"}, "sliding_window"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"eos_token_id": [1, None]}, "eos_token_id"),
        ({"eos_token_id": -1}, "eos_token_id"),
        ({"architectures": [1], "model_type": None}, "architecture"),
        ({"architectures": 5}, "architectures"),
        ({"architectures": [], "model_type": "mamba"}, "architecture"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_what_else_a_config_may_say(checkpoint, changes, word):
    (checkpoint / "config.json").write_text(json.dumps(TINY_CONFIG | changes))
    refused(lambda: pack(checkpoint, checkpoint.parent / "pack"), "config.json", word)


NO_JSON = {
    "empty": b"",
    "cut": b'{"hidden_size": 3',
    "a list": b"[1]",
    "a number": b"7",
    "deep": DEEP.encode(),
    "deep objects": b'{"a":' * 100_000,
    "not UTF-8": b'{"\xff": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a bomb of digits": b'{"hidden_size": ' + b"9" * 900_000 + b"}",
    "an escape": b'\x1b]0;owned\x07{"a": 1}',
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_files_that_are_no_json(checkpoint, a_pack, kind):
    for path, action in (
        (checkpoint / "config.json", lambda: pack(checkpoint, checkpoint.parent / "new")),
        (checkpoint / "tokenizer_config.json", lambda: Tokenizer.load(checkpoint)),
        (checkpoint / "tokenizer.json", lambda: Tokenizer.load(checkpoint)),
        (a_pack / "manifest.json", lambda: Manifest.load(a_pack)),
    ):
        before = path.read_bytes()
        path.write_bytes(NO_JSON[kind])
        refused(action, path.name)
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop", "dangling", "unreadable", "absent"])
def test_what_stands_in_the_place_of_a_file(checkpoint, name, kind):
    path = checkpoint / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to(checkpoint / "nothing")
        case "unreadable":
            path.symlink_to("/proc/self/mem")
    refused(lambda: pack(checkpoint, checkpoint.parent / "pack"), name)


def header(**rows: object) -> bytes:
    return json.dumps(rows).encode()


def tensor(begin: object = 0, end: object = 4, shape: object = (2,), dtype: object = "BF16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD_HEADERS = {
    "no row": (header(a=7), "tensor"),
    "empty row": (header(a={}), "missing"),
    "begins behind": (header(a=tensor(4, 0)), "[4, 0]"),
    "negative": (header(a=tensor(-4, 0)), "data_offsets"),
    "huge": (header(a=tensor(0, 2**62, [2**61])), "shape"),
    "floats": (header(a=tensor(0.0, 4.0)), "data_offsets"),
    "bool": (header(a=tensor(False, 4)), "data_offsets"),
    "shape text": (header(a=tensor(shape="2")), "shape"),
    "shape negative": (header(a=tensor(shape=[-2])), "shape"),
    "many dimensions": (header(a=tensor(shape=[1] * 10_000)), "shape"),
    "wrong size": (header(a=tensor(shape=[3])), "not [3]"),
    "type": (header(a=tensor(dtype="F8")), "type"),
    "type list": (header(a=tensor(dtype=["BF16"])), "dtype"),
    "out of file": (header(a=tensor(0, 2**40, [2**39])), "truncated"),
    "deep": (DEEP.encode(), "JSON"),
    "overlap": (header(a=tensor(0, 4), b=tensor(2, 6)), "overlap"),
    "one offset": (header(a=tensor() | {"data_offsets": [0]}), "bytes"),
    "an escape": (header(**{"\x1b[2J": tensor(shape=[3])}), "not [3]"),
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_damaged_headers_of_safetensors(checkpoint, a_pack, kind):
    text, words = BAD_HEADERS[kind]
    data = struct.pack("<Q", len(text)) + text + bytes(64)
    (checkpoint / "model.safetensors").write_bytes(data)
    refused(lambda: pack(checkpoint, checkpoint.parent / "new"), "model.safetensors", words)
    (a_pack / "dense.safetensors").write_bytes(data)
    refused(lambda: open_engine(a_pack), "dense.safetensors", words)


@pytest.mark.parametrize("length", [0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("size", [0, 3, 8, 64])
def test_lengths_of_headers_that_the_file_does_not_have(checkpoint, length, size):
    (checkpoint / "model.safetensors").write_bytes((struct.pack("<Q", length) + bytes(64))[:size])
    refused(lambda: pack(checkpoint, checkpoint.parent / "new"), "model.safetensors")


@pytest.mark.parametrize(
    "names",
    [
        ["../config.json"],
        ["/etc/passwd"],
        [".."],
        [""],
        ["a\0b"],
        ["\x1b[2J.safetensors"],
        [7],
        [None],
        [["a"]],
        "text",
        5,
        ["missing.safetensors"],
        ["a" * 5000],
    ],
)
def test_names_of_shards_stay_in_the_folder(checkpoint, names):
    table = dict(enumerate(names)) if isinstance(names, list) else names
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    message = refused(lambda: pack(checkpoint, checkpoint.parent / "new"))
    assert "index.json" in message or "missing.safetensors" in message
    assert len(message) < 1000


def change(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def slabs(folder: Path) -> list[list]:
    return json.loads((folder / "manifest.json").read_text())["slabs"]


def geometry(folder: Path, **changes: object) -> dict:
    return json.loads((folder / "manifest.json").read_text())["geometry"] | changes


BAD_MANIFESTS = {
    "empty slabs": lambda folder: {"slabs": []},
    "no list": lambda folder: {"slabs": {}},
    "missing expert": lambda folder: {"slabs": slabs(folder)[:-1]},
    "one too many": lambda folder: {"slabs": [*slabs(folder), [9, 9, *slabs(folder)[0][2:]]]},
    "short row": lambda folder: {"slabs": [row[:4] for row in slabs(folder)]},
    "no rows": lambda folder: {"slabs": [1, 2]},
    "negative offset": lambda folder: {"slabs": [[a, b, -4096, n, d] for a, b, _, n, d in slabs(folder)]},
    "off the page": lambda folder: {"slabs": [[a, b, o + 1, n, d] for a, b, o, n, d in slabs(folder)]},
    "overlapping": lambda folder: {"slabs": [[a, b, (o // 8) & ~4095, n, d] for a, b, o, n, d in slabs(folder)]},
    "long slab": lambda folder: {"slabs": [[a, b, o, 2**50, d] for a, b, o, n, d in slabs(folder)]},
    "empty slab": lambda folder: {"slabs": [[a, b, o, 0, d] for a, b, o, n, d in slabs(folder)]},
    "no digest": lambda folder: {"slabs": [[a, b, o, n, "x"] for a, b, o, n, d in slabs(folder)]},
    "head_dim 0": lambda folder: {"geometry": geometry(folder, head_dim=0)},
    "no heads": lambda folder: {"geometry": geometry(folder, num_heads=0)},
    "many layers": lambda folder: {"geometry": geometry(folder, num_layers=10**9)},
    "no experts": lambda folder: {"geometry": geometry(folder, num_experts=0)},
    "other dtype": lambda folder: {"geometry": geometry(folder, dtype="F8")},
    "no geometry": lambda folder: {"geometry": None},
    "a list": lambda folder: {"geometry": [1]},
    "other format": lambda folder: {"format": "rotary-batch pack 99"},
    "format list": lambda folder: {"format": [1]},
    "other experts": lambda folder: {"experts": "int3"},
    "other layout": lambda folder: {"experts": "int8"},
    "dense digest": lambda folder: {"dense_sha256": None},
    "tokenizer digest": lambda folder: {"tokenizer_sha256": "abc"},
    "context": lambda folder: {"context_tokens": 0},
    "long context": lambda folder: {"context_tokens": 10**12},
    "chunk": lambda folder: {"chunk_tokens": -1},
    "logprob": lambda folder: {"min_mean_logprob": float("inf")},
    "name": lambda folder: {"name": ["x"]},
    "surrogate": lambda folder: {"name": "\ud800"},
    "demonstration": lambda folder: {"demonstration": "yes"},
    "dense": lambda folder: {"dense": "int2"},
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_damaged_manifests(a_pack, kind):
    change(a_pack, **BAD_MANIFESTS[kind](a_pack))
    refused(lambda: open_engine(a_pack), "manifest.json", "pack the model again")


def test_every_field_of_a_manifest_is_needed(a_pack):
    path = a_pack / "manifest.json"
    whole = json.loads(path.read_text())
    for name in whole.keys() - {"chunk_tokens", "numerics", "job", "min_mean_logprob"}:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        refused(lambda: Manifest.load(a_pack), "manifest.json", name)
    for name in whole["geometry"].keys() - {"sliding_window"}:
        table = {key: value for key, value in whole["geometry"].items() if key != name}
        path.write_text(json.dumps(whole | {"geometry": table}))
        refused(lambda: Manifest.load(a_pack), "manifest.json", name)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": 5},
        {"eos_token": ["</s>"]},
        {"eos_token": {"content": 1}},
        {"eos_token": {}},
        {"chat_template": 7},
        {"chat_template": [{"name": "default", "template": 3}]},
        {"chat_template": [{"name": 1}]},
        {"bos_token": "\ud800"},
    ],
)
def test_damaged_tokenizer_configs(checkpoint, config):
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    refused(lambda: Tokenizer.load(checkpoint), "tokenizer_config.json")


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{% for",
        "{{ messages[7].content }}",
        "{{ raise_exception('no') }}",
        "{{ nothing.at.all }}",
        "no message",
        "{{ messages[0].content }}{{ messages[0].content }}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ 'a' + 1 }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ range(10**9)|list }}",
    ],
)
def test_templates_that_break(checkpoint, template):
    (checkpoint / "chat_template.jinja").write_text(template)
    refused(lambda: Tokenizer.load(checkpoint).encode_chat("hello"), "chat template")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"model": {}},
        {"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": [["x", "y"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
        {
            "model": {"type": "BPE", "vocab": {}, "merges": []},
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}},
        },
        {"version": 1, "model": None},
    ],
)
def test_damaged_tokenizers(checkpoint, table):
    (checkpoint / "tokenizer.json").write_text(json.dumps(table))
    refused(lambda: pack(checkpoint, checkpoint.parent / "new"), "tokenizer.json")
    assert not (checkpoint.parent / "new").exists()


def test_a_checkpoint_of_links_is_a_checkpoint(tiny_checkpoint, tiny_pack, tmp_path):
    """The cache of the hub is made of links into another folder."""
    folder = tmp_path / tiny_checkpoint.name
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    pack(folder, tmp_path / "pack")
    assert Manifest.load(tmp_path / "pack").weights_digest == Manifest.load(tiny_pack).weights_digest


def test_sizes_that_only_the_headers_refute_take_no_memory(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "hf")
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 4096}))
    refused(lambda: pack(folder, tmp_path / "pack"), "in none of its files")


@pytest.mark.parametrize("place", [(), ("rope_scaling",)])
def test_a_switch_of_a_later_version_is_refused(a_pack, place):
    """It decides the arithmetic: a model without it would write nonsense."""
    table = json.loads((a_pack / "manifest.json").read_text())
    part = table["geometry"]
    for name in place:
        part = part.setdefault(name, {})
    part["swirl"] = True
    (a_pack / "manifest.json").write_text(json.dumps(table))
    refused(lambda: Manifest.load(a_pack), "manifest.json", '"swirl" is a switch that this version does not have')
