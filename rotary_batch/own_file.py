"""A repository's own `rotary.toml`: untrusted data, of which only harmless keys apply.

The author of a repository must not choose which files of the user are written, which model is opened or what it is
asked.  All keys apply once the user trusts the file.  Its digest is stored in the state folder, so that a later commit
cannot change what was checked.  Nothing in such a file is an error; what does not apply is named in a note.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch import private_file
from rotary_batch.config import FILE_NAME, LINK_FIELD, Settings, parse_toml, read_value, refuse_unknown, state_dir
from rotary_batch.errors import ConfigError, StorageError

HARMLESS = ("job", "include", "exclude", "out", "link_template")
USERS_OWN = (  # not even of a trusted file: a command that runs, a file outside of the docs, machines that get the code
    "prometheus",
    "on_finish",
    "ray",
    "ray_workers",
    "ray_resource",
    "insecure_ray",
)
_READ_FROM = ("model", "jobs", "prompts")  # folders with the model and its prompts
MAX_NBYTES = 64 * 1024
_MAX_LINE_NBYTES = 2_000  # tomllib takes 10 s for one key of 30,000 parts, and its time grows with their square
_MAX_PATTERNS = 200
_MAX_CHARACTERS = 200  # of one value
_MAX_NAMED = 10  # refused keys in one note
_KNOWN = tuple(field.name for field in fields(Settings))
# A folder below the repository.  No name begins with a dot or a tilde, so no `..`, `.git` or `.github`.
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,7}")
# No characters that end a link or an attribute, and no user name before the host.
_PLAIN_LINK = re.compile(rf"https://[A-Za-z0-9.-]+(:[0-9]+)?/([A-Za-z0-9_.~:/?#@&=+,;%-]|{LINK_FIELD.pattern})*")


class OwnSettings(NamedTuple):
    """What applies of a repository's own file, and notes about the rest."""

    values: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()


def read_own(root: Path, environment: Mapping[str, str]) -> OwnSettings:
    """The settings from a repository's own file that apply."""
    path = root / FILE_NAME
    try:
        data = _read(root)
        if data is None:
            return OwnSettings()
        table, known = parse_toml(path, data), _trusted_digest(root, environment)
        if known == _digest(data):
            return _trusted(path, table)
    except ConfigError as error:
        return OwnSettings(notes=(f"{_one_line(str(error))}; the file is ignored",))
    own = _harmless(path, table)
    changed = f"{path}: changed since it was trusted; check it, then run `rotary-batch trust {root}` again"
    return own if known is None else own._replace(notes=(changed, *own.notes))


def trust(root: Path, environment: Mapping[str, str]) -> OwnSettings:
    """Apply all keys of a repository's file until it changes; returns the settings.

    Raises ConfigError when there is no such file or a key is wrong, StorageError.
    """
    path = root / FILE_NAME
    data = _read(root)
    if data is None:
        raise ConfigError(f"{path}: no such file; there is nothing to trust")
    own = _trusted(path, parse_toml(path, data))
    _write_record(trust_record(root, environment), {"root": str(root), "sha256": _digest(data)})
    return own


def trust_record(root: Path, environment: Mapping[str, str]) -> Path:
    """The file with the digest that the user trusts for this repository; to revoke the trust, delete it."""
    return state_dir(environment) / "trusted" / f"{_digest(os.fsencode(root))}.json"


def _read(root: Path) -> bytes | None:
    """The file's bytes, or None when it does not exist.  Raises ConfigError when it is not a small plain file."""
    path = root / FILE_NAME
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise ConfigError(f"{path}: {reason}; settings are read from a plain file") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path}: not a file; settings are read from a plain file")
        data = _up_to(MAX_NBYTES + 1, descriptor)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make it readable") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_NBYTES:
        raise ConfigError(f"{path}: over {MAX_NBYTES:,} bytes; settings are shorter")
    if max(map(len, data.split(b"\n"))) > _MAX_LINE_NBYTES:
        raise ConfigError(f"{path}: a line of over {_MAX_LINE_NBYTES:,} bytes; write one pattern a line")
    return data


