"""`generate` looks before it writes, loses nothing, and says of each bad line what is wrong with it."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rotary_batch import jsonl
from rotary_batch.commands import requests
from rotary_batch.commands.generate import generate
from rotary_batch.commands.results import open_results
from rotary_batch.errors import BusyError, InputError, StorageError
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer
from rotary_batch.testing import FakeEngine

DRIVER = Path(__file__).parent / "faults" / "generate_driver.py"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    write_byte_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture
def answer(tokenizer, tmp_path):
    """Run generate over lines: (written, failed), and the rows of the output in order."""

    def run(*lines: bytes | dict, name: str = "out.jsonl") -> tuple[tuple[int, int], list[dict]]:
        source, target = tmp_path / "in.jsonl", tmp_path / name
        source.write_bytes(b"".join(line if isinstance(line, bytes) else dumped(line) for line in lines))
        counts = generate(source, target, tokenizer, lambda: FakeEngine(answer_tokens=3), lambda *_: None)
        return counts, rows_of(target)

    return run


def rows_of(target: Path) -> list[dict]:
    return [json.loads(line) for line in target.read_bytes().split(b"\n") if line] if target.exists() else []


def dumped(row: dict) -> bytes:
    return json.dumps(row).encode() + b"\n"


def request(custom_id: str, **body: object) -> dict:
    return {"custom_id": custom_id, "body": {"prompt": f"Say {custom_id}", **body}}


def fact_of(row: dict) -> str:
    assert row["response"] is None
    assert row["error"]["code"] == "invalid_request"
    return row["error"]["message"]


# What is in the file, and the error message for it.
BAD_LINES = {
    "no JSON": (b"hello", "not JSON at letter 1"),
    "a list": (b"[]", "not a JSON object"),
    "a number": (b"1", "not a JSON object"),
    "half an object": (b'{"custom_id": "a", "body"', "not JSON at letter"),
    "two objects": (b"{} {}", "not JSON at letter 4: Extra data"),
    "an infinite number": (
        b'{"custom_id": "a", "body": {"prompt": "x", "seed": 1e999}}',
        "the number 1e999 is too large",
    ),
    "5,000 digits": (b'{"custom_id": "a", "body": {"max_tokens": ' + b"9" * 5000 + b"}}", "a number of 5,000 digits"),
    "100,000 deep": (b"[" * 100_000, "nested too deeply"),
    "900 deep": (b'{"custom_id": "a", "body": {"prompt": ' + b"[" * 900 + b"]" * 900 + b"}}", ""),
    "objects by the thousand": (b'{"a":' * 50_000, "nested too deeply"),
    "half a pair": (b'{"custom_id": "a", "body": {"prompt": "x\\ud800"}}', "half of a surrogate pair"),
    "half a pair in an id": (b'{"custom_id": "\\udfff", "body": {"prompt": "x"}}', "half of a surrogate pair"),
    "half a pair as a key": (b'{"custom_id": "a", "\\ud800": 1}', "half of a surrogate pair"),
    "NaN": (b'{"custom_id": "a", "body": {"temperature": NaN}}', "NaN is not a number"),
    "minus infinity": (b'{"custom_id": "a", "body": {"temperature": -Infinity}}', "-Infinity is not a number"),
    "a key twice": (b'{"custom_id": "a", "custom_id": "b", "body": {"prompt": "x"}}', "'custom_id' appears twice"),
    "a zero byte": (b'{"custom_id": "a\0"}', "not JSON at letter"),
    "zero bytes": (b"\0" * 100, "not JSON at letter 1"),
    "no UTF-8": (b'{"custom_id": "\xff"}', "not UTF-8 at byte 16"),
    "UTF-16": ('{"custom_id": "a"}'.encode("utf-16"), "not UTF-8 at byte 1"),
    "a mark within": (b"\xef\xbb\xbf{}", "not JSON at letter 1"),
    "no id": (b'{"body": {"prompt": "x"}}', "needs a custom_id"),
    "an id of a number": (b'{"custom_id": 5, "body": {"prompt": "x"}}', "needs a custom_id"),
    "an empty id": (b'{"custom_id": "", "body": {"prompt": "x"}}', "needs a custom_id"),
    "a long id": (b'{"custom_id": "' + b"x" * 513 + b'"}', "a string of 1 to 512 characters"),
    "no body": (b'{"custom_id": "a"}', "needs a body"),
    "a body of null": (b'{"custom_id": "a", "body": null}', "body: None is not an object"),
    "a body of a list": (b'{"custom_id": "a", "body": [1]}', "body: [1] is not an object"),
    "nothing asked": (b'{"custom_id": "a", "body": {}}', "needs body.messages or body.prompt"),
    "both": (b'{"custom_id": "a", "body": {"prompt": "x", "messages": []}}', "and not both"),
    "a prompt of other numbers": (
        b'{"custom_id": "a", "body": {"prompt": [5, -6]}}',
        "body.prompt: [5, -6] is not a string or a list of token ids",
    ),
    "a token of another model": (
        b'{"custom_id": "a", "body": {"prompt": [5, 260]}}',
        "token 260 is not one of the 260",
    ),
    "no tokens": (b'{"custom_id": "a", "body": {"prompt": []}}', "the prompt is empty"),
    "an empty prompt": (b'{"custom_id": "a", "body": {"prompt": ""}}', "the prompt is empty"),
    "no messages": (b'{"custom_id": "a", "body": {"messages": []}}', "the prompt is empty"),
    "messages of a text": (b'{"custom_id": "a", "body": {"messages": "hi"}}', "body.messages: 'hi' is not a list"),
    "messages of texts": (b'{"custom_id": "a", "body": {"messages": ["hi"]}}', "body.messages: 'hi' is not an object"),
    "no content": (b'{"custom_id": "a", "body": {"messages": [{"role": "user"}]}}', "needs role and content"),
    "content of null": (
        b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": null}]}}',
        "content: None is not a string",
    ),
    "a picture": (
        b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}',
        "content: {'type': 'image_url'} is not a part",
    ),
    "an assistant at the end": (
        b'{"custom_id": "a", "body": {"messages": [{"role": "assistant", "content": "x"}]}}',
        "the last message is the assistant's",
    ),
    "a tool": (
        b'{"custom_id": "a", "body": {"messages": [{"role": "tool", "content": "x"}]}}',
        "is not system, user or assistant",
    ),
    "tools in a message": (
        b'{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "x", "tools": []}]}}',
        "body.messages: tools is not supported",
    ),
    "an unknown parameter": (
        b'{"custom_id": "a", "body": {"prompt": "x", "best_of": 3}}',
        "body.best_of is not supported",
    ),
    "an unknown key": (b'{"custom_id": "a", "prio": 1, "body": {"prompt": "x"}}', "prio is not supported"),
    "temperature": (b'{"custom_id": "a", "body": {"prompt": "x", "temperature": 0.7}}', "temperature: 0.7 is not 0"),
    "a temperature of false": (b'{"custom_id": "a", "body": {"prompt": "x", "temperature": false}}', "False is not 0"),
    "several answers": (b'{"custom_id": "a", "body": {"prompt": "x", "n": 2}}', "body.n: 2 is not 1"),
    "streaming": (b'{"custom_id": "a", "body": {"prompt": "x", "stream": true}}', "body.stream: True is not false"),
    "another address": (
        b'{"custom_id": "a", "url": "/v1/embeddings", "body": {"prompt": "x"}}',
        "url: '/v1/embeddings'",
    ),
    **{
        f"max_tokens {value}": (
            b'{"custom_id": "a", "body": {"prompt": "x", "max_tokens": ' + value.encode() + b"}}",
            "body.max_tokens: " + shown,
        )
        for value, shown in {
            "1.5": "1.5 is not",
            "-1": "-1 is not",
            "0": "0 is not",
            "true": "True is not",
            '"9"': "'9' is not",
            "[]": "[] is not",
        }.items()
    },
}


def test_a_bad_line_is_a_result_that_names_line_and_fact_and_the_rest_goes_on(answer, tmp_path):
    """In one file, each between two good ones; once the first of them ended the run."""
    lines, wanted = [dumped(request("first"))], {}
    for number, (line, fact) in enumerate(BAD_LINES.values()):
        wanted[2 * number + 2] = fact
        lines += [line.replace(b'"a"', b'"bad%d"' % number) + b"\n", dumped(request(f"good{number}"))]
    counts, rows = answer(*lines)
    assert counts == (2 * len(BAD_LINES) + 1, len(BAD_LINES))
    good = [row["custom_id"] for row in rows if row["error"] is None]
    assert sorted(good) == sorted(["first", *(f"good{number}" for number in range(len(BAD_LINES)))])
    messages = {int(fact_of(row).split(":")[1]): fact_of(row) for row in rows if row["error"]}
    assert set(messages) == set(wanted)
    for number, fact in wanted.items():
        assert messages[number].startswith(f"{tmp_path}/in.jsonl:{number}: ")
        assert fact in messages[number]
        assert len(messages[number]) < 400
    again, same = answer(*lines)  # nothing is written twice, and the errors still count
    assert (again, same) == ((0, len(BAD_LINES)), rows)


def test_what_json_allows_within_a_line_does_not_end_it(answer):
    text = "a\u2028b\u2029c\x85d\x0be\x1cf\x7fg"
    lines = [
        b"\xef\xbb\xbf" + dumped(request("mark")),
        b"\n",
        b" \t\r\n",
        json.dumps(request(text), ensure_ascii=False).encode() + b"\r\n",
        b'{"custom_id": "zero", "body": {"prompt": "a\\u0000b", "max_tokens": null, "temperature": 0.0, "model": "x"}}',
    ]
    counts, rows = answer(*lines)
    assert (counts, [row["custom_id"] for row in rows]) == ((3, 0), ["mark", text, "zero"])


def test_no_reader_of_lines_is_cut_by_an_answer():
    row = {"custom_id": "x\x85\u2028\u2029\n\r\x0b\x0c\x1c\x1d\x1e", "error": "\ue000é"}
    line = jsonl.dump_line(row)
    assert (len(line.decode().splitlines()), jsonl.parse_object(line)) == (1, row)


def test_an_id_that_stands_twice_is_an_error_and_the_first_is_answered(answer):
    counts, rows = answer(request("a"), request("b"), request("a", max_tokens=1), request("b"))
    assert counts == (4, 2)
    assert sorted(row["custom_id"] for row in rows if row["error"] is None) == ["a", "b"]
    assert [row["custom_id"] for row in rows if row["error"]] == [None, None]
    assert {fact_of(row).split(":", 1)[1] for row in rows if row["error"]} == {
        "3: custom_id 'a' appears twice",
        "4: custom_id 'b' appears twice",
    }


def test_parts_and_system_messages_are_one_prompt(tokenizer, tmp_path):
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hi"}]},
        ]
    }
    (accepted,) = requests.read_requests(
        tmp_path, io.BytesIO(dumped({"custom_id": "a", "body": body})), tokenizer, lambda _: False
    )
    assert accepted.request.prompt_ids == tuple(tokenizer.encode_chat("Be brief.\n\nSay hi"))


def test_examples_are_turns_of_their_own(tokenizer, tmp_path):
    texts = ("Add 1 and 1 </s>", "2", "Add 2 and 2")
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    line = io.BytesIO(dumped({"custom_id": "a", "body": {"messages": messages}}))
    (accepted,) = requests.read_requests(tmp_path, line, tokenizer, lambda _: False)
    turns = [[258, *tokenizer.encode(text), 259] for text in texts]
    assert list(accepted.request.prompt_ids) == [256, *turns[0], *turns[1], *turns[2]]


def test_a_line_of_a_gigabyte_takes_no_memory(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with source.open("wb") as file:
        file.write(dumped(request("first")) + b'{"custom_id": "')
        file.truncate(10**9)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + dumped(request("last")))
    write_byte_tokenizer(tmp_path)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom rotary_batch.commands.generate import generate\n"
        "from rotary_batch.model.tokens import Tokenizer\nfrom rotary_batch.testing import FakeEngine\n"
        "source, target = map(Path, sys.argv[1:])\ntokenizer = Tokenizer.load(source.parent)\n"
        "least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(generate(source, target, tokenizer, FakeEngine, lambda *_: None))\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < least + 60_000\n"
    )
    done = subprocess.run([sys.executable, "-c", script, source, target], capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.stderr) == ("(3, 1)\n", "")
    rows = rows_of(target)
    assert [row["custom_id"] for row in rows if row["error"] is None] == ["first", "last"]
    assert f"{source}:2: a line of over 8,388,608 bytes" in [fact_of(row) for row in rows if row["error"]]


RESULT = b'{"custom_id": "old", "response": null, "error": {"code": "failed", "message": "no"}}\n'
FOREIGN = {
    "precious.json": b'{"precious": 1}',
    "a line of JSON": b'{"precious": 1}\n',
    "notes": b"first\nsecond\nthe last line has no end",
    "notes with an end": b"first\nsecond\n",
    "one brace": b"{",
    "our first letters": b'{"custom',
    "something like ours": b'{"custom_id": "a", "note": "mine',
    "requests": b'{"custom_id": "a", "body": {"prompt": "x"}}\n',
    "a request without an end": b'{"custom_id": "a", "body": {"prompt": "x"}}',
    "results, then notes": RESULT + b"my notes",
    "results, then a line of notes": RESULT + b"my notes\n",
    "results, then half a request": RESULT + b'{"custom_id": "a", "body"',
    "results, then an empty line": RESULT + b"\n",
    "other results": b'{"custom_id": "a", "response": null, "error": null}\n',
    "an answer to nobody": b'{"custom_id": null, "response": {"status_code": 200, "body": {}}, "error": null}\n',
    "zero bytes": bytes(5000),
    "a database": b"SQLite format 3\0" + bytes(4080),
    "no UTF-8": b"\xff\xfe",
    "a list": b"[" * 100_000,
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_file_of_results_is_refused_and_left_as_it_is(data, answer, tmp_path):
    """A one-line file was replaced, and notes lost their last line."""
    target = tmp_path / "out.jsonl"
    target.write_bytes(data)
    os.utime(target, ns=(10**18, 10**18))
    with pytest.raises(InputError, match="not a result of generate; name another output file") as error:
        answer(request("a"))
    assert str(error.value).startswith(f"{target}:")
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (data, 10**18)


@pytest.mark.parametrize("kind", ["same", "hard link", "symbolic link", "other name"])
def test_the_requests_are_no_place_for_results(kind, tokenizer, tmp_path):
    """Input as output once lost a request."""
    source = target = tmp_path / "in.jsonl"
    for data in (dumped(request("a")), b"", RESULT):  # also where every line, or none, is a result
        source.write_bytes(data)
        if kind == "hard link":
            target = tmp_path / "hard.jsonl"
            target.unlink(missing_ok=True)
            target.hardlink_to(source)
        elif kind == "symbolic link":
            target = tmp_path / "soft.jsonl"
            target.unlink(missing_ok=True)
            target.symlink_to(source)
        elif kind == "other name":
            target = tmp_path / "x" / ".." / "in.jsonl"
            (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="the file of requests itself"):
            generate(source, target, tokenizer, FakeEngine, lambda *_: None)
        assert source.read_bytes() == data


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "link to nothing", "no folder"])
def test_results_go_into_a_plain_file(kind, answer, tmp_path):
    target = tmp_path / "out.jsonl"
    if kind == "folder":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "device":
        target.symlink_to("/dev/null")
    elif kind == "link to nothing":
        target.symlink_to(tmp_path / "nothing")
    name = "none/out.jsonl" if kind == "no folder" else "out.jsonl"
    with pytest.raises((InputError, StorageError), match="name another output file"):
        answer(request("a"), name=name)
    assert not (tmp_path / "nothing").exists()


def test_no_request_leaves_no_file(answer, tmp_path, tokenizer):
    assert answer(b"") == ((0, 0), [])
    assert answer(b"\n \n") == ((0, 0), [])
    assert not (tmp_path / "out.jsonl").exists()
    for source in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match="name a readable JSONL file"):
            generate(source, tmp_path / "out.jsonl", tokenizer, FakeEngine, lambda *_: None)
    assert not (tmp_path / "out.jsonl").exists()


def test_every_cut_of_a_result_is_mended(answer, tmp_path):
    """A line cut at any byte is taken off and asked again; a whole one without its end is kept."""
    lines = [request("a"), request('b"\\é\u2028'), b"bad\n"]
    _, wanted = answer(*lines, name="whole.jsonl")
    whole, target = (tmp_path / "whole.jsonl").read_bytes(), tmp_path / "out.jsonl"
    few = len(b'{"custom_id": ')  # of a first line, too little to be told from a file of another kind
    second = whole.index(b"\n") + 1
    for end in sorted({0, *range(few, len(whole), 7), *range(second - 2, second + few), len(whole) - 1}):
        target.write_bytes(whole[:end])
        answer(*lines)
        assert sorted(rows_of(target), key=str) == sorted(wanted, key=str)


def test_two_at_once_are_one_and_a_refusal(answer, tmp_path, tokenizer):
    """Two at once wrote 240 lines for 120."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(dumped(request("a")))
    with (
        open_results(target, source.stat()),
        pytest.raises(BusyError, match="another generate is writing into this file"),
    ):
        answer(request("a"))
    counts, threads = [], []

    def one() -> None:
        try:
            counts.append(generate(source, target, tokenizer, FakeEngine, lambda *_: None))
        except BusyError:
            counts.append(None)

    source.write_bytes(b"".join(dumped(request(f"r{n}")) for n in range(120)))
    for _ in range(8):
        threads.append(threading.Thread(target=one))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert (120, 0) in counts
    assert sorted(row["custom_id"] for row in rows_of(target)) == sorted(f"r{n}" for n in range(120))


