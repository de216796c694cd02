"""Which installed packages are read, what they are, and where they lie.

Knows names, versions and licences (`importlib.metadata`); knows nothing of examples.  Only permissive licences
are read (PSF, BSD, MIT, Apache-2.0, ISC and the like); a package whose metadata names a copyleft one is refused.
What a package vendors is left out: its licence is not the package's, and it may be a copy of a held-out package.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

STDLIB = "python"  # the standard library under the name of its distribution
TRAINING = (
    "_pytest",
    "accelerate",
    "annotated_types",
    "anyio",
    "attr",
    "contourpy",
    "cycler",
    "dateutil",
    "execnet",
    "fontTools",
    "fsspec",
    "functorch",
    "gguf",
    "grimp",
    "h11",
    "httpcore2",
    "httpx2",
    "huggingface_hub",
    "idna",
    "importlinter",
    "iniconfig",
    "jinja2",
    "kiwisolver",
    "markdown_it",
    "markupsafe",
    "matplotlib",
    "mdurl",
    "mpl_toolkits",
    "mpmath",
    "mypy",
    "mypyc",
    "networkx",
    "numpy",
    "packaging",
    "PIL",
    "pip",
    "pluggy",
    "psutil",
    "pydantic",
    "pyparsing",
    "pytest",
    "regex",
    "requests",
    "safetensors",
    "setuptools",
    "shellingham",
    "sortedcontainers",
    "sqlite_utils",
    "sympy",
    "tabulate",
    "tokenizers",
    "torch",
    "torchgen",
    "transformers",
    "truststore",
    "typing_inspection",
    "urllib3",
    "xdist",
    "yaml",
)
# Whole packages for judging: what a newcomer's own code is like, none of it numerical.  gitdb and smmap are by git's
# authors and certifi, hypothesis, pathspec and tqdm are under the MPL, so neither list has them.
HELD_OUT = ("click", "filelock", "git", "pygments", "rich", "typer")
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "site-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "_vendor",
    "third_party",
    "_vendored_packages",
    "externals",
    "_click",
}
_COPYLEFT = re.compile(r"\b(?:A?GPL|LGPL|MPL|EPL|CDDL|EUPL)\b|GPL|Mozilla|General Public", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package that examples come from."""

    name: str  # as it is imported
    distribution: str
    version: str
    licence: str
    root: Path

    def files(self) -> list[Path]:
        """Its Python files in a fixed order, without tests and without what it vendors."""
        found = (path for path in self.root.rglob("*.py"))
        return sorted(path for path in found if not _SKIPPED_FOLDERS & set(path.relative_to(self.root).parts))


def packages(*, held_out: bool) -> list[Package]:
    """Those of the list that are installed here.  Raises ValueError when one is under a copyleft licence."""
    names = HELD_OUT if held_out else TRAINING
    site = Path(sysconfig.get_paths()["purelib"])
    providers = importlib.metadata.packages_distributions()
    if held_out and (missing := set(HELD_OUT) - providers.keys()):
        raise ValueError(f"{min(missing)}: judges the model and is not installed; `make setup-dev` installs it")
    found = [_installed(name, providers[name][0], site / name) for name in names if name in providers]
    if not held_out:
        found.insert(0, Package(STDLIB, STDLIB, platform.python_version(), "PSF-2.0", _stdlib()))
    return [package for package in found if package.root.is_dir()]


def _stdlib() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _installed(name: str, distribution: str, root: Path) -> Package:
    metadata = importlib.metadata.metadata(distribution)
    licence = _licence(metadata)
    if not licence or _COPYLEFT.search(licence):
        raise ValueError(
            f"{distribution}: its licence is {licence or 'not stated'}; leave it out of training/sources.py"
        )
    return Package(name, distribution, metadata["Version"], licence, root)


def _licence(metadata: importlib.metadata.PackageMetadata) -> str:
    """The SPDX expression where there is one, else the classifiers, else the first line of the free text."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [line.rsplit(" :: ", 1)[-1] for line in metadata.get_all("Classifier") or () if "License ::" in line]
    free = (metadata.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (free[0].strip() if free else "")


def description(package: Package) -> str:
    """The package's read-me as its metadata carry it."""
    if package.name == STDLIB:
        return ""
    return str(importlib.metadata.metadata(package.distribution).get_payload() or "")
