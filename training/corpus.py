"""Pairs of (prompt, answer) from Python packages, in exactly the shape of the project's own prompts.

An answer is the first sentence of an author's docstring; the docstring is taken out of the code.  Knows
`ast` and the prompts; knows nothing of tokens.  Packages of HELD_OUT are for judging, never for training.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rotary_batch.config import bundled
from rotary_batch.planner.asking import Note, note_line
from rotary_batch.prompts import Prompt, load_prompts

# Permissive licences only (PSF, BSD, MIT, Apache-2.0), and only what the project installs anyway.
PACKAGES = (
    "torch", "transformers", "sympy", "networkx", "numpy", "jinja2", "markdown_it", "safetensors", "typer",
    "sqlite_utils", "click", "pip", "setuptools", "tokenizers", "huggingface_hub", "mpmath", "mypy", "pytest",
    "_pytest", "attr", "importlinter", "grimp", "execnet", "xdist", "matplotlib", "fsspec", "packaging", "tabulate",
)  # fmt: skip
HELD_OUT = ("rich", "pygments", "git", "filelock")
MAX_CODE_CHARACTERS = 1100  # about 300 tokens of the model's own
MAX_ANSWER_CHARACTERS = 180
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "site-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One example."""

    prompt: str
    answer: str


def build(seed: int, *, held_out: bool) -> list[Pair]:
    """All pairs of the training packages, or of the held-out ones, each prompt once, in a seeded order."""
    prompts = load_prompts(bundled("prompts"))
    unique: dict[str, Pair] = {}
    for root in _roots(held_out=held_out):
        for pair in _package_pairs(root, prompts):
            unique.setdefault(hashlib.sha256(pair.prompt.encode("utf-8", "replace")).hexdigest(), pair)
    pairs = [unique[key] for key in sorted(unique)]
    random.Random(seed).shuffle(pairs)
    return pairs


def _roots(*, held_out: bool) -> list[Path]:
    site = Path(sysconfig.get_paths()["purelib"])
    names = HELD_OUT if held_out else PACKAGES
    roots = [site / name for name in names if (site / name).is_dir()]
    return roots if held_out else [Path(sysconfig.get_paths()["stdlib"]), *roots]


def _package_pairs(root: Path, prompts: dict[str, Prompt]) -> Iterator[Pair]:
    for path in sorted(root.rglob("*.py")):
        if _SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (SyntaxError, ValueError, OSError, RecursionError):
            continue
        yield from _file_pairs(path, source, tree, prompts)


def _file_pairs(path: Path, source: str, tree: ast.Module, prompts: dict[str, Prompt]) -> Iterator[Pair]:
    lines = source.splitlines(keepends=True)
    imports = _imports(tree)
    yield from _definitions(path, lines, tree.body, "", imports, prompts)
    answer = _first_sentence(ast.get_docstring(tree))
    notes = [_note(lines, node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)][:24]
    if answer and notes:
        yield Pair(prompts["file"].fill({"name": path.name, "notes": "\n".join(map(note_line, notes))}).text, answer)
        if path.name == "__init__.py":
            text = prompts["directory"].fill({"name": path.parent.name, "notes": "\n".join(map(note_line, notes))}).text
            yield Pair(text, answer)


def _definitions(
    path: Path,
    lines: list[str],
    body: list[ast.stmt],
    outer: str,
    imports: list[str],
    prompts: dict[str, Prompt],
) -> Iterator[Pair]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        answer = _first_sentence(ast.get_docstring(node))
        code = _without_docstring(lines, node)
        if answer and 40 <= len(code) <= MAX_CODE_CHARACTERS:
            context = breadcrumb(outer, [name for name in imports if re.search(rf"\b{re.escape(name)}\b", code)])
            values = {"language": "python", "name": path.name, "context": context, "source": code.strip("\n")}
            yield Pair(prompts["chunk"].fill(values).text, answer)
        if isinstance(node, ast.ClassDef):
            yield from _definitions(path, lines, node.body, f"class {node.name}", imports, prompts)


def breadcrumb(enclosing: str, imports: list[str]) -> str:
    """What travels beside a chunk, as the chunker writes it."""
    parts = [enclosing] if enclosing else []
    return "\n".join([*parts, *(["imports: " + ", ".join(imports)] if imports else [])])


def _imports(tree: ast.Module) -> list[str]:
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names if alias.name != "*"]


def _without_docstring(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    document = node.body[0]
    if len(node.body) == 1 or document.lineno == node.lineno:
        return ""
    end = document.end_lineno or document.lineno
    return "".join(lines[start : document.lineno - 1] + lines[end : node.end_lineno])


def _note(lines: list[str], node: ast.FunctionDef | ast.ClassDef) -> Note:
    signature = lines[node.lineno - 1].strip().rstrip(":")
    return Note(node.name, _first_sentence(ast.get_docstring(node)) or signature[:100])


def _first_sentence(docstring: str | None) -> str | None:
    """The first sentence of the first paragraph in plain text, or None when it is no good as an answer."""
    if not docstring:
        return None
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0]
    sentence = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", sentence).replace("``", "`")
    plain = re.fullmatch(r"[\w\s.,;:'\"`()\[\]/*=<>+-]+[\w.)`]", sentence, re.ASCII)
    if not plain or not 15 <= len(sentence) <= MAX_ANSWER_CHARACTERS or not sentence[0].isupper():
        return None
    return sentence if sentence.endswith(".") else sentence + "."