def drive(count: int, nbytes: int, source: Path, target: Path, limit_nbytes: int | None = None):
    arguments = [sys.executable, DRIVER, str(count), str(nbytes), "generate", source, "-o", target]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_nbytes, limit_nbytes))  # noqa: E731
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=200, preexec_fn=limit if limit_nbytes else None
    )


def kill_and_finish(tmp_path: Path, num_kills: int) -> None:
    source, calm, storm = (tmp_path / name for name in ("in.jsonl", "calm.jsonl", "storm.jsonl"))
    num_rows = 8 * num_kills
    lines = [dumped(request(f"r{n}")) if n % 5 else b"bad line %d\n" % n for n in range(num_rows)]
    source.write_bytes(b"".join(lines))
    assert drive(0, 0, source, calm).returncode == 5
    chance = random.Random(3)
    for number in range(num_kills):
        done = drive(chance.randint(1, 8), chance.choice([0, 1, chance.randint(14, 200), 10**6]), source, storm)
        assert done.returncode == -signal.SIGKILL, (number, done.stderr)
    assert drive(0, 0, source, storm).returncode == 5
    wanted, results = ([json.dumps(row) for row in rows_of(target)] for target in (calm, storm))
    assert len(results) == num_rows
    assert sorted(results) == sorted(wanted)


