"""Cargo, Go modules, CMake, Maven and Gradle: their commands are the same in every project."""

from __future__ import annotations

from collections.abc import Iterator

from rotary_batch.core import Fact, FactKind
from rotary_batch.repo.project.tables import inner, toml, words


def cargo(text: str) -> Iterator[Fact]:
    """A crate or a workspace, and the programs that it names."""
    tables = toml(text)
    if "package" in tables or "workspace" in tables:
        yield from _commands("cargo build", "cargo test")
    programs = tables.get("bin")
    for program in programs if isinstance(programs, list) else ():
        if isinstance(program, dict) and words(program.get("name")):
            name = words(program["name"])
            yield Fact(FactKind.ENTRY, name, words(program.get("path")) or f"src/bin/{name}.rs")
    if name := words(inner(tables, "package").get("default-run")):
        yield Fact(FactKind.COMMAND, "cargo run", words=f"It runs `{name}`.")


def go_module(text: str) -> Iterator[Fact]:
    """A module."""
    if any(line.startswith("module ") for line in text.splitlines()):
        yield from _commands("go build ./...", "go test ./...")


def cmake(text: str) -> Iterator[Fact]:
    """A project; a folder of one has no `project()`."""
    folded = text.lower().replace(" ", "")
    if "project(" in folded:
        yield from _commands("cmake -B build", "cmake --build build")
        if "enable_testing(" in folded or "include(ctest)" in folded:
            yield from _commands("ctest --test-dir build")


def maven(text: str) -> Iterator[Fact]:
    """A project."""
    if "<project" in text:
        yield from _commands("mvn package", "mvn test")


def gradle(text: str) -> Iterator[Fact]:
    """A build."""
    if text.strip():
        yield from _commands("gradle build", "gradle test")


def _commands(*commands: str) -> Iterator[Fact]:
    return (Fact(FactKind.COMMAND, command) for command in commands)
