"""Files of settings and data: YAML, TOML, JSON, Dockerfiles, Makefiles.  Their top-level keys are symbols."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rotary_batch.repo.comments import comment_above, text_of
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import around, one_line


def _names_only(definition: Definition) -> Iterable[Definition]:
    """Without values, which may be passwords."""
    yield definition._replace(signature=definition.name)


def _stages(definition: Definition) -> Iterable[Definition]:
    """A build stage by its name, else by its image."""
    if definition.kind != "stage":
        yield from _names_only(definition)
        return
    alias, image = definition.node.child_by_field_name("as"), definition.node.named_children[0]
    yield definition._replace(name=text_of(alias or image), signature=one_line(definition.node))


def _targets(definition: Definition) -> Iterable[Definition]:
    """Targets that a person calls: neither `.PHONY` and its like nor patterns."""
    if definition.kind != "target":
        yield from _names_only(definition)
    elif not definition.name.startswith(".") and "%" not in definition.name:
        rule = around(definition.node, ("rule",))
        yield definition._replace(signature=text_of(rule).split("\n", 1)[0] if rule is not None else definition.name)


def _target_doc(definition: Definition) -> str | None:
    """The comment above a rule, or behind its targets as in `all: test  ## Everything.`."""
    rule = around(definition.node, ("rule",)) if definition.kind == "target" else None
    if rule is None:
        return comment_above(definition.outer)
    behind = rule.children[0] if rule.children else None
    while behind is not None and behind.type != "comment":
        behind = behind.next_sibling
    return comment_above(rule) or (text_of(behind).strip("# ") if behind is not None else None)


_SETTINGS = Language(
    name="",
    grammar=("", "language"),
    queries=(),
    endings=(),
    is_data=True,
    refine=_names_only,
    docstring=lambda definition: comment_above(definition.outer),
)
YAML = replace(
    _SETTINGS, name="yaml", grammar=("tree_sitter_yaml", "language"), queries=("yaml",), endings=(".yml", ".yaml")
)
TOML = replace(_SETTINGS, name="toml", grammar=("tree_sitter_toml", "language"), queries=("toml",), endings=(".toml",))
JSON = replace(
    _SETTINGS,
    name="json",
    grammar=("tree_sitter_json", "language"),
    queries=("json",),
    endings=(".json", ".jsonc", ".json5"),
    docstring=lambda _: None,
)
DOCKERFILE = replace(
    _SETTINGS,
    name="dockerfile",
    grammar=("tree_sitter_dockerfile", "language"),
    queries=("dockerfile",),
    endings=(".dockerfile", ".containerfile"),
    file_names=("Dockerfile", "Containerfile"),
    refine=_stages,
)
MAKE = replace(
    _SETTINGS,
    name="make",
    grammar=("tree_sitter_make", "language"),
    queries=("make",),
    endings=(".mk", ".mak"),
    file_names=("Makefile", "makefile", "GNUmakefile"),
    refine=_targets,
    docstring=_target_doc,
)