def test_kills_cost_nothing(tmp_path):
    kill_and_finish(tmp_path, 4)


@pytest.mark.faults
def test_fifty_kills_cost_nothing(tmp_path):
    kill_and_finish(tmp_path, 50)


def test_a_full_disk_ends_the_run_with_whole_lines_and_the_next_goes_on(tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"".join(dumped(request(f"r{n}")) for n in range(12)))
    full = drive(0, 0, source, target, limit_nbytes=1000)
    assert (full.returncode, "free some space, then run generate again" in full.stderr) == (74, True)
    assert target.read_bytes().endswith(b"\n")
    assert 0 < len(rows_of(target)) < 12
    assert drive(0, 0, source, target).returncode == 0
    assert sorted(row["custom_id"] for row in rows_of(target)) == sorted(f"r{n}" for n in range(12))
    busy = subprocess.Popen(["flock", target, "sleep", "30"])
    try:
        while drive(0, 0, source, target).returncode == 0:
            pass
        assert drive(0, 0, source, target).returncode == 6
    finally:
        busy.terminate()
        busy.wait()


def test_a_prompt_of_token_ids_is_taken_as_it_is(answer, tokenizer, tmp_path):
    """As `export --requests` writes it; the answer of the fake engine depends on the prompt alone."""
    ids = tokenizer.encode("Say hello")
    _, rows = answer(
        {"custom_id": "text", "body": {"prompt": "Say hello", "logprobs": 1}},
        {"custom_id": "ids", "url": "/v1/completions", "method": "POST", "body": {"prompt": ids, "logprobs": 1}},
    )
    one, other = (row["response"]["body"]["choices"] for row in rows)
    assert one == other
