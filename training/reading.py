"""Examples of one Python file, in exactly the shape of the project's own prompts.

An answer is the first sentence of an author's docstring; the docstring is taken out of the code that the prompt
shows.  Knows `ast` and the prompts; knows nothing of packages, splits or tokens.
"""

from __future__ import annotations

import ast
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rotary_batch.planner.prompt_builder import Note, note_line
from rotary_batch.prompts import Prompt

MAX_CODE_CHARACTERS = 1100  # about 330 tokens of the model's own
MAX_ANSWER_CHARACTERS = 180
MAX_NOTES = 24
MAX_NOTES_CHARACTERS = 1800
MAX_TEXT_CHARACTERS = 2400
_PROSE_CHARACTERS = 400  # a string literal of this length is prose
_TEXT_SHARE = 3  # one file in so many gives a piece of plain code, one long literal in so many plain prose
_MAX_IMPORTS = 8
_NO_ANSWER = re.compile(r"(?:See|TODO|FIXME|Deprecated|Copied|Alias|Same as|Note|Copyright|Usage|Args|Parameters)\b")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answer; of task `text` the prompt is empty and the answer is read as it stands."""

    task: str  # symbol, name, file, directory, text
    prompt: str
    answer: str
    package: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file gives: examples of its own, and what its directory's example needs."""

    path: Path
    examples: tuple[Example, ...]
    sentence: str | None  # of its docstring
    names: tuple[str, ...]  # of its top-level definitions


