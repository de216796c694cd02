"""Load `prompts/*.md` and fill them: `$name` variables, fences, control markers that are spelt as text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rotary_batch.errors import ConfigError

# Markers that chat templates spell as plain text.  The tokenizer never turns them into control tokens
# (content is encoded apart), but a model may have learnt to obey the letters.
_MARKER = re.compile(r"\[(/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS))\]|<(<SYS>|</SYS>)>|<\|(\w+)\|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledPrompt:
    """A prompt ready to be encoded, and how many control markers were broken up in it."""

    text: str
    num_markers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt file."""

    name: str
    text: str

    @property
    def variables(self) -> frozenset[str]:
        """The `$names` that `fill` needs values for."""
        return frozenset(Template(self.text).get_identifiers())

    def fill(self, values: Mapping[str, str]) -> FilledPrompt:
        """Substitute the values; `$fence` is derived from them.  Raises ConfigError for a missing one."""
        broken = {name: break_markers(value) for name, value in values.items()}
        safe = {name: text for name, (text, _) in broken.items()} | {"fence": fence(values)}
        if missing := self.variables - safe.keys():
            raise ConfigError(f"prompts/{self.name}.md: no value for ${min(missing)}; use one of {sorted(safe)}")
        text = Template(self.text).substitute(safe).strip()
        return FilledPrompt(text=text, num_markers=sum(count for _, count in broken.values()))


def fence(values: Mapping[str, str]) -> str:
    """A delimiter that the fenced text cannot predict; the same text always has the same one."""
    digest = hashlib.sha256("\0".join(f"{k}={v}" for k, v in sorted(values.items())).encode("utf-8", "surrogateescape"))
    return f"text-{digest.hexdigest()[:6]}"


def break_markers(text: str) -> tuple[str, int]:
    """Put a space into every textual control marker, so that it reads the same and has no effect."""
    return _MARKER.subn(lambda match: match.group()[0] + " " + match.group()[1:], text)


def load_prompts(folder: Path) -> dict[str, Prompt]:
    """All `*.md` of a folder by their stem.  Raises ConfigError when there are none."""
    prompts = {path.stem: _load(path) for path in sorted(folder.glob("*.md"))}
    if not prompts:
        raise ConfigError(f"{folder}: no prompts (*.md) in this folder; reinstall the package or name another folder")
    return prompts


def _load(path: Path) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if not Template(text).is_valid():
        raise ConfigError(f"{path}: a $ that starts no name; write $$ for a dollar sign")
    return Prompt(name=path.stem, text=text)
