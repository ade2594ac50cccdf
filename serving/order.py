"""The order of an answer's candidates: by the ranker, or filled by the sources, the best of them first."""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.compiled import compiled
from learners.ranks import ABSENT
from learners.weights import scored
from serving.features import RANKER, features

DAY = 86_400.0


@compiled
def ordered(
    keys: Any, ranks: Any, deep: Any, deep_rank: Any, near: Any, voted: Any, eased: Any, counts: Any,
    scores: Any, top: Any, first: Any, choices: Any, clocks: Any, at: Any, shards: int, now: float, length: int, affinity: Any,
    taught: bool, linear: Any, out: Any, hidden: Any, shift: Any, context: int, order: Any,
) -> Any:  # fmt: skip
    """Candidates as they were gathered, best first: keys, ranks, now with the ranker's, features and scores.

    Of a candidate in a row, and not in one above or below all rows, there is what was `serving.candidates.Found`; decayed counts of the
    first rows `scores` [n, half-lives], the `top` of each; when it was `first` chosen, Unix s; `choices` ever [partitions, n or more], and
    at which of the partitions' `clocks` the last was, which run slower than the stream by `shards`. `now`: Unix s; `length` of the history.
    `taught`, `linear` to `shift`: the ranker, if there is one. It leads where it is the first in `order`; else each of the sources there
    puts its list where those before it have none, which scores 0, -1, -2, and so on.
    """
    m, counted = len(keys), len(scores)
    compared, popularity = np.zeros((8, m), np.float32), np.zeros((scores.shape[1], m))
    age, since_any = np.zeros(m), np.full(m, np.inf)
    own, ever, since = np.zeros(m), np.zeros(m), np.zeros(m)
    for place in range(m):
        row = keys[place]
        if row < 0 or row >= near.shape[1]:
            continue
        compared[0, place], compared[1, place], compared[2, place] = near[0, row], near[2, row], near[1, row]
        compared[3, place], compared[4, place], compared[5, place] = near[3, row], voted[row], near[4, row]
        compared[6, place], compared[7, place] = eased[row], near[5, row]
        own[place], ever[place] = counts[0, row], counts[1, row]
        if counts[2, row] > 0:
            since[place] = length + 1 - counts[2, row]
        if row < choices.shape[1]:
            for partition in range(len(clocks)):
                if choices[partition, row]:  # of the stream, about
                    since_any[place] = min(since_any[place], max(clocks[partition] - np.int64(at[partition, row]), 0) * shards)
        if row >= counted:  # it came since the last refresh
            continue
        if np.isfinite(first[row]):
            age[place] = max(now - first[row], 0.0) / DAY
        for half_life in range(scores.shape[1]):
            popularity[half_life, place] = scores[row, half_life] / top[half_life]
    values = features(compared, popularity, age, since_any, own, ever, since, deep, deep_rank, affinity)
    if taught:
        learned = scored(values, linear, out, hidden, shift, context)
        best = np.argsort(-learned, kind="mergesort")
        for rank in range(m):
            ranks[best[rank], RANKER] = min(rank, ABSENT - 1)
    if taught and order[0] == RANKER:
        return keys[best], ranks[best], values[best], learned[best]
    best = np.argsort(_filling(ranks, order), kind="mergesort")
    return keys[best], ranks[best], values[best], -np.arange(m).astype(np.float32)


@compiled
def _filling(ranks: Any, order: Any) -> Any:
    """Places of the candidates: first the list of the first source in the order, then what the second adds, and so on."""
    keys = np.full(len(ranks), len(order) * ABSENT)
    for candidate in range(len(ranks)):
        for lead in range(len(order)):  # the first source in the order that names it
            rank = ranks[candidate, order[lead]]
            if rank != ABSENT:
                keys[candidate] = lead * ABSENT + rank
                break
    return keys
