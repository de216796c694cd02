"""What `verify` compares of the models that repositories use: every byte of their packs, with the digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rotary_batch.commands.facts import Fact, State
from rotary_batch.commands.keeping import model_digest
from rotary_batch.errors import RotaryError
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.sizes import count, size_text
from rotary_batch.window import Window
from rotary_batch.work.rows import RepositoryRow


def pack_facts(rows: Sequence[RepositoryRow], window: Window, progress: Callable[[int, int], None]) -> Iterator[Fact]:
    """The facts about the packs of some repositories, each pack once.  Raises StoppedError."""
    by_pack: dict[str, list[RepositoryRow]] = {}
    for row in rows:
        by_pack.setdefault(row.pack_dir, []).append(row)

    def checked(done: int, total: int) -> None:
        window.check()
        progress(done, total)

    for pack, users in by_pack.items():
        yield from _pack_facts(Path(pack), users, checked)


def _pack_facts(pack: Path, rows: Sequence[RepositoryRow], progress: Callable[[int, int], None]) -> Iterator[Fact]:
    if not (pack / MANIFEST_NAME).is_file():
        yield Fact("pack", str(pack), State.UNKNOWN, "not on this machine", None)
        return
    try:
        damaged = _damaged(pack, progress)
        manifest = Manifest.load(pack)
    except ImportError as error:
        yield Fact("pack", str(pack), State.UNKNOWN, f"{error.name} is not installed, which reads it", None)
        return
    except (OSError, RotaryError) as error:
        if isinstance(error, RotaryError) and error.exit_code != 3:
            raise
        yield Fact("pack", str(pack), State.DAMAGED, str(error), "pack the model again")
        return
    again = "pack the model again, in the place of this folder"
    yield from (Fact("pack", str(pack / name), State.DAMAGED, "wrong digest", again) for name in damaged)
    if not damaged:
        words = f"{count(len(manifest.slabs), 'expert')} and the rest have their digests, {size_text(_nbytes(pack))}"
        yield Fact("pack", str(pack), State.AGREES, words)
    for row in rows:
        if row.model_digest not in {None, model_digest(manifest)}:
            words = f"another model than {row.model_name}, with which {row.root} was indexed"
            named = "" if row.demonstration else f" --model {pack}"
            yield Fact("pack", str(pack), State.DIFFERS, words, f"`rotary-batch index {row.root}{named}`")


def _damaged(pack: Path, progress: Callable[[int, int], None]) -> list[str]:
    from rotary_batch.engine.packs.pack import verify  # only this needs the engine's libraries

    return verify(pack, progress)


def _nbytes(pack: Path) -> int:
    return sum(file.stat().st_size for file in pack.iterdir() if file.is_file())
