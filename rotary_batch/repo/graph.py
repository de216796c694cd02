"""The graph of a repository: what calls what, what extends what, and the rank of files by it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from rotary_batch.core import Call, Reference
from rotary_batch.repo.resolve.resolver import Resolver

DAMPING = 0.85  # of PageRank
ROUNDS = 20
UNUSED = 1.0 - DAMPING  # the PageRank of a file that no other one uses


def calls(resolver: Resolver, references: Iterable[Reference]) -> Iterator[Call]:
    """The calls that references resolve to, in their order, each once.  References of one file come together."""
    for _, uses in groupby(references, attrgetter("path")):
        known = set[Call]()
        for reference in uses:
            target = resolver.target(reference) if reference.caller is not None else None
            if target is not None and reference.caller is not None and target.id != reference.caller:
                call = Call(reference.caller, target.id)
                if call not in known:
                    known.add(call)
                    yield call


def priorities(
    scores: Mapping[str, float], churn: Mapping[str, int] | None = None, stale: Collection[str] = ()
) -> dict[str, int]:
    """Path -> rank, higher first: how much is used, changes often, and is out of date.

    The order is by PageRank; times 1 + log2(1 + n) for a file that changed in n of the last commits; twice that for one
    of whose texts some are out of date.  Equal inputs give equal ranks.
    """
    score = dict(scores)
    for path, changes in (churn or {}).items():
        if path in score:
            score[path] *= 1 + math.log2(1 + changes)
    for path in stale:
        if path in score:
            score[path] *= 2
    order = most_central(score)
    return {path: len(order) - place for place, path in enumerate(order)}


def most_central(scores: Mapping[str, float]) -> list[str]:
    """The paths by their scores, the highest first."""
    return sorted(scores, key=lambda path: (-round(scores[path], 9), path))


def page_rank(paths: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Path -> PageRank over files, from the user to what it uses."""
    place = {path: number for number, path in enumerate(paths)}
    known = ((one, other) for one, other in edges if one != other and one in place and other in place)
    weights = Counter((place[one], place[other]) for one, other in known)
    out_weight: Counter[int] = Counter()
    for (source, _), count in weights.items():
        out_weight[source] += count
    shares = [(source, target, DAMPING * count / out_weight[source]) for (source, target), count in weights.items()]
    score = [1.0] * len(paths)
    for _ in range(ROUNDS):
        fresh = [UNUSED] * len(paths)
        for source, target, share in shares:
            fresh[target] += score[source] * share
        score = fresh
    return dict(zip(paths, score, strict=True))
