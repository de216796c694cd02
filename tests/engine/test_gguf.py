"""GGUF files: whatever the reference writer writes is read whole, and whatever is wrong with one is said."""

from __future__ import annotations

import os
import shutil
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

from rotary_batch.engine.packs.gguf import gguf_at, read_gguf
from rotary_batch.engine.packs.tensors import TensorPlace, pieces
from rotary_batch.errors import ModelError
from rotary_batch.model.ggml_types import BLOCK_TYPES
from tests.engine.gguf_files import ARCHITECTURE, blocks, raw, string, write_gguf
from tests.model.gguf_keys import smollm2_path


def read_bytes(place: TensorPlace) -> bytes:
    return b"".join(bytes(piece) for piece in pieces(place))


def small(path: Path, num_tensors: int = 3, **options: int) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    tensors = {f"t{number}": rng.random((number + 2, 32), np.float32) for number in range(num_tensors)}
    return write_gguf(path, "llama", {"block_count": 2}, tensors, {"t1": "Q8_0"}, **options), tensors


def test_every_type_of_key_and_tensor(tmp_path):
    rng = np.random.default_rng(0)
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    numbers = {"UINT8": 255, "INT8": -7, "UINT16": 65535, "INT16": -300, "UINT32": 2**32 - 1, "INT32": -5}
    numbers |= {"UINT64": 2**64 - 1, "INT64": -(2**63), "FLOAT32": 0.5, "FLOAT64": 0.1, "BOOL": True, "STRING": "héé\0"}
    arrays = {"a.strings": ["a", "", "日本"], "a.wholes": [1, -2, 3], "a.floats": [0.5, 2.0], "a.bools": [True, False]}
    for kind, value in numbers.items():
        writer.add_key_value(f"k.{kind}", value, GGUFValueType[kind])
    for name, values in arrays.items():
        writer.add_array(name, values)
    stored = {name: blocks(name, (3, 2, 256), rng) for name in BLOCK_TYPES}
    for name, data in stored.items():
        writer.add_tensor(f"t.{name}", data, raw_dtype=GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found = read_gguf(tmp_path / "a.gguf")

    expected = {"general.architecture": "llama", **{f"k.{kind}": value for kind, value in numbers.items()}, **arrays}
    assert found.keys == expected
    assert [type(value) for value in found.keys.values()] == [type(value) for value in expected.values()]
    assert {name: (place.dtype, place.shape, read_bytes(place)) for name, place in found.tensors.items()} == {
        f"t.{name}": (name, (3, 2, 256), data.tobytes()) for name, data in stored.items()
    }


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_alignment(tmp_path, alignment):
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(alignment)
    for number in range(3):
        writer.add_tensor(f"t{number}", np.full(number + 1, number, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    places = read_gguf(tmp_path / "a.gguf").tensors
    assert [np.frombuffer(read_bytes(place), np.float32).tolist() for place in places.values()] == [
        [0],
        [1, 1],
        [2] * 3,
    ]
    assert all(place.offset % alignment == 0 for place in places.values())


def test_version_2_is_read_as_3_is(tmp_path):
    path, _ = small(tmp_path / "a.gguf")
    tensors = read_gguf(path).tensors
    with path.open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 2))
    assert read_gguf(path).tensors == tensors


@pytest.mark.parametrize("given", [1, 2, 3])
def test_any_part_of_a_split_file_leads_to_all(tmp_path, given):
    _, tensors = small(tmp_path / "a.gguf", 5, split_max_tensors=2)
    found = read_gguf(tmp_path / f"a-{given:05}-of-00003.gguf")
    assert found.path == tmp_path / "a-00001-of-00003.gguf"
    assert found.keys["llama.block_count"] == 2
    assert {name: place.path.name[2:7] for name, place in found.tensors.items()} == {
        "t0": "00001", "t1": "00001", "t2": "00002", "t3": "00002", "t4": "00003"
    }  # fmt: skip
    for name in ("t0", "t2", "t4"):
        assert read_bytes(found.tensors[name]) == tensors[name].tobytes()


def test_a_missing_part_is_named(tmp_path):
    small(tmp_path / "a.gguf", 5, split_max_tensors=2)
    (tmp_path / "a-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelError, match=r"a-00002-of-00003\.gguf: part 2 of 3 is missing; fetch it"):
        read_gguf(tmp_path / "a-00003-of-00003.gguf")


def test_parts_under_wrong_names(tmp_path):
    small(tmp_path / "a.gguf", 5, split_max_tensors=2)
    first, second = tmp_path / "a-00001-of-00003.gguf", tmp_path / "a-00002-of-00003.gguf"
    shutil.copyfile(first, second)
    with pytest.raises(
        ModelError, match=r"00002-of-00003\.gguf: says that it is part 1 of 3, its name that it is part 2 of 3"
    ):
        read_gguf(first)
    first.rename(tmp_path / "b.gguf")
    with pytest.raises(ModelError, match=r"b\.gguf: one of 3 parts, but not named NAME-00001-of-00003\.gguf"):
        read_gguf(tmp_path / "b.gguf")


def test_a_vocabulary_of_150_000_tokens_opens_at_once(tmp_path):
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_token_list([f"token{number}" for number in range(150_000)])
    writer.add_token_merges([f"a{number} b" for number in range(150_000)])
    writer.add_token_scores([float(number) for number in range(150_000)])
    writer.add_tensor("t", np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    begin = time.process_time()
    keys = read_gguf(tmp_path / "a.gguf").keys
    assert time.process_time() - begin < 6  # 0.2 to 1 s
    assert keys["tokenizer.ggml.tokens"][149_999] == "token149999"
    assert keys["tokenizer.ggml.scores"][149_999] == 149_999.0


def test_the_model_in_a_folder(tmp_path):
    assert gguf_at(tmp_path) is None
    small(tmp_path / "a.gguf", 5, split_max_tensors=2)
    (tmp_path / "mmproj-F16.gguf").touch()
    assert gguf_at(tmp_path) == tmp_path / "a-00001-of-00003.gguf"
    (tmp_path / "b.gguf").touch()
    assert gguf_at(tmp_path / "b.gguf") == tmp_path / "b.gguf"
    with pytest.raises(ModelError, match=r"2 models, such as a-00001-of-00003\.gguf and b\.gguf; name one"):
        gguf_at(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert gguf_at(tmp_path) is None


def test_smollm2_is_open_within_a_second():
    path = smollm2_path()
    begin = time.process_time()
    found = read_gguf(path)
    assert time.process_time() - begin < 6  # 0.2 to 1 s
    assert len(found.tensors) == 272
    assert (len(found.keys["tokenizer.ggml.tokens"]), found.keys["llama.block_count"]) == (49_152, 30)
    last = max(found.tensors.values(), key=lambda place: place.end)
    assert last.end <= found.path.stat().st_size < last.end + 32


U32, F32, BOOL, TEXT, ARRAY = 4, 6, 7, 8, 9
HUGE = 2**60
ROW = ("t", (32,), 0, 0)
DATA = bytes(4096)
BAD = {
    "magic": (raw(magic=b"PK\3\4"), r"not a GGUF file: it begins with .*fetch"),
    "version 1": (raw(version=struct.pack("<I", 1)), r"GGUF version 1; versions 2 and 3"),
    "version 4": (raw(version=struct.pack("<I", 4)), r"GGUF version 4; "),
    "big endian": (raw(version=struct.pack(">I", 3)), r"a big-endian GGUF file; fetch the little-endian one"),
    "empty": (b"", r"truncated"),
    "key count": (raw(num_keys=HUGE), r"claims 1,152,921,504,606,846,976 keys, more than the file has room for"),
    "tensor count": (raw([ARCHITECTURE], num_tensors=HUGE), r"claims .* tensors, more than"),
    "key length": (raw([(b"k", U32, b"")], num_keys=1)[:24] + struct.pack("<Q", HUGE) + DATA, r"key 1 of 1 needs"),
    "long name": (raw([("k" * 300, U32, bytes(4))]), r"key 1 of 1 has a name of 300 characters"),
    "string length": (raw([("k", TEXT, struct.pack("<Q", HUGE))], data=DATA), r'key "k" needs 1,152.*truncated'),
    "array length": (raw([("k", ARRAY, struct.pack("<IQ", U32, HUGE))], data=DATA), r'key "k" is an array of 1,152'),
    "array too short": (raw([("k", ARRAY, struct.pack("<IQ", U32, 2**21))], data=DATA), r'key "k" needs 8,388,608 bytes'),
    "array of strings": (raw([("k", ARRAY, struct.pack("<IQ", TEXT, 2**21))], data=DATA), r"2,097,152 strings, more"),
    "nested array": (raw([("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(20))]), r'key "k" is an array of arrays'),
    "key type": (raw([("k", 13, bytes(8))]), r'key "k" is of type 13, which does not exist'),
    "element type": (raw([("k", ARRAY, struct.pack("<IQ", 99, 1) + bytes(8))]), r'key "k" is of type 99'),
    "bool": (raw([("k", BOOL, b"\2")]), r'key "k" is 2, not true or false'),
    "utf-8": (raw([("k", TEXT, string(b"\xff\xfe"))]), r'key "k" holds a string that is not UTF-8'),
    "utf-8 in a list": (raw([("k", ARRAY, struct.pack("<IQ", TEXT, 1) + string(b"\xc3("))]), r'key "k" holds a string'),
    "key twice": (raw([ARCHITECTURE, ARCHITECTURE]), r'has the name "general.architecture", which an earlier one has'),
    "alignment": (raw([("general.alignment", U32, struct.pack("<I", 24))], [ROW], DATA), r'"general.alignment" is 24, not'),
    "alignment 0": (raw([("general.alignment", U32, bytes(4))], [ROW], DATA), r'"general.alignment" is 0, not'),
    "alignment float": (raw([("general.alignment", F32, bytes(4))], [ROW], DATA), r'"general.alignment" is 0.0, not'),
    "tensor twice": (raw([], [ROW, ROW], DATA), r'tensor 2 of 2 has the name "t"'),
    "tensor name": (raw([], [("", (1,), 0, 0)], DATA), r"tensor 1 of 1 has a name of 0 characters"),
    "dimensions": (raw([], [("t", (1,) * 5, 0, 0)], DATA), r'tensor "t" has 5 dimensions, not 1 to 4'),
    "no dimension": (raw([], [("t", (), 0, 0)], DATA), r'tensor "t" has 0 dimensions'),
    "absurd dimensions": (raw([], [("t", (HUGE, HUGE), 0, 0)], DATA), r'tensor "t" ends at byte .*truncated'),
    "dimension 0": (raw([], [("t", (32, 0), 0, 0)], DATA), r'tensor "t" has shape \[0, 32\]'),
    "unknown type": (raw([], [("t", (32,), 77, 0)], DATA), r'tensor "t" is of type 77 \(unknown\); types that are read: F32'),
    "unread type": (raw([], [("t", (256,), 16, 0)], DATA), r'tensor "t" is of type 16 \(IQ2_XXS\); types .*fetch the model in one'),
    "part of a block": (raw([], [("t", (48,), 8, 0)], DATA), r"rows of 48, not whole blocks of 32 \(Q8_0\)"),
    "misaligned": (raw([], [("t", (2,), 0, 8)], DATA), r'tensor "t" begins at byte .*, not at a multiple of 32'),
    "past the end": (raw([], [("t", (32,), 0, 4096)], DATA), r'tensor "t" ends at byte 4,\d+ of 4,\d+: the file is truncated'),
    "offset": (raw([], [("t", (32,), 0, HUGE)], DATA), r'tensor "t" ends at byte'),
    "overlap": (raw([], [("a", (32,), 0, 0), ("b", (32,), 0, 96)], DATA), r'tensor "a" overlaps tensor "b"'),
    "no tensors": (raw([ARCHITECTURE]), r"holds no tensors, only a vocabulary"),
    "adapter": (raw([("general.type", TEXT, string("adapter"))], [ROW], DATA), r"a LoRA adapter, not a model"),
    "vision": (raw([("general.architecture", TEXT, string("clip"))], [ROW], DATA), r"the vision part of a model; name"),
    "split count": (raw([("split.count", U32, struct.pack("<I", 2**31))], [ROW], DATA), r'"split.count" is 2147483648'),
    "split text": (raw([("split.count", TEXT, string("2"))], [ROW], DATA), r'"split.count" is "2"'),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_before_anything_is_allocated(tmp_path, case):
    data, message = BAD[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"(?s)bad\.gguf: .*" + message):
        read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20


def test_a_file_that_ends_early_anywhere(tmp_path):
    path, _ = small(tmp_path / "a.gguf")
    whole = path.read_bytes()
    end = max(place.end for place in read_gguf(path).tensors.values())
    for length in range(0, end, 7):
        os.truncate(path, length)
        with pytest.raises(ModelError, match=r"a\.gguf: .*; fetch the file again"):
            read_gguf(path)
        path.write_bytes(whole)


def test_what_is_no_file(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        read_gguf(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match=r"not a regular file|Is a directory"):
        read_gguf(tmp_path)
