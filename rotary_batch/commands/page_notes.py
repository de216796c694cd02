"""What a user should know of pages after the docs folder was brought up to date."""

from __future__ import annotations

from rotary_batch.pages.files import SyncResult


def text_notes(result: SyncResult) -> tuple[str, ...]:
    """What became of the texts of a model that are on pages, but not in the database."""
    notes = []
    if kept := len(result.kept):
        notes.append(
            f"{_pages(kept)} the text that a model wrote, which this database does not have; `rotary-batch drain` "
            f"writes it again, --db names another database, `rotary-batch render --overwrite` drops the text"
        )
    if lost := len(result.without_text):
        notes.append(
            f"{lost} {'page that showed' if lost == 1 else 'pages that showed'} a model's text now "
            f"{'shows' if lost == 1 else 'show'} less of it: sources, model or job changed; `rotary-batch drain` "
            f"writes it again"
        )
    return tuple(notes)


def _pages(number: int) -> str:
    return "1 page keeps" if number == 1 else f"{number:,} pages keep"
