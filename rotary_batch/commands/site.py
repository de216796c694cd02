"""`site`: build the docs folder of a repository into a site that needs no other host."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rotary_batch.commands.drain import NOT_WHOLE
from rotary_batch.commands.repositories import select_repositories, without_folder
from rotary_batch.commands.staging import Staging
from rotary_batch.config import cache_dir
from rotary_batch.errors import InputError, RepositoryError, UnavailableError
from rotary_batch.pages.safe_folder import SafeFolder, open_safe_folder
from rotary_batch.repo.forge import link_template
from rotary_batch.repo.git import Repository, open_repository
from rotary_batch.sync import docs_folder, load_index_view
from rotary_batch.window import Window
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

MARKER = ".rotary-batch-site"  # in a folder that may be replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSite:
    """A site on disk."""

    folder: str
    pages: int
    source_pages: int
    forge: str | None  # template of the links to sources, if they lead to a code forge
    notes: tuple[str, ...]


def build_site(store: WorkStore, root: Path, to: Path | None, window: Window, *, source_pages: bool) -> BuiltSite:
    """Build the pages on disk into a folder, which is replaced as a whole.

    Links to sources lead to the code forge that the repository was cloned from, if it has the commit, else to pages of
    the sources; `source_pages` asks for these in any case.
    """
    row = _row(store, root)
    if importlib.util.find_spec("zensical") is None:
        raise UnavailableError("Zensical, which builds sites, is not installed; run `pip install 'rotary-batch[site]'`")
    target, view = _target(row, to), load_index_view(store, row)
    with _work_folder() as work, _docs(row) as docs:
        staging = Staging(work, view, window)
        staging.copy_docs(docs)
        forge = None if source_pages else _forge(row)
        sources = set[str]() if forge else staging.write_sources(_repository(row))
        site = staging.build()
        num_pages = staging.finish(site, forge, sources)
        _replace(target, site)
    missing = 0 if forge else len(view.sources) - len(sources)
    note = f"{missing} sources changed since the index and have no page; run `rotary-batch index {row.root}`"
    return BuiltSite(
        folder=str(target),
        pages=num_pages,
        source_pages=len(sources),
        forge=forge,
        notes=(note,) if missing else (),
    )


def _row(store: WorkStore, root: Path) -> RepositoryRow:
    (row,) = select_repositories(store, [root])
    if without_folder([row]):
        raise RepositoryError(f"{root}: no such folder; name the folder of a repository")
    if not row.plan_key:
        raise RepositoryError(f"{root}: {NOT_WHOLE}; run `rotary-batch index {root}` again")
    return row


def _target(row: RepositoryRow, to: Path | None) -> Path:
    """The folder for the site.  Raises InputError when something else is there."""
    docs = docs_folder(row)
    target = to.absolute() if to else docs.parent / f"{docs.name.removesuffix('-docs')}-site"
    if target.is_symlink() or (target.exists() and not _may_replace(target)):
        raise InputError(f"{target}: not a site that rotary-batch built; move it away, or name a folder with --to")
    inside, around = target.resolve(), docs.resolve()
    if around in (inside, *inside.parents) or inside in around.parents:
        raise InputError(f"{target}: the docs folder, or around or inside it; name another folder with --to")
    return target


def _may_replace(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))


@contextmanager
def _work_folder() -> Iterator[Path]:
    above = cache_dir(os.environ) / "site"
    above.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=above) as folder:
        yield Path(folder)


@contextmanager
def _docs(row: RepositoryRow) -> Iterator[SafeFolder]:
    folder = open_safe_folder(Path(row.root), row.docs_dir, create=False)
    if folder is None:
        raise InputError(f"{docs_folder(row)}: no pages yet; run `rotary-batch render {row.root}`")
    with folder:
        yield folder


def _forge(row: RepositoryRow) -> str | None:
    """The link template of the settings, else of the forge that has the indexed commit."""
    if row.link_template or row.worktree or not row.commit_id:
        return row.link_template
    return link_template(Path(row.root), row.commit_id)


def _repository(row: RepositoryRow) -> Repository:
    return open_repository(Path(row.root), worktree=row.worktree, docs_dir=row.docs_dir)


def _replace(target: Path, site: Path) -> None:
    """Put a built site in the place of an older one.  Git and an index of the folder around it leave it out."""
    (site / MARKER).touch()
    (site / ".nojekyll").touch()  # GitHub Pages then serves every file as it is
    (site / ".gitignore").write_text("*\n")
    new = target.with_name(f"{target.name}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    if new.is_symlink() or (new.exists() and not (new / MARKER).is_file()):
        raise InputError(f"{new}: in the way of the new site; move it away")
    if new.exists():
        shutil.rmtree(new)
    shutil.move(site, new)
    if target.exists():
        shutil.rmtree(target)
    new.rename(target)
