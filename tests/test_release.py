"""What a release holds: every file that the program needs, and no other.  The wheel here is built from the sdist."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rotary_batch import __version__

ROOT = Path(__file__).parent.parent
NAME = f"rotary_batch-{__version__}"
METADATA = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
BUNDLED = {"jobs": "rotary_batch/_bundled/jobs", "prompts": "rotary_batch/_bundled/prompts"}
SDIST_FOLDERS = ("rotary_batch", "jobs", "prompts", "tests", "benchmarks", "training", "deploy", "docs")
SDIST_FILES = {
    ".gitignore",
    "CHANGELOG.md",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
}
GENERATED = {"__pycache__", "build", ".hypothesis"}


def build(source: Path, folder: Path, target: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next(folder.iterdir())


def files_below(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not GENERATED.intersection(path.parts)]
    return {path.relative_to(folder.parent).as_posix() for path in paths}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, sdist):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build(folder / NAME, tmp_path_factory.mktemp("wheel"), "wheel")


def test_the_wheel_holds_the_package_its_jobs_prompts_and_man_page_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    expected = files_below(ROOT / "rotary_batch")
    for folder, inside in BUNDLED.items():
        expected |= {name.replace(folder, inside, 1) for name in files_below(ROOT / folder)}
    assert names == expected | METADATA | {f"{NAME}.data/data/share/man/man1/rotary-batch.1"}


def test_the_sdist_holds_the_source_and_nothing_else(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.removeprefix(f"{NAME}/") for member in archive.getmembers() if member.isfile()}
    assert names == SDIST_FILES.union(*(files_below(ROOT / folder) for folder in SDIST_FOLDERS))


def test_the_wheel_fits_a_package_index(wheel):
    assert wheel.stat().st_size < 30_000_000  # of which the adapter is 13; an index takes 100


def test_the_newest_version_of_the_changelog_is_this_one():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", released[0])


def test_another_system_is_refused_in_one_line():
    code = "import platform; platform.system = lambda: 'Darwin'; from rotary_batch.__main__ import main; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (69, "")
    assert run.stderr == (
        "rotary-batch: rotary-batch runs on Linux only, and this is Darwin; on Windows, use it inside WSL 2\n"
    )
