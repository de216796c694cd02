"""Resolve the names of a repository: in changed files, and in those that may ask for what is new or gone in these."""

from __future__ import annotations

from rotary_batch.core import ParsedFile
from rotary_batch.repo.git import Repository
from rotary_batch.repo.graph import calls
from rotary_batch.repo.manifests import NAMES, manifests
from rotary_batch.repo.resolve.interface import Interface, change, interface
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.work import affected, graph
from rotary_batch.work import index as stored
from rotary_batch.work.store import WorkStore


def save_parsed(store: WorkStore, repository_id: int, one: ParsedFile, plan_key: str) -> None:
    """Within a transaction: store a source file; the edges to its symbols follow them, or all are to be resolved."""
    path = one.file.path
    if not graph.is_resolved(store, repository_id):
        stored.save_parsed(store, repository_id, one, plan_key)
        return
    before = _stored_interface(store, repository_id, path)
    stored.save_parsed(store, repository_id, one, plan_key)
    after = _stored_interface(store, repository_id, path)
    changed = change(before, after) if before and after and path.rpartition("/")[2] not in NAMES else None
    if changed is None:
        graph.set_resolved(store, repository_id, is_resolved=False)
    else:
        graph.move_symbols(store, repository_id, path, changed.moved)
        affected.save_affected(store, repository_id, changed.names)


def _stored_interface(store: WorkStore, repository_id: int, path: str) -> Interface | None:
    language = graph.language_of_source(store, repository_id, path)
    return interface(language, *graph.stored_facts(store, repository_id, path)) if language else None


def resolve(store: WorkStore, repository_id: int, repository: Repository, changed: set[str] | None) -> set[str]:
    """Within a transaction: resolve the imports, bases and references of changed files, or of all; store the edges.

    `changed` are the files that were stored since the last time; None = more than these changed.  Returns the files
    with other edges than before.
    """
    paths = _to_resolve(store, repository_id, changed)
    resolver = Resolver(graph.StoredNames(store, repository_id, manifests(repository)))
    relinked: set[str] = set()
    targets = ((one.path, resolver.imported(one)) for one in graph.stored_imports(store, repository_id, paths))
    graph.save_import_targets(store, repository_id, targets, paths)
    bases = (edge for path in (resolver.paths if paths is None else paths) for edge in resolver.bases(path))
    graph.save_inheritance(store, repository_id, bases, paths, relinked)
    references = graph.stored_references(store, repository_id, paths)
    graph.save_calls(store, repository_id, calls(resolver, references), paths, relinked)
    graph.set_resolved(store, repository_id, is_resolved=True)
    affected.forget_affected(store, repository_id)
    return relinked


def _to_resolve(store: WorkStore, repository_id: int, changed: set[str] | None) -> set[str] | None:
    """The files whose names are to be resolved; None = all."""
    if changed is None or not graph.is_resolved(store, repository_id):
        return None
    using = affected.files_using(store, repository_id, affected.affected_names(store, repository_id))
    return None if using is None else changed | using
