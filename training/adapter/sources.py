"""Packages of documented code that were fetched into a folder, unpacked, with name, version and licence.

    training/out/sources/pip/*.whl     pip download --no-deps --only-binary=:all: NAME
    training/out/sources/npm/*.tgz     npm pack NAME
    training/out/sources/deb/*.deb     apt-get download NAME
    training/out/sources/src/*.dsc     apt-get source --download-only NAME

Only permissive licences are read: a package that states none, or one of the copyleft ones, is left out.  Knows archives
and licences; knows nothing of examples.
"""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(os.environ.get("ADAPTER_SOURCES", Path(__file__).parents[1] / "out" / "sources"))
# Whole packages for judging, none of them read in training, nor is anything that shares half of its words with them.
HELD_OUT = {
    "pip": ("click", "filelock", "git", "gitpython", "pygments", "rich", "typer"),
    "npm": ("luxon", "ws", "commander", "cheerio", "immutable"),
    "deb": (
        "golang-github-spf13-cobra-dev",
        "golang-github-gorilla-mux-dev",
        "golang-github-sirupsen-logrus-dev",
        "golang-github-gorilla-websocket-dev",
        "librust-petgraph-dev",
        "librust-indexmap-dev",
        "librust-bytes-dev",
        "librust-csv-dev",
    ),
    "src": ("jsoup", "libcommons-codec-java", "jcommander"),
}
_PERMISSIVE = re.compile(
    r"\b(?:MIT|Expat|BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|zlib|BSL|Boost|PostgreSQL|HPND|curl|Unlicense|"
    r"0BSD|CC0|public[- ]domain|libpng|Go-BSD|ASL|X11|UIUC|NCSA)",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(
    r"\b(?:A?GPL|LGPL|MPL|EPL|CDDL|EUPL|CPL|OSL|SSPL|BUSL|CC-BY|GFDL|Artistic|Ruby)\b|GPL|Mozilla|General Public"
    r"|Eclipse",
    re.IGNORECASE,
)


# Their copyright files state the licence of the whole in other words.
_READ_BY_HAND = {"golang-1.19-src": "BSD-3-Clause", "rust-src": "MIT or Apache-2.0"}


@dataclass(frozen=True, slots=True)
class Package:
    """One unpacked package."""

    registry: str
    name: str
    version: str
    licence: str
    root: Path
    summary: str

    @property
    def is_held_out(self) -> bool:
        """Whether the package judges and does not train."""
        return self.name.lower() in HELD_OUT[self.registry]


def packages() -> list[Package]:
    """All fetched packages under a permissive licence, unpacked, in the order of registry and name."""
    found = [*_wheels(), *_npm(), *_debs(), *_debian_sources()]
    return sorted(
        (one for one in found if is_permissive(one.licence)), key=lambda one: (one.registry, one.name.lower())
    )


def is_permissive(licence: str) -> bool:
    """Whether a licence names a permissive one and no copyleft one; of a choice between two, one of them does."""
    choices = re.split(r"\s+(?:or|OR)\s+", licence.strip("()")) if "," not in licence else [licence]
    return any(_PERMISSIVE.search(one) and not _COPYLEFT.search(one) for one in choices)


def _unpacked(archive: Path, registry: str) -> Path:
    return SOURCES / "unpacked" / registry / archive.stem


def _wheels() -> Iterator[Package]:
    for archive in sorted((SOURCES / "pip").glob("*.whl")):
        root = _unpacked(archive, "pip")
        if not root.is_dir():
            with zipfile.ZipFile(archive) as wheel:
                wanted = [n for n in wheel.namelist() if n.endswith((".py", ".pyi", "METADATA"))]
                wheel.extractall(root, wanted)
        metadata = email.message_from_bytes(next(root.glob("*.dist-info/METADATA")).read_bytes())
        yield Package(
            "pip", metadata["Name"], metadata["Version"], _wheel_licence(metadata), root, metadata["Summary"] or ""
        )


def _wheel_licence(metadata: email.message.Message) -> str:
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [line.rsplit(" :: ", 1)[-1] for line in metadata.get_all("Classifier") or () if "License ::" in line]
    free = (metadata.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (free[0].strip() if free else "")


def _npm() -> Iterator[Package]:
    for archive in sorted((SOURCES / "npm").glob("*.tgz")):
        root = _unpacked(archive, "npm")
        if not root.is_dir():
            root.mkdir(parents=True)
            with tarfile.open(archive) as tar:
                members = [m for m in tar.getmembers() if m.isreg() and m.size < 400_000]
                tar.extractall(
                    root,
                    [m for m in members if m.name.endswith((".js", ".ts", ".mjs", ".tsx", "package.json"))],
                    filter="data",
                )
        manifest = json.loads(min(root.rglob("package.json"), key=lambda p: len(p.parts)).read_text())
        licence = manifest.get("license") or manifest.get("licenses") or ""
        yield Package("npm", manifest["name"], manifest["version"], str(licence), root, manifest.get("description", ""))


def _debs() -> Iterator[Package]:
    for archive in sorted((SOURCES / "deb").glob("*.deb")):
        root = _unpacked(archive, "deb")
        name, version, _ = archive.stem.split("_")
        if not root.is_dir():
            root.mkdir(parents=True)
            subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
        found = [*(root / "usr/share/doc").glob("*/copyright")] if (root / "usr/share/doc").is_dir() else []
        text = next((p.read_text(errors="replace") for p in found if p.exists()), "")
        yield Package("deb", name, version, _READ_BY_HAND.get(name) or debian_licence(text), root, "")


def debian_licence(text: str) -> str:
    """The licence of `Files: *` in a machine-readable copyright file; of another form, its words for licences."""
    stanzas = re.split(r"\n\s*\n", text)
    for stanza in stanzas:
        files = re.search(r"^Files:\s*(.*?)(?=^\S)", stanza + "\nX", re.MULTILINE | re.DOTALL)
        if (
            files
            and "*" in files.group(1).split()
            and (licence := re.search(r"^License:\s*(.+)$", stanza, re.MULTILINE))
        ):
            return licence.group(1).strip()
    if "Files:" in text:
        found = re.findall(r"^License:\s*(.+)$", text, re.MULTILINE)
        return ", ".join(dict.fromkeys(one.strip() for one in found))
    return ", ".join(dict.fromkeys(re.findall(r"(?:L|A)?GPL|MPL|MIT|BSD|Apache|zlib|public domain", text)))


def _debian_sources() -> Iterator[Package]:
    for archive in sorted((SOURCES / "src").glob("*.dsc")):
        name, version = archive.stem.split("_", 1)
        root = _unpacked(archive, "src")
        if not root.is_dir():
            root.parent.mkdir(parents=True, exist_ok=True)
            command = ["dpkg-source", "--no-check", "--skip-patches", "-x", archive, root]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                continue
        copyright_file = root / "debian/copyright"
        text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
        yield Package("src", name, version, debian_licence(text), root, "")
