"""A model's threshold is learnt on what authors say, is stored next to the pack, and gives verdicts anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rotary_batch.commands.calibrate import CalibrateRequest, calibrate
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import Settings
from rotary_batch.core import Completion, FileClass, NewTokens, Request, SourceFile, StepReport
from rotary_batch.errors import InputError, ModelError, StoppedError, StorageError
from rotary_batch.model.calibration import CALIBRATION_NAME, Calibration
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.repo.hiding import without_docstrings
from rotary_batch.repo.languages import language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.testing import ByteCounter, FakeEngine
from rotary_batch.window import Window

TOPICS = ["apples", "boxes", "chairs", "doors", "engines", "fields", "gates", "houses"]


def sentence(number: int) -> str:
    return f"Counts the {TOPICS[number % 8]} that stand in row {number} of the long table."


def function(number: int) -> str:
    """One that fills a chunk of the embedded model."""
    lines = "".join(f"    value_{line} = table.find(row, {line}) + value_{line - 1}\n" for line in range(1, 9))
    return f'def work_{number}(table, row, value_0):\n    """{sentence(number)}"""\n{lines}    return value_8\n'


def short_function(number: int) -> str:
    return f'def work_{number}(table):\n    """{sentence(number)}"""\n    found = table.find({number})\n    return found.all()\n'


def files(count: int) -> dict[str, str]:
    return {f"m{n // 4}.py": "\n\n".join(map(function, range(n, n + 4))) for n in range(0, count, 4)}


class Author(FakeEngine):
    """Says of every second function what its author says, of the others something else; of one it is more sure."""

    def __init__(self, *, right: float = -0.1, wrong: float = -0.9) -> None:
        super().__init__(max_batch=64)
        self._right, self._wrong = right, wrong
        self._tokenizer = Tokenizer.load(EMBEDDED)
        self.prompts: list[str] = []

    def step(self) -> StepReport:
        completions, new_tokens = [], []
        for request_id, (request, _) in self._live.items():
            ids, logprob = self._answer(request)
            new_tokens.append(NewTokens(request_id=request_id, token_ids=ids, logprob_sum=logprob * len(ids)))
            completions.append(
                Completion(
                    request_id=request_id,
                    token_ids=ids,
                    logprob_sum=logprob * len(ids),
                    num_scored=len(ids),
                    reason="stop",
                )
            )
        self._live.clear()
        return StepReport(new_tokens=tuple(new_tokens), completions=tuple(completions), decode_tokens=1)

    def _answer(self, request: Request) -> tuple[tuple[int, ...], float]:
        prompt = self._tokenizer.decode(request.prompt_ids)
        self.prompts.append(prompt)
        number = int(re.findall(r"work_(\d+)", prompt)[-1])
        is_right = number % 2 == 0
        text = sentence(number).replace(f"{number} ", "") if is_right else "Looks everything up and adds it."
        return tuple(self._tokenizer.encode(text)), (self._right if is_right else self._wrong) - number / 1000


@pytest.fixture
def pack(tmp_path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    for file in EMBEDDED.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def request(root: Path, pack: Path, engine: FakeEngine, window: Window | None = None, **options) -> CalibrateRequest:
    return CalibrateRequest(
        settings=Settings(model=pack, job=options.pop("job", None)),
        root=root,
        window=window or Window(),
        open_engine=lambda _pack, _options: engine,
        progress=lambda *_: None,
        **{"num_symbols": 64, "target": 0.8} | options,
    )


def test_the_lowest_threshold_that_keeps_the_target_is_stored_beside_the_pack(make_repository, pack):
    root = make_repository(files(64))
    engine, before = Author(), Manifest.load(pack)
    found = calibrate(request(root, pack, engine))
    assert len(engine.prompts) == found.asked == 64
    assert not any("Counts the" in prompt for prompt in engine.prompts)  # no docstring is in a prompt
    stored = json.loads((pack / CALIBRATION_NAME).read_text())
    # All 32 right answers pass, and as many wrong ones as the target allows for sure.
    assert found.threshold == stored["min_mean_logprob"] == Manifest.load(pack).min_mean_logprob
    assert -0.95 < found.threshold < -0.2
    assert (found.judged, found.before, found.target) == (64, before.min_mean_logprob, 0.8)
    assert found.table[0]["right"] == 1.0
    assert found.table[-1] == {"threshold": pytest.approx(-0.963), "answers": 64, "shown": 1.0, "right": 0.5}
    assert Manifest.load(pack).weights_digest == before.weights_digest
    again = calibrate(request(root, pack, Author()))
    assert (again.threshold, again.table) == (found.threshold, found.table)


def test_symbols_are_asked_for_one_by_one(make_repository, pack):
    """With a job that asks about symbols, all of them are, however many are in a chunk."""
    short = {f"m{n}.py": "\n\n".join(short_function(4 * n + k) for k in range(4)) for n in range(16)}
    engine = Author()
    found = calibrate(request(make_repository(short), pack, engine, job="summarize"))
    assert (found.asked, found.judged) == (64, 64)
    assert all(re.search(r"`work_\d+`:", prompt) for prompt in engine.prompts)
    assert json.loads((pack / CALIBRATION_NAME).read_text())["job"] == "summarize"


def test_no_threshold_is_stored_when_none_keeps_the_target(make_repository, pack):
    root = make_repository(files(64))
    found = calibrate(request(root, pack, Author(right=-0.9, wrong=-0.1)))
    assert (found.threshold, found.file) == (None, None)
    assert not (pack / CALIBRATION_NAME).exists()


def test_what_cannot_be_calibrated_says_why(make_repository, pack):
    with pytest.raises(InputError, match="4 documented symbols that can be asked about, and 20 are needed"):
        calibrate(request(make_repository(files(4)), pack, Author()))
    window = Window()
    window.interrupted = True
    with pytest.raises(StoppedError):
        calibrate(request(make_repository(files(64), "other"), pack, Author(), window))


def test_the_file_of_another_model_or_a_damaged_one_is_not_used(pack, tmp_path):
    own = Manifest.load(pack)
    values = {"target": 0.5, "judged": 100, "job": "summarize", "numerics": "exact"}
    Calibration(weights_digest="0" * 64, min_mean_logprob=-2.0, **values).save(pack)
    assert Manifest.load(pack) == own
    Calibration(weights_digest=own.weights_digest, min_mean_logprob=-2.0, **values).save(pack)
    assert Manifest.load(pack).min_mean_logprob == -2.0
    (pack / CALIBRATION_NAME).write_text('{"format"')
    with pytest.raises(ModelError, match=f"{CALIBRATION_NAME}.*delete it, or run `model calibrate` again"):
        Manifest.load(pack)
    with pytest.raises(StorageError, match="copy the pack and name the copy"):
        Calibration(weights_digest="", min_mean_logprob=-2.0, **values).save(tmp_path / "gone")


HIDDEN = {
    "a.py": (
        '@cache\ndef f(a):\n    """Doc of f."""\n    return a\n\n\nclass E(Exception):\n    """Doc of E."""\n\n\n# About g.\ndef g(): return 1\n',
        "@cache\ndef f(a):\n    return a\n\n\nclass E(Exception):\n    ...\n\n\n# About g.\ndef g(): return 1\n",
    ),
    "a.js": (
        "/**\n * Doc of f.\n */\nfunction f(a) {\n  // stays\n  return a;\n}\n",
        "function f(a) {\n  // stays\n  return a;\n}\n",
    ),
    "a.go": (
        "package a\n\n// F does.\n// More of it.\nfunc F() {}\n\nvar x = 1 // stays\n",
        "package a\n\nfunc F() {}\n\nvar x = 1 // stays\n",
    ),
    "a.rs": ("/// Doc of f.\n#[inline]\nfn f() {}\n", "#[inline]\nfn f() {}\n"),
    "A.java": (
        "class A {\n  /** Doc of f. */\n  @Override\n  void f() {}\n}\n",
        "class A {\n  @Override\n  void f() {}\n}\n",
    ),
    "a.c": ("/* Doc of f. */\nint f(void)\n{\n\treturn 1;\n}\n", "int f(void)\n{\n\treturn 1;\n}\n"),
    "a.rb": ("# Doc of f.\ndef f\n  1\nend\n", "def f\n  1\nend\n"),
}


@pytest.mark.parametrize("path", HIDDEN)
def test_docstrings_are_hidden_and_nothing_else(path):
    source, hidden = HIDDEN[path]
    language = language_of(path)
    file = SourceFile(path=path, blob="", nbytes=0, language=language, file_class=FileClass.SOURCE, reason="")
    before = parse_file(file, source.encode(), 10_000, ByteCounter()).symbols
    cleaned = without_docstrings(language, source.encode(), before)
    assert cleaned.decode() == hidden
    after = parse_file(file, cleaned, 10_000, ByteCounter()).symbols
    assert [one.qualified_name for one in after] == [one.qualified_name for one in before]
    assert not any(one.docstring for one in after if one.name not in {"g", "x"})


def test_only_the_docs_of_the_symbols_that_are_named_go():
    code = '@a\ndef f():\n    """One."""\n    return 1\n\n\nclass C:\n    """Two."""\n\n    x = 1\n'
    file = SourceFile(path="a.py", blob="", nbytes=0, language="python", file_class=FileClass.SOURCE, reason="")
    f, c = (one for one in parse_file(file, code.encode(), 10_000, ByteCounter()).symbols if one.name in {"f", "C"})
    assert without_docstrings("python", code.encode(), [f]).decode() == code.replace('    """One."""\n', "")
    assert without_docstrings("python", code.encode(), [c]).decode() == code.replace('    """Two."""\n', "")
