"""Which files of a repository this program wrote: pages of an earlier docs folder, and the files next to them."""

from __future__ import annotations

from collections.abc import Sequence

from rotary_batch.core import FileClass, SourceFile

REASON = "a page that rotary-batch wrote"
_FRONT, _SIGNATURE = b'---\ngenerated_by: "rotary-batch"\n', b"Written by rotary-batch; SHA-256 of the lines above: "
_UNSIGNED = ("llms.txt", "llms-full.txt")  # by their names; no grammar reads them


def is_own_page(data: bytes) -> bool:
    """Whether a file says of itself that this program wrote it."""
    return data.startswith(_FRONT) or _SIGNATURE in data[-300:]


def with_own_files(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Files with the texts next to the first page of a docs folder counted as docs too."""
    folders = {file.path.removesuffix("index.md") for file in files if _is_first_page(file)}
    own = {folder + name for folder in folders for name in _UNSIGNED}
    return [
        file._replace(file_class=FileClass.DOCS, reason=REASON, language=None) if file.path in own else file
        for file in files
    ]


def own_folders(files: Sequence[SourceFile], docs_dir: str) -> list[str]:
    """The docs folders of this program among the files, but the one that is in use."""
    tops: set[str] = set()
    for path in sorted(file.path for file in files if _is_first_page(file)):
        folder = path.removesuffix("index.md").rstrip("/")
        above = folder
        while above and above not in tops:
            above = above.rpartition("/")[0]
        if not above and folder != docs_dir.rstrip("/"):
            tops.add(folder)
    return sorted(tops)


def _is_first_page(file: SourceFile) -> bool:
    return file.file_class is FileClass.DOCS and file.reason == REASON and file.path.rpartition("/")[2] == "index.md"