def read_file(path: Path, package: str, prompts: Mapping[str, Prompt]) -> FileFacts | None:
    """All examples of a file, or None when it cannot be read as Python."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None
    reader = _Reader(path, package, prompts, source, tree)
    top = tuple(node.name for node in tree.body if isinstance(node, Definition) and not node.name.startswith("_"))
    return FileFacts(path, tuple(reader.examples()), first_sentence(ast.get_docstring(tree)), top)


class _Reader:
    def __init__(self, path: Path, package: str, prompts: Mapping[str, Prompt], source: str, tree: ast.Module) -> None:
        self._path, self._package, self._prompts = path, package, prompts
        self._source, self._tree = source, tree
        self._lines = source.splitlines(keepends=True)
        self._imports = _imported(tree)

    def examples(self) -> Iterator[Example]:
        yield from self._definitions(self._tree.body, "")
        yield from self._of_file()
        yield from self._text()

    def _example(self, task: str, prompt: str, answer: str) -> Example:
        return Example(task, prompt, answer, self._package)

    def _definitions(self, body: list[ast.stmt], outer: str) -> Iterator[Example]:
        for node in body:
            if not isinstance(node, Definition):
                continue
            answer = first_sentence(ast.get_docstring(node))
            if answer:
                yield from self._of_symbol(node, outer, answer)
            if isinstance(node, ast.ClassDef):
                yield from self._definitions(node.body, f"class {node.name}")

    def _of_symbol(self, node: Definition, outer: str, answer: str) -> Iterator[Example]:
        name = "\n".join(filter(None, (f"File: {self._path.name}", outer, _signature(self._lines, node))))
        yield self._example("name", name, answer)
        code = _without_docstring(self._lines, node)
        if 40 <= len(code) <= MAX_CODE_CHARACTERS:
            values = {"language": "python", "name": self._path.name, "source": code.strip("\n")}
            values["context"] = breadcrumb(outer, self._imports, code)
            yield self._example("symbol", self._prompts["small_chunk"].fill(values).text, answer)

    def _of_file(self) -> Iterator[Example]:
        answer = first_sentence(ast.get_docstring(self._tree))
        nodes = [node for node in self._tree.body if isinstance(node, Definition)]
        if answer and nodes:
            notes = shortened([_note(self._lines, node) for node in nodes])
            text = self._prompts["small_file"].fill({"name": self._path.name, "notes": notes}).text
            yield self._example("file", text, answer)

    def _text(self) -> Iterator[Example]:
        """A piece of the file as it stands, and its long literals: docstrings are the prose at hand."""
        if len(self._source) >= _PROSE_CHARACTERS and _drawn(self._path.name + self._source[:500]):
            start = zlib.crc32(self._source.encode()) % max(1, len(self._source) - MAX_TEXT_CHARACTERS)
            start = self._source.rfind("\n", 0, start + 1) + 1
            yield self._example("text", "", self._source[start : start + MAX_TEXT_CHARACTERS])
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_prose(node.value):
                yield self._example("text", "", node.value.strip()[:MAX_TEXT_CHARACTERS])


def _is_prose(text: str) -> bool:
    return len(text) >= _PROSE_CHARACTERS and " " in text[:80] and text.isascii() and _drawn(text)


def _drawn(text: str) -> bool:
    return zlib.crc32(text.encode("utf-8", "replace")) % _TEXT_SHARE == 0


def directory_examples(facts: list[FileFacts], package: str, prompts: Mapping[str, Prompt]) -> Iterator[Example]:
    """(what a directory holds -> its package docstring) of every directory whose `__init__.py` has one."""
    folders: dict[Path, list[FileFacts]] = {}
    for fact in facts:
        folders.setdefault(fact.path.parent, []).append(fact)
    for folder, held in folders.items():
        opening = next((fact for fact in held if fact.path.name == "__init__.py" and fact.sentence), None)
        below = [other for other in folders if other.parent == folder]
        notes = [_file_note(fact) for fact in held if fact is not opening] + [_folder_note(folders[f]) for f in below]
        if opening and opening.sentence and notes:
            text = prompts["small_directory"].fill({"name": folder.name, "notes": shortened(notes)}).text
            yield Example("directory", text, opening.sentence, package)


def _file_note(fact: FileFacts) -> Note:
    return Note(fact.path.name, fact.sentence or _listed("Defines", fact.names) or "Code without named definitions.")


def _folder_note(held: list[FileFacts]) -> Note:
    opening = next((fact.sentence for fact in held if fact.path.name == "__init__.py" and fact.sentence), None)
    return Note(held[0].path.parent.name, opening or _listed("Holds", [fact.path.name for fact in held]))


def _listed(verb: str, names: tuple[str, ...] | list[str]) -> str:
    return f"{verb} {', '.join(f'`{name}`' for name in names[:5])}." if names else ""


def shortened(notes: list[Note]) -> str:
    """The first notes that fit, one a line."""
    lines, used = [], 0
    for line in map(note_line, notes[:MAX_NOTES]):
        used += len(line)
        if used > MAX_NOTES_CHARACTERS and lines:
            break
        lines.append(line)
    return "\n".join(lines)


def breadcrumb(enclosing: str, imports: list[str], code: str) -> str:
    """What travels beside a chunk, as the chunker writes it."""
    words = set(re.findall(r"\w+", code))
    used = [name for name in imports if name in words][:_MAX_IMPORTS]
    return "\n".join([*filter(None, [enclosing]), *(["imports: " + ", ".join(used)] if used else [])])


def _imported(tree: ast.Module) -> list[str]:
    nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names if alias.name != "*"]


def _without_docstring(lines: list[str], node: Definition) -> str:
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    document = node.body[0]
    if len(node.body) == 1 or document.lineno == node.lineno:
        return ""
    end = document.end_lineno or document.lineno
    return "".join(lines[start : document.lineno - 1] + lines[end : node.end_lineno])


def _signature(lines: list[str], node: Definition) -> str:
    """From `def` or `class` to the colon, on one line, at most 200 characters."""
    text = " ".join("".join(lines[node.lineno - 1 : max(node.lineno, node.body[0].lineno - 1)]).split())
    return text[:200].rstrip(": ")


def _note(lines: list[str], node: Definition) -> Note:
    return Note(node.name, first_sentence(ast.get_docstring(node)) or _signature(lines, node)[:100])


def first_sentence(docstring: str | None) -> str | None:
    """The first sentence of the first paragraph in plain text, or None when it is no good as an answer."""
    if not docstring:
        return None
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0]
    sentence = re.sub(r":[\w:]+:`[~!]?([^`<]*?)(?: <[^`]*>)?`", r"`\1`", sentence).replace("``", "`")
    plain = re.fullmatch(r"[\w\s.,;:'\"`()\[\]/*=<>+-]+[\w.)`]", sentence, re.ASCII)
    if not plain or not 15 <= len(sentence) <= MAX_ANSWER_CHARACTERS or not sentence[0].isupper():
        return None
    if _NO_ANSWER.match(sentence) or sentence.count(" ") < 2:
        return None
    return sentence if sentence.endswith(".") else sentence + "."
