"""What is near a history: item-to-item neighbours without pairs, read from the last choices of its items.

Instead of counting pairs as events come, an answer looks at what the users who lately chose the same items chose around them. That is
tens of thousands of places an answer, so these loops are compiled; everything else about them is in `occurrences` and `sequences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.choices import BITS, NUMBER, SESSION
from learners.compiled import compiled
from learners.occurrences import Scored, best, spare
from learners.online import Online

NEWEST, MATCHED, REMEMBERED = 3, 10, 50  # last items of a history
NEAR, FAR, LASTING = 128, 48, 32  # choices of each of them that are looked at, all partitions together; more where the history is short
REACH = 20  # choices before and after that count as near
DECAY = 0.8  # an older item of the history counts this much less than the one after it
TASTE_REACH, TASTE_DECAY = 10, 0.98  # the same for a user's taste, which is read from their last fifty items
BASKET = 30  # last items of the last session; what was chosen in the same session, so many before and after, goes with them

Dense = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
History = npt.NDArray[np.int32]


class Near(NamedTuple):
    """Of every row, float64[n] each: share of what came next after the last item; of what came within three places after the last three,
    by distance; cosine with what was chosen around the last item; around the last ten, older ones fading; and around the last fifty,
    which hardly fade; and with what was chosen in one session with those of the last session, one as much as another. `rows`:
    where any is above 0.
    """

    next: Dense
    after: Dense
    last: Dense
    around: Dense
    taste: Dense
    basket: Dense
    rows: Rows


def near(history: History, session: int, own: tuple[int, int] | None, online: Online, n: int) -> Near:
    """What is near a history of items in these rows, oldest first (-1: unknown), for the first n rows.

    `session`: how many of them, the last ones, are of the last session. `own`: (partition, number) of the user: what they chose
    around these items themselves says nothing new.
    """
    out, seen = np.zeros((6, n)), np.zeros(n // 8 + 1, np.uint64)  # by numpy, which does not touch what nobody looks at
    ever = online.popularity.table()
    rows = look_around(
        history[-REMEMBERED:], spare(len(history)), min(session, BASKET), *(own or (-1, -1)), *online.tables(), ever, out, seen
    )
    next, after, last, around, taste, basket = out
    return Near(next, after, last, around, taste, basket, rows)


@compiled
def look_around(
    history: Any, least: int, session: int, own_partition: int, own: int,
    by_row: Any, entries_at: Any, entries: Any, by_user: Any, chosen_at: Any, chosen: Any, rows: Any, ever: Any, out: Any, seen: Any,
) -> Any:  # fmt: skip
    """Add to `out`, float64[6, n]; returns the rows that are named. `seen`: n zero bytes, as uint64, to work with: a mark is a store, while
    to ask each time whether a row is new costs a sixth of these loops.
    """
    shards, n = len(by_row), out.shape[1]
    nobody = np.uint32(n)
    marks, lasting = seen.view(np.uint8), -(-max(LASTING, least) // shards)
    for age in range(len(history)):
        item = history[len(history) - 1 - age]
        if item < 0 or item >= by_row.shape[1]:
            continue
        most = -(-max(NEAR if age < NEWEST else FAR if age < MATCHED else LASTING, least) // shards)
        looked_at, lasts = 0, 0
        for partition in range(shards):
            size = min(most, entries_at[2, by_row[partition, item]] // 2)
            looked_at += size
            lasts += min(size, lasting)
        if not looked_at:
            continue
        share = DECAY**age / looked_at if age < NEWEST else 0.0
        cosine = DECAY**age / np.sqrt(looked_at) if age < MATCHED else 0.0
        taste, basket = TASTE_DECAY**age / np.sqrt(lasts), 1.0 / np.sqrt(looked_at)
        for partition in range(shards):
            at = by_row[partition, item]
            first, table = entries_at[0, at], rows[partition]
            known = np.uint32(len(table))
            for nth in range(min(most, entries_at[2, at] // 2)):
                user, position = np.int64(entries[first + 2 * nth]), np.int64(entries[first + 2 * nth + 1])
                slot = by_user[partition, user] if user < by_user.shape[1] else 0
                start, size = chosen_at[0, slot], chosen_at[2, slot]
                here = position - chosen_at[3, slot] + size
                if here < 0 or here >= size:  # nobody, or no longer remembered
                    continue
                if age < NEWEST:
                    for place in range(start + here + 1, start + min(size, here + 4)):
                        number = np.int64(chosen[place]) & NUMBER
                        row = table[number] if number < len(table) else -1
                        if 0 <= row < n:
                            marks[row] = 1
                            out[1, row] += share / (place - start - here)
                            if age == 0 and place == start + here + 1:
                                out[0, row] += share
                if user == own and partition == own_partition:
                    continue
                for column in range(2, 6):  # the same loop, and what differs before it: conditions inside cost twice the time
                    low, high = start + max(0, here - REACH), start + min(size, here + REACH + 1)
                    if (column == 2 and age == 0) or (column == 3 and age < MATCHED):
                        amount = cosine
                    elif column == 4 and nth < lasting:
                        amount, low, high = taste, start + max(0, here - TASTE_REACH), start + min(size, here + TASTE_REACH + 1)
                    elif column == 5 and age < session:
                        amount, low, high = basket, start + here, start + here + 1
                        while low > start + max(0, here - BASKET) and np.int64(chosen[low]) >> BITS < SESSION:
                            low -= 1
                        while high < start + min(size, here + BASKET + 1) and np.int64(chosen[high]) >> BITS < SESSION:
                            high += 1
                    else:
                        continue
                    into = out[column]
                    for part in (chosen[low : start + here], chosen[start + here + 1 : high]):
                        for choice in part:
                            number = choice & np.uint32(NUMBER)
                            row = np.uint32(table[number]) if number < known else nobody
                            if row < nobody:
                                marks[row] = 1
                                into[row] += amount
    named, found = np.empty(n, np.int64), 0
    for word in range(len(seen)):
        if seen[word]:
            for row in range(8 * word, min(8 * word + 8, n)):
                if marks[row]:
                    named[found] = row
                    found += 1
    for row in named[:found]:
        choices = 1.0
        if row < ever.shape[1]:
            for partition in range(shards):
                choices += ever[partition, row]
        for column in range(2, 6):
            out[column, row] /= np.sqrt(choices)
    return named[:found]


def rank(user: str, recent: Sequence[str], online: Online, k: int) -> tuple[Scored, Scored]:
    """Best k by what came after the last items of `recent`, and best k by what was chosen around them.

    >>> online = Online()
    >>> for user, item in [("ann", "pot"), ("ann", "tea"), ("bob", "tea"), ("bob", "cup")]:
    ...     _ = online.learn_one(user, item, 0.0)
    >>> after, both = rank("me", ["tea"], online, 5)
    >>> after, [item for item, _ in both]
    ([('cup', 0.5)], ['cup', 'pot'])
    """
    names, history = online.items.names, online.items.named(recent).astype(np.int32)
    found = near(history, len(recent), online.profiles.number(user), online, len(names))
    after, both = found.rows[found.after[found.rows] > 0], found.rows[found.around[found.rows] > 0]
    return best(names, after, found.after[after], k), best(names, both, found.around[both], k)
