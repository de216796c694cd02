"""JavaScript and TypeScript: relative paths, packages of the workspace, `paths` of a tsconfig."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, ancestors, joined, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Meaning, Module, Source

_ENDINGS = (".ts", ".tsx", ".d.ts", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".vue", ".svelte")
_COMMENTS = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


class EcmaScript(Dialect):
    """Names come from the file and its imports alone."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._packages: dict[str, str | None] = {}
        self._entries: dict[str, list[str]] = {}
        self._aliases: dict[str, list[tuple[str, str]]] = {}  # by folder of the tsconfig
        for path in sorted(source.manifests):
            name = path.rpartition("/")[2]
            if name == "package.json":
                self._add_package(parent_of(path), _loads(source.manifests[path]))
            elif name in {"tsconfig.json", "jsconfig.json"}:
                self._add_aliases(parent_of(path), _loads(source.manifests[path]))

    def _add_package(self, folder: str, manifest: dict[str, Any]) -> None:
        name = manifest.get("name")
        if isinstance(name, str):
            self._packages[name] = None if name in self._packages else folder
            entries = [manifest.get(key) for key in ("source", "types", "module", "main")]
            self._entries[folder] = [entry for entry in entries if isinstance(entry, str)]

    def _add_aliases(self, folder: str, config: dict[str, Any]) -> None:
        options = config.get("compilerOptions")
        options = options if isinstance(options, dict) else {}
        base, paths = options.get("baseUrl"), options.get("paths")
        below = joined(folder, base) if isinstance(base, str) else folder
        if below is None:
            return
        aliases = self._aliases.setdefault(folder, [])
        for pattern, targets in paths.items() if isinstance(paths, dict) else ():
            for target in targets if isinstance(targets, list) else ():
                if isinstance(target, str) and (to := joined(below, target)) is not None:
                    aliases.append((pattern, to))
        if isinstance(base, str):
            aliases.append(("*", f"{below}/*" if below else "*"))

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """`./a`, `@workspace/b/c`, or what a `paths` pattern makes of it."""
        if module.startswith("."):
            yield from self._file(joined(parent_of(here.path), module))
            return
        for folder in ancestors(here.path):
            if folder in self._aliases:
                for pattern, target in self._aliases[folder]:
                    if (rest := _matched(pattern, module)) is not None:
                        yield from self._file(joined("", target.replace("*", rest)))
                break
        yield from self._package(module)

    def _package(self, module: str) -> Iterator[Meaning]:
        parts = module.split("/")
        size = 2 if module.startswith("@") else 1
        folder = self._packages.get("/".join(parts[:size]))
        if folder is None:
            return
        if len(parts) > size:
            rest = "/".join(parts[size:])
            for inside in (rest, f"src/{rest}"):
                yield from self._file(joined(folder, inside))
            return
        for entry in [*self._entries.get(folder, ()), "src/index", "index", "lib/index"]:
            yield from self._file(joined(folder, entry))

    def _file(self, path: str | None) -> Iterator[Meaning]:
        if path is None:
            return
        stem = re.sub(r"\.(js|jsx|mjs|cjs)$", "", path)
        index = f"{path}/index" if path else "index"
        names = [path, *(path + e for e in _ENDINGS), *(stem + e for e in _ENDINGS), *(index + e for e in _ENDINGS)]
        for name in names:
            if name in self.source.languages:
                yield Module(name)
                return

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """Globals are not of the repository."""
        return None


def _loads(data: bytes) -> dict[str, Any]:
    """JSON, with the comments and commas that a tsconfig may have."""
    text = data.decode("utf-8", "replace").lstrip("\ufeff")
    text = _COMMENTS.sub(lambda found: found[0] if found[0].startswith('"') else " ", text)
    try:
        value = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _matched(pattern: str, module: str) -> str | None:
    """What the star of a pattern stands for."""
    start, star, end = pattern.partition("*")
    if not star:
        return "" if module == pattern else None
    is_match = len(module) >= len(start) + len(end) and module.startswith(start) and module.endswith(end)
    return module[len(start) : len(module) - len(end)] if is_match else None
