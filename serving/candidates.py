"""Candidates: what each source names for one ask, best first, and all of it together."""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.compiled import compiled
from learners.profiles import RECENT
from learners.ranks import ABSENT
from serving.features import POPULAR, SOURCES

TAKEN = {
    "deep": 60,
    "after": 30,
    "covisited": 50,
    "taste": 50,
    "ease": 50,
    "basket": 50,
    "neighbours": 40,
    "fresh": 10,
    "history": 30,
} | {SOURCES[source]: 20 for source in POPULAR}  # per source; union ~150
NEWEST = 10  # of the history; then those that the user chose most often
MOST = np.array([TAKEN.get(name, 0) for name in SOURCES])
_DEEP, _AFTER, _COVISITED, _NEIGHBOURS, _FRESH, _HISTORY, _TASTE, _EASE, _BASKET = (
    SOURCES.index(name) for name in ("deep", "after", "covisited", "neighbours", "fresh", "history", "taste", "ease", "basket")
)
_FIRST_POPULAR, _LAST_POPULAR = POPULAR[0], POPULAR[-1]


@compiled
def gathered(
    deep: Any, deep_scores: Any, fresh: Any, popular: Any, more: Any, chosen: Any, named: Any, after: Any, around: Any, taste: Any,
    basket: Any, voted: Any, votes: Any, easing: Any, eased: Any, open_to: Any, had: Any, repeats: bool, ties: Any, numbers: int,
    most: Any, counts: Any,
) -> Any:  # fmt: skip
    """The union of the sources' lists, in the order of `SOURCES`: int64 keys, every one once; uint8[keys, sources] ranks from 0, `ABSENT`
    where a source did not name it; of the sequence model's list, however long, scores, nan where it is not on it, and ranks.

    Keys are rows of items, those from len(open_to) up to `numbers` are of items without one, and below 0 is what may not be shown. `deep`,
    `fresh` and `popular` [half-lives, …] are lists of them, best first, `chosen` the history, oldest first. Of the other sources there are
    the rows that they name, and scores of all rows: the highest are taken, if above 0, equals by `ties`; compared as float32, so that what
    only rounding tells apart is equal. `open_to`: what may be shown, but not the rows `had`; `repeats`: this stream brings items back.
    `most` of each source are taken; `more`: what comes after all that is popular.

    Sets `counts`, float64[4, n]: how often each row was chosen among the last `RECENT`, how often at all, at which place last, counting
    from 1, and the score of the history.
    """
    n, room = len(open_to), int(most.sum()) + len(more)
    wanted = open_to.copy()
    for row in had:
        if 0 <= row < n:
            wanted[row] = False
    keys, ranks, found = np.empty(room, np.int64), np.full((room, len(most)), ABSENT, np.uint8), 0
    place = np.full(numbers, -1, np.int32)
    held, holds = np.empty(len(chosen), np.int64), 0
    for at in range(len(chosen)):
        row = chosen[at]
        if 0 <= row < n:  # those above came since
            if counts[1, row] == 0:
                held[holds] = row
                holds += 1
            counts[1, row] += 1
            counts[2, row] = at + 1
            if at >= len(chosen) - RECENT:
                counts[0, row] += 1
    for row in held[:holds]:
        counts[3, row] = counts[1, row] + counts[2, row] / (len(chosen) + 1)  # of those chosen as often the latest
    listed, best, leads = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
    for source in range(len(most)):
        size, k = 0, most[source]
        if source in (_DEEP, _FRESH) or _FIRST_POPULAR <= source <= _LAST_POPULAR:
            among = deep if source == _DEEP else fresh if source == _FRESH else popular[max(source - _FIRST_POPULAR, 0)]
            for key in among:
                if size == k:
                    break
                if key >= n or (key >= 0 and wanted[key]):
                    listed[size] = key
                    size += 1
            if source == _LAST_POPULAR:
                for key in more:
                    listed[size] = key
                    size += 1
        else:
            if source == _HISTORY:
                rows, scores = held[: holds if repeats else 0], counts[3]
            elif source == _NEIGHBOURS:
                rows, scores = voted, votes
            elif source == _EASE:
                rows, scores = easing, eased
            elif source == _AFTER:
                rows, scores = named, after
            elif source == _COVISITED:
                rows, scores = named, around
            elif source == _TASTE:
                rows, scores = named, taste
            elif source == _BASKET:
                rows, scores = named, basket
            else:
                continue
            leading = 0
            for row in rows:
                score = np.float32(scores[row])
                if score <= 0 or not wanted[row] or (leading == k and score < leads[k - 1]):
                    continue
                at = leading
                while at > 0:
                    if leads[at - 1] > score or (leads[at - 1] == score and ties[best[at - 1]] < ties[row]):
                        break
                    if at < k:
                        best[at], leads[at] = best[at - 1], leads[at - 1]
                    at -= 1
                if at < k:
                    best[at], leads[at] = row, score
                    leading = min(leading + 1, k)
            if source == _HISTORY and repeats:  # the newest ones come first
                for at in range(len(chosen) - 1, max(len(chosen) - 1 - RECENT, -1), -1):
                    row = chosen[at]
                    if size < NEWEST and 0 <= row < n and wanted[row] and row not in listed[:size]:
                        listed[size] = row
                        size += 1
            for row in best[:leading]:
                if size < k and not (source == _HISTORY and row in listed[:size]):
                    listed[size] = row
                    size += 1
        for rank in range(size):
            key = listed[rank]
            if place[key] < 0:
                place[key], keys[found] = found, key
                found += 1
            ranks[place[key], source] = min(rank, ABSENT - 1)
    scored, ranked = np.full(found, np.nan), np.zeros(found)
    for rank in range(len(deep)):
        if deep[rank] >= 0 and place[deep[rank]] >= 0:
            scored[place[deep[rank]]], ranked[place[deep[rank]]] = deep_scores[rank], rank
    return keys[:found], ranks[:found], scored, ranked
