"""The items on the topics of the page for people who are new: which are asked about, and which answers each reads.

A topic is asked about only where the index has facts on it.  It waits for the summaries of the files and folders that
it reads, as a chunk waits for the answers that its context tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from rotary_batch.core import FactKind, Subject, Topic, Unit
from rotary_batch.jobs import Job
from rotary_batch.pages.entry_points import entry_files
from rotary_batch.pages.onboarding import shown_folders, start_files
from rotary_batch.pages.outline import is_test_file
from rotary_batch.pages.overview import MAX_MAIN_FUNCTIONS
from rotary_batch.pages.page_paths import folders_of
from rotary_batch.repo.graph import UNUSED, most_central
from rotary_batch.work import facts, usage
from rotary_batch.work.drafts import save_needs, topic_place
from rotary_batch.work.items import count_needed, item_id_of
from rotary_batch.work.rows import PlannedItem
from rotary_batch.work.store import WorkStore

MAX_CENTRAL = 50  # files that are stored
_PRIORITY = 4 * 10**9  # above all roll-ups: few, and what people read first


def save_central(store: WorkStore, repository_id: int, scores: Mapping[str, float]) -> None:
    """Within a transaction: store the files that the others use most, tests left out, private ones last."""
    code = {path: score for path, score in scores.items() if score > UNUSED and not is_test_file(path)}
    order = sorted(most_central(code), key=_is_private)
    facts.save_central_files(store, repository_id, order[:MAX_CENTRAL])


def _is_private(path: str) -> bool:
    """By its name, as Python and JavaScript have it."""
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("/"))


def topics_to_ask(store: WorkStore, repository_id: int, sources: Sequence[str], job: Job) -> dict[Topic, list[Subject]]:
    """The topics of a job on which there are facts, each with the files and folders whose summaries it reads."""
    if job.topics is None or not sources:
        return {}
    known = facts.stored_facts(store, repository_id, is_test_file)
    mains = [symbol.path for symbol in usage.main_functions(store, repository_id, MAX_MAIN_FUNCTIONS)]
    begin = [Subject(Unit.FILE, path) for path in entry_files(sources, mains, known)]
    folders = [Subject(Unit.DIRECTORY, folder) for folder in shown_folders(folders_of(sources))]
    start = [Subject(Unit.FILE, path) for path in start_files(facts.central_files(store, repository_id))]
    kinds = {one.fact.kind for one in known}
    found = {
        Topic.OVERVIEW: ([Subject(Unit.REPOSITORY, "")], True),
        Topic.ARCHITECTURE: (folders, bool(folders)),
        Topic.ENTRY_POINTS: (begin, bool(begin) or FactKind.ENTRY in kinds),
        Topic.BUILD: ([], not kinds.isdisjoint({FactKind.COMMAND, FactKind.CI})),
        Topic.START: (start, bool(start)),
    }
    return {topic: found[topic][0] for topic in job.topics.prompts if found[topic][1]}


def topic_items(topics: Collection[Topic], job: Job) -> Iterator[PlannedItem]:
    """The items on some topics; they are planned only when something in the repository changed."""
    for topic in topics:
        assert job.topics is not None, "these are topics of the job"
        start = topic_place(topic.subject).start_byte
        yield PlannedItem(
            subject=topic.subject,
            parent=None,
            position=-start,
            priority=_PRIORITY + start,
            max_new_tokens=job.topics.new_tokens,
            max_sentences=job.topics.sentences,
            label=topic.value,
            chunk_start=start,
        )


def plan_needs(store: WorkStore, repository_id: int, job: Job, topics: Mapping[Topic, Sequence[Subject]]) -> None:
    """Within a transaction, when all items are planned: let each topic wait for the summaries that it reads."""
    for topic, subjects in topics.items():
        found = (item_id_of(store, repository_id, job.name, subject) for subject in subjects)
        needed = [item_id for item_id in found if item_id is not None]
        save_needs(store, repository_id, topic_place(topic.subject), needed)
        own = item_id_of(store, repository_id, job.name, topic.subject)
        assert own is not None, "its item is planned"
        count_needed(store, own)
