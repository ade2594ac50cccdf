"""What is near a history: item-to-item neighbours without pairs, read from the last choices of its items.

Instead of counting pairs as events come, an answer looks at what the users who lately chose the same items chose around them. That is
tens of thousands of places an answer, so these loops are compiled; everything else about them is in `occurrences` and `sequences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.occurrences import MATCHED, NEWEST, Looked, Occurrences, Scored, best
from learners.popularity import Popularity
from learners.profiles import Profiles

REACH = 20  # choices before and after that count as near
DECAY = 0.8  # an older item of the history counts this much less than the one after it
TASTE_REACH, TASTE_DECAY = 10, 0.98  # the same for a user's taste, which is read from their last hundred items

Dense = npt.NDArray[np.float32]


class Near(NamedTuple):
    """Of every row, float32[n] each, so that what only rounding tells apart is equal: share of what came next after the last item; of
    what came within three places after the last three, by distance; cosine with what was chosen around the last item; around the last
    ten, older ones fading; and around the last hundred, which hardly fade.
    """

    next: Dense
    after: Dense
    last: Dense
    around: Dense
    taste: Dense


def near(looked_up: Sequence[Looked], own: tuple[int, int] | None, profiles: Profiles, popularity: Popularity, n: int) -> Near:
    """What is near a history that was looked up, for the first n rows.

    `own`: (partition, number) of the user: what they chose around these items themselves says nothing new.
    """
    found = np.sum([at.sizes for at in looked_up], 0)
    lasting = np.sum([np.minimum(at.sizes, at.lasting) for at in looked_up], 0)
    ages = np.arange(len(found))
    share = np.where(ages < NEWEST, DECAY**ages / np.maximum(found, 1), 0.0)
    cosine = np.where(ages < MATCHED, DECAY**ages / np.sqrt(np.maximum(found, 1)), 0.0)
    taste = TASTE_DECAY**ages / np.sqrt(np.maximum(lasting, 1))
    out = np.zeros((5, n))
    for partition, at in enumerate(looked_up):
        mine = own[1] if own is not None and own[0] == partition else -1
        _look_around(at.entries, at.sizes, at.lasting, share, cosine, taste, mine, *profiles.tables(partition), out)
    named = np.flatnonzero(out[2:].any(0))
    out[2:, named] /= np.sqrt(popularity.choices(named) + 1.0)
    return Near(*out.astype(np.float32))


@compiled
def _look_around(
    entries: Any, sizes: Any, lasting: int, share: Any, cosine: Any, taste: Any, mine: int,
    slots: Any, at: Any, items: Any, rows: Any, out: Any,
) -> None:  # fmt: skip
    """Add one partition's part to `out`, float64[5, n]."""
    n, entry = out.shape[1], 0
    for age in range(len(sizes)):
        for nth in range(sizes[age]):
            user, position = np.int64(entries[entry, 0]), np.int64(entries[entry, 1])
            entry += 1
            slot = slots[user] if user < len(slots) else 0
            start, size = np.int64(at[0, slot]), np.int64(at[2, slot])
            here = position - at[3, slot] + size
            if here < 0 or here >= size:  # nobody, or no longer remembered
                continue
            if age < NEWEST:
                for place in range(here + 1, min(size, here + 4)):
                    row = rows[min(np.int64(items[start + place]), len(rows) - 1)]
                    if 0 <= row < n:
                        out[1, row] += share[age] / (place - here)
                        if age == 0 and place == here + 1:
                            out[0, row] += share[age]
            if user == mine:
                continue
            wide = REACH if age < MATCHED else 0
            reach = max(wide, TASTE_REACH if nth < lasting else 0)
            for place in range(max(0, here - reach), min(size, here + reach + 1)):
                row = rows[min(np.int64(items[start + place]), len(rows) - 1)]
                if place == here or not 0 <= row < n:
                    continue
                if wide:
                    out[3, row] += cosine[age]
                    if age == 0:
                        out[2, row] += cosine[age]
                if nth < lasting and abs(place - here) <= TASTE_REACH:
                    out[4, row] += taste[age]


@compiled
def leading(scores: Any, wanted: Any, ties: Any, k: int) -> Any:
    """int64[at most k]: wanted rows with the highest scores above 0, best first, equals by `ties`."""
    rows, found = np.empty(k, np.int64), 0
    for row in range(len(scores)):
        score = scores[row]
        if score <= 0 or not wanted[row]:
            continue
        place = min(found, k)
        while place > 0:
            before = rows[place - 1]
            if scores[before] > score or (scores[before] == score and ties[before] < ties[row]):
                break
            if place < k:
                rows[place] = before
            place -= 1
        if place < k:
            rows[place] = row
            found = min(found + 1, k)
    return rows[:found]


def rank(
    user: str, recent: Sequence[str], occurrences: Occurrences, profiles: Profiles, popularity: Popularity, k: int
) -> tuple[Scored, Scored]:
    """Best k by what came after the last items of `recent`, and best k by what was chosen around them.

    >>> from learners.online import Online
    >>> online = Online()
    >>> for user, item in [("ann", "pot"), ("ann", "tea"), ("bob", "tea"), ("bob", "cup")]:
    ...     _ = online.learn_one(user, item, 0.0)
    >>> after, both = rank("me", ["tea"], online.occurrences, online.profiles, online.popularity, 5)
    >>> after, [item for item, _ in both]
    ([('cup', 0.5)], ['cup', 'pot'])
    """
    names, rows = occurrences.items.names, np.array([occurrences.items.row.get(item, -1) for item in recent], np.int32)
    found = near(occurrences.looked_up(rows), profiles.number(user), profiles, popularity, len(names))
    after, both = np.flatnonzero(found.after), np.flatnonzero(found.around)
    return best(names, after, found.after[after], k), best(names, both, found.around[both], k)
