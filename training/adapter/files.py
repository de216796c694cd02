"""The source files of one package as the product reads them, with the authors' sentences, and the names they share."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rotary_batch.core import DATA_KINDS, FileClass, Reference, SourceFile, Symbol
from rotary_batch.repo.files import classify
from rotary_batch.repo.folder import PlainFolder
from rotary_batch.repo.source_text import read_source
from rotary_batch.repo.symbols import Extract, extract, parse
from training.adapter.sentences import first_sentence, with_ticks
from training.adapter.sources import Package

LANGUAGES = frozenset(
    "python javascript typescript tsx go rust java c cpp c_sharp kotlin php ruby scala swift lua".split()  # noqa: SIM905
)
UNASKED = DATA_KINDS | {"module", "namespace", "package", "import", "section", "key", "heading", "test"}
MAX_FILE_NBYTES = 150_000
MAX_FILES = 80  # of one package, drawn by the digest of their path
MAX_SIGNATURE = 160  # characters
MAX_USES = 20  # of one name that are kept
LARGE = {  # how many times as much is taken of these
    "golang-1.19-src": 4,
    "rust-src": 3,
    "python": 4,
    "libspring-java": 3,
    "netty": 2,
    "tomcat10": 2,
    "golang-golang-x-tools-dev": 2,
    "sympy": 2,
}
_CALLABLE = frozenset({"function", "method", "constructor", "macro", "declaration", "property"})
_TESTS = re.compile(
    r"(^|/)(tests?|testing|__tests__|spec|specs|testdata|examples?|benches|benchmarks?|docs?|_?vendor(ed)?|third_party"
    r"|extern(al)?s?|node_modules|debian|fixtures|demos?|samples?|idlelib|locales?|i18n|minified|min|umd|cjs|amd"
    r"|bundles)(/|$)",
    re.IGNORECASE,
)
_TEST_FILE = re.compile(
    r"(^|/)(test_[^/]*|conftest|[^/]*_test|[^/]*\.test|[^/]*\.spec|[^/]*Tests?|[^/]*_spec)\.\w+$|\.min\.|\.d\.[cm]ts$"
)
# Below what Debian puts around a package.
_BASES = (
    "usr/share/gocode/src",
    "usr/share/cargo/registry",
    "usr/src/rustc-1.63.0/library",
    "usr/share/go-1.19/src",
    "usr/share/php",
    "usr/lib/ruby/vendor_ruby",
    "usr/share/rubygems-integration",
    "usr/lib/llvm-14/include",
    "usr/include",
)


@dataclass
class File:
    """One file; `sentences` has the authors' sentences by the start byte of their symbol."""

    file: SourceFile
    source: bytes
    facts: Extract
    sentences: dict[int, str] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """Its name."""
        return self.file.language or ""

    @cached_property
    def _signatures(self) -> dict[int, str]:
        return {symbol.start_byte: signature(symbol) for symbol in self.facts.symbols}

    def signature_at(self, start_byte: int) -> str | None:
        """The signature of the symbol that starts at a byte."""
        return self._signatures.get(start_byte)


def signature(symbol: Symbol) -> str:
    """What a context tells of a symbol, in the product's form."""
    return (" ".join(symbol.signature.split()) or symbol.qualified_name)[:MAX_SIGNATURE]


class Names:
    """Which symbols have a name, and where it is used, in one package."""

    def __init__(self, files: list[File]) -> None:
        self.symbols: dict[str, list[tuple[File, Symbol]]] = defaultdict(list)
        self.uses: dict[str, list[tuple[File, Reference]]] = defaultdict(list)
        for one in files:
            for symbol in one.facts.symbols:
                self.symbols[symbol.name].append((one, symbol))
            for reference in one.facts.references:
                if len(self.uses[reference.name]) < MAX_USES:
                    self.uses[reference.name].append((one, reference))


def base_of(root: Path) -> Path:
    """The folder that a user would have as the repository: below what is put around it."""
    root = next((root / part for part in _BASES if (root / part).is_dir()), root)
    while len(held := list(root.iterdir())) == 1 and held[0].is_dir() and not held[0].is_symlink():
        root = held[0]
    return root


def read_files(package: Package, root: Path) -> Iterator[File]:
    """The sources of a package in path order: no tests, nothing vendored, generated or long."""
    folder = PlainFolder(root)
    files = {file.path: file for file in classify(folder, docs_dir="rotary-docs") if _is_wanted(file)}
    most = MAX_FILES * LARGE.get(package.name, 1)
    chosen = set(sorted(files, key=lambda path: zlib.crc32(path.encode()))[:most])
    for entry, data in folder.read([entry for entry in folder.entries() if entry.path in chosen]):
        source = read_source(entry.path, data)
        if (one := _read(files[entry.path], source)) is not None:
            yield one


def _is_wanted(file: SourceFile) -> bool:
    is_source = file.file_class is FileClass.SOURCE and file.language in LANGUAGES
    is_test = _TESTS.search(file.path.rpartition("/")[0]) or _TEST_FILE.search(file.path)
    return is_source and 300 < file.nbytes <= MAX_FILE_NBYTES and not is_test


def _read(file: SourceFile, source: bytes) -> File | None:
    try:
        facts = extract(file.language or "", source, file.path, parse(file.language or "", source))
    except (RecursionError, ValueError):
        return None
    one = File(file, source, facts)
    known = frozenset(re.findall(r"[A-Za-z_]\w*", source.decode("utf-8", "replace")))
    for symbol in facts.symbols:
        sentence = first_sentence(symbol.docstring, symbol.name, is_callable=symbol.kind in _CALLABLE)
        if sentence and symbol.kind not in UNASKED:
            one.sentences[symbol.start_byte] = with_ticks(sentence, known)
    return one
