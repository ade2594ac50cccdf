"""Candidates: what each source names for one ask, best first, and all of it together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.ease import regress
from learners.near import BASKET, REMEMBERED, look_around
from learners.neighbours import vote
from learners.occurrences import spare
from learners.profiles import RECENT, remembered
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

Dense = npt.NDArray[np.float64]


class Found(NamedTuple):
    """What the sources say of each of n rows, float64: `near` [6, n] (`learners.near.Near`), votes of the neighbours, the regression, and
    `counts` [4, n] of the history (`gathered`). `seen` marks the rows that were named, a byte each; `mark` is the regression's to use.

    One is used for one answer after the other: the next one clears what was named, as that is less than all there is.
    """

    near: Dense
    voted: Dense
    eased: Dense
    counts: Dense
    seen: npt.NDArray[np.uint64]
    mark: npt.NDArray[np.uint8]

    @staticmethod
    def nothing(n: int) -> Found:
        """Of n rows; by numpy, which does not touch what nobody looks at."""
        return Found(np.zeros((6, n)), np.zeros(n), np.zeros(n), np.zeros((4, n)), np.zeros(n // 8 + 1, np.uint64), np.zeros(n, np.uint8))


@compiled
def sought(
    near: Any, voted: Any, eased: Any, counts: Any, seen: Any, mark: Any, recent: Any, own_partition: int, own: int,
    by_row: Any, entries_at: Any, entries: Any, by_user: Any, chosen_at: Any, chosen: Any, rows: Any, ever: Any,
    deep: Any, deep_scores: Any, fresh: Any, popular: Any, more: Any, open_to: Any, had: Any, repeats: bool, ties: Any, numbers: int,
    most: Any,
) -> Any:  # fmt: skip
    """What all sources have to say to what the user in that place has chosen, or to the items in the rows `recent`, oldest first (-1:
    unknown), where there are any, is left in `Found`; this history, and what is `gathered` from all that. `by_row` to `rows`:
    `Online.tables`; `ever`: choices of each item [partitions, n or more].
    """
    marks = seen.view(np.uint8)
    for word in range(len(seen)):
        if seen[word]:
            for row in range(8 * word, min(8 * word + 8, len(voted))):
                if marks[row]:
                    voted[row], eased[row] = 0.0, 0.0
                    for column in range(len(near)):
                        near[column, row] = 0.0
                    for column in range(len(counts)):
                        counts[column, row] = 0.0
            seen[word] = 0
    history, session = recent, len(recent)
    if not len(recent):
        history, session = remembered(own_partition, own, by_user, chosen_at, chosen, rows)
    least = spare(len(history))
    named = look_around(
        history[-REMEMBERED:], least, min(session, BASKET), own_partition, own, by_row, entries_at, entries, by_user, chosen_at, chosen,
        rows, ever, near, seen,
    )  # fmt: skip
    voting = vote(history, own_partition, own, by_row, entries_at, entries, by_user, chosen_at, chosen, rows, voted)
    easing = regress(
        history, least, own_partition, own, by_row, entries_at, entries, by_user, chosen_at, chosen, rows, ever, eased, mark
    )  # fmt: skip
    for row in voting:
        marks[row] = 1
    for row in easing:
        marks[row] = 1
    for row in history:
        if 0 <= row < len(voted):
            marks[row] = 1
    return history, gathered(
        deep, deep_scores, fresh, popular, more, history, named, near[1], near[3], near[4], near[5], voting, voted, easing, eased,
        open_to, had, repeats, ties, numbers, most, counts,
    )  # fmt: skip


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
    only rounding tells apart is equal. `open_to`: what may be shown, but not the rows `had`, nor the history unless this
    stream brings items back (`repeats`).
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
            wanted[row] = wanted[row] and repeats
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
