"""What models say of the documented symbols of held-out packages, asked as the product asks.

Docstrings are hidden in a copy of each package, which is indexed and drained by the product itself: its prompts, its
limits, its checks.  Needs the packages of `training.adapter.sources`.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rotary_batch.commands.calibrate import CalibrateRequest, ask_undocumented, unlimited
from rotary_batch.commands.engines import open_engine
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.packs import find_pack
from rotary_batch.config import Settings
from rotary_batch.errors import InputError
from rotary_batch.repo.languages import language_of
from rotary_batch.window import Window
from training.adapter.build import all_packages
from training.adapter.corpus import family
from training.adapter.files import base_of, read_files
from training.adapter.sources import Package

OUT = Path(__file__).parents[2] / "out" / "quality"
READ = OUT / "read.json"  # answers for a person, who writes true or false behind "right"
PER_PACKAGE = 130  # documented symbols, by the digest of their files
SEED = 20261128


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer about one symbol beside what its author says."""

    package: str
    language: str
    path: str
    name: str
    author: str
    code: str  # of the symbol without its docs
    text: str
    shown_text: str | None  # what of it passes every check but that of confidence
    mean_logprob: float
    ended: str
    reasons: Sequence[str]
    unknown: Sequence[str]  # names between backticks in what is shown that the package does not have

    @property
    def key(self) -> str:
        """Names the symbol."""
        return f"{self.package} {self.path} {self.name}"


def held_out() -> list[Package]:
    """Packages that no model was trained on."""
    return [package for package in all_packages() if package.is_held_out]


def ask(name: str, settings: Settings, per_package: int = PER_PACKAGE) -> None:
    """Ask a model about symbols of every held-out package; what it says is kept package by package."""
    found: list[Answered] = []
    for package in held_out():
        with tempfile.TemporaryDirectory(prefix="rotary-quality-") as folder:
            try:
                found += _of_package(package, settings, Path(folder), per_package)
            except InputError as error:
                print(f"{package.name}: left out, {error}", flush=True)
        print(f"{package.name}: {len(found)} symbols so far", flush=True)
        save(name, found)


def _of_package(package: Package, settings: Settings, folder: Path, num_symbols: int) -> list[Answered]:
    source, work = folder / package.name.replace("/", "+"), folder / "work"
    work.mkdir()
    for one in read_files(package, base_of(package.root)):
        (source / one.file.path).parent.mkdir(parents=True, exist_ok=True)
        (source / one.file.path).write_bytes(one.source)
    request = CalibrateRequest(
        settings=settings,
        root=source,
        num_symbols=num_symbols,
        target=0.5,
        window=Window(),
        open_engine=open_engine,
        progress=lambda *_: None,
    )
    pack = find_pack(settings, lambda *_: None)
    answers, _ = ask_undocumented(request, unlimited(load_prompt_builder(settings, pack)), pack, work)
    texts = {path: path.read_bytes() for path in sorted((work / "copy").rglob("*")) if path.is_file()}
    known = _names(b"\n".join(texts.values()).decode("utf-8", "replace"))
    found = []
    for one, said in answers:
        start, end = one.subject.span or (0, 0)
        code = texts[work / "copy" / one.subject.path][start:end].decode("utf-8", "replace")
        shown = one.shown_text if one.is_shown else None
        found.append(
            Answered(
                package=package.name,
                language=family(language_of(one.subject.path) or ""),
                path=one.subject.path,
                name=said.name,
                author=said.sentence,
                code=code,
                text=one.text,
                shown_text=shown,
                mean_logprob=one.mean_logprob,
                ended=one.ended,
                reasons=one.reasons,
                unknown=[name for name in ticked(shown or "") if name not in known],
            )
        )
    return found


def ticked(text: str) -> list[str]:
    """The identifiers between backticks, the parts of dotted ones apart."""
    return [name for quoted in text.split("`")[1::2] for name in sorted(_names(quoted))]


def _names(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", text))


def save(name: str, answers: Sequence[Answered]) -> None:
    """Write the answers of a model."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.answers.json").write_text(json.dumps([asdict(one) for one in answers], indent=1) + "\n")


def load() -> dict[str, list[Answered]]:
    """Name of a model -> its answers."""
    paths = sorted(OUT.glob("*.answers.json"))
    return {
        path.name.removesuffix(".answers.json"): [Answered(**one) for one in json.loads(path.read_text())]
        for path in paths
    }


def write_sample(answers: Sequence[Answered], count: int, threshold: float) -> None:
    """Answers of a model that are shown, drawn with a fixed seed, for a person to write `right` behind each."""
    shown = [one for one in answers if one.shown_text and one.mean_logprob >= threshold]
    drawn = random.Random(SEED).sample(shown, min(count, len(shown)))
    known = {one["key"]: one for one in json.loads(READ.read_text())} if READ.is_file() else {}
    table = [
        {"key": one.key, "says": one.shown_text, "author": one.author, "code": one.code[:1500], "right": None}
        for one in drawn
    ]
    kept = [known[one["key"]] if known.get(one["key"], {}).get("says") == one["says"] else one for one in table]
    READ.write_text(json.dumps(kept, indent=1) + "\n")