def _up_to(nbytes: int, descriptor: int) -> bytes:
    data = b""
    while part := os.read(descriptor, nbytes - len(data)):
        data += part
    return data


def _trusted(path: Path, table: Mapping[str, Any]) -> OwnSettings:
    """All keys except paths into the repository: a later commit could change those files but not the digest."""
    refuse_unknown(str(path), table, _KNOWN)
    values: dict[str, Any] = {name: read_value(path, name, value) for name, value in table.items()}
    inside = [name for name in _READ_FROM if name in values and _is_in_repository(values[name], path.parent)]
    users = [name for name in USERS_OWN if name in values]
    notes = [
        f"{path}: {name}: points into the repository, whose files can change; copy the folder out of it"
        for name in inside
    ]
    notes += [f"{path}: {name}: ignored: it applies in your own settings only" for name in users]
    return OwnSettings({name: value for name, value in values.items() if name not in {*inside, *users}}, tuple(notes))


def _is_in_repository(path: Path, root: Path) -> bool:
    """Checked as written and with its links resolved: a commit can also change a link."""
    top = next((folder for folder in (root, *root.parents) if os.path.lexists(folder / ".git")), root)
    forms = (os.path.abspath(path), os.path.realpath(path))  # noqa: PTH100 - pathlib keeps `..`, and fails at a loop
    return any(Path(form).is_relative_to(top) for form in forms)


def _harmless(path: Path, table: Mapping[str, Any]) -> OwnSettings:
    """What applies of an untrusted file.  No note repeats a value: it may be an attack on a page."""
    values, notes = {}, []
    if refused := [name for name in table if name not in HARMLESS]:
        notes.append(_refusal(path, refused))
    for name in [name for name in HARMLESS if name in table]:
        try:
            value = read_value(path, name, table[name])
            wrong = _not_plain(name, value)
        except ConfigError:
            wrong = "not a valid value"
        if wrong:
            notes.append(f"{path}: {name}: {wrong}; the key is ignored")
        else:
            values[name] = value
    return OwnSettings(values, tuple(notes))


def _refusal(path: Path, names: list[str]) -> str:
    """A note on the keys that do not apply.  A name may be anything, so only plain ones are repeated."""
    plain = sorted(name for name in names if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name))[:_MAX_NAMED]
    rest = len(names) - len(plain)
    others = [] if not rest else [f"{rest} other key{'s' * (rest > 1)}" if plain else f"{rest} unknown keys"]
    return (
        f"{path}: ignored: {', '.join([*plain, *others])}. A repository may set {', '.join(HARMLESS)}; the rest goes "
        f"into your own settings, or counts after `rotary-batch trust {path.parent}`"
    )


def _not_plain(name: str, value: Any) -> str | None:  # noqa: ANN401 - as read
    """What is wrong with an untrusted value, or None."""
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > _MAX_PATTERNS or any(len(part) > _MAX_CHARACTERS for part in parts):
        return f"over {_MAX_PATTERNS} patterns or {_MAX_CHARACTERS} characters"
    if name == "out" and not _PLAIN_FOLDER.fullmatch(value):
        return "not a folder below the repository with plain names"
    if name == "link_template" and not _PLAIN_LINK.fullmatch(value):
        return "not a plain https:// link"
    return None


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


def _trusted_digest(root: Path, environment: Mapping[str, str]) -> str | None:
    try:
        record = json.loads(trust_record(root, environment).read_bytes())
        return str(record["sha256"]) if record["root"] == str(root) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # no record, or one that this program did not write


def _write_record(path: Path, record: Mapping[str, str]) -> None:
    try:
        private_file.write(path, json.dumps(record))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; trust cannot be recorded") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
