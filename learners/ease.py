"""A regression of every item on the items of one history: what goes with all of them, and not only with those that always come together.

EASE (Steck, WWW 2019) inverts the co-occurrences of the whole catalogue now and then. Here only those of the history's own items are
solved for, from their last choices, for each answer anew: a list is as fresh as the stream, and nothing is kept for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.choices import NUMBER
from learners.compiled import compiled

ITEMS = 25  # of a history, the last ones, each once
CHOICES = 64  # last choices of each that are looked at, all partitions together; more where the history is short
REACH = 10  # choices before and after that count as together
DECAY = 0.95  # what an older item of the history should add up to, against the one after it
RIDGE = 0.3  # on the diagonal of their cosines
SWEEPS = 8  # of Gauss-Seidel; what is left is below what ranks


@compiled
def regress(
    history: Any, least: int, own_partition: int, own: int,
    by_row: Any, entries_at: Any, entries: Any, by_user: Any, chosen_at: Any, chosen: Any, rows: Any, ever: Any, out: Any, mark: Any,
) -> Any:  # fmt: skip
    """Set `out`, float64[n], to the regression's value for each row, for a `history` of items in these rows, oldest first (-1: unknown);
    returns the rows that it names, not all of them above 0. `least`: `learners.occurrences.spare`. Choices of the user in the place
    `own_partition`, `own` say nothing new. `by_row` to `rows`: `Online.tables`; `ever`: `Popularity.table`; `mark`: uint8[n], zeros before
    and after.
    """
    shards, n = len(by_row), len(out)
    nobody = np.uint32(n)
    items, wanted, m = np.empty(ITEMS, np.int64), np.empty(ITEMS), 0
    for age in range(min(len(history), ITEMS)):
        item = history[len(history) - 1 - age]
        if 0 <= item < n and item < by_row.shape[1] and item < ever.shape[1]:
            for other in items[:m]:
                if other == item:
                    break
            else:
                items[m] = item
                wanted[m] = DECAY**age
                m += 1
    size, end = np.empty(m), np.zeros(m + 1, np.int64)
    for k in range(m):
        size[k] = max(ever[:, items[k]].sum(), 1)
        mark[items[k]] = k + 1
    together = np.zeros((m, m))
    looked_at = np.zeros(m)
    most = -(-max(CHOICES, least) // shards)
    room = m * shards * most * 2 * REACH
    hits, found = np.empty(room, np.uint32), 0  # rows beside the first item, up to its end, then those beside the second
    for k in range(m):
        for partition in range(shards):
            at = by_row[partition, items[k]]
            table, first, taken = rows[partition], entries_at[0, at], min(most, entries_at[2, at] // 2)
            known = np.uint32(len(table))
            looked_at[k] += taken
            for nth in range(taken):
                user, position = np.int64(entries[first + 2 * nth]), np.int64(entries[first + 2 * nth + 1])
                if user == own and partition == own_partition:
                    continue
                slot = by_user[partition, user] if user < by_user.shape[1] else 0
                start, length = chosen_at[0, slot], chosen_at[2, slot]
                here = position - chosen_at[3, slot] + length
                if here < 0 or here >= length:  # nobody, or no longer remembered
                    continue
                low, high = start + max(0, here - REACH), start + min(length, here + REACH + 1)
                for part in (chosen[low : start + here], chosen[start + here + 1 : high]):
                    for choice in part:
                        number = choice & np.uint32(NUMBER)
                        row = np.uint32(table[number]) if number < known else nobody
                        if row < nobody:
                            if mark[row]:
                                together[k, mark[row] - 1] += 1
                            hits[found] = row
                            found += 1
        end[k + 1] = found
    for k in range(m):
        for other in range(m):
            together[k, other] *= np.sqrt(size[k] / size[other]) / max(looked_at[k], 1)
    for k in range(m):
        for other in range(k):
            together[k, other] = together[other, k] = (together[k, other] + together[other, k]) / 2
    weights = wanted[:m] / (1 + RIDGE)
    for _ in range(SWEEPS):
        for k in range(m):
            rest = wanted[k]
            for other in range(m):
                if other != k:
                    rest -= together[k, other] * weights[other]
            weights[k] = rest / (1 + RIDGE)
    for k in range(m):
        mark[items[k]] = 0
    named, distinct = np.empty(min(found, n), np.int64), 0
    for k in range(m):
        weight = weights[k] / np.sqrt(max(looked_at[k], 1))
        for row in hits[end[k] : end[k + 1]]:
            if not mark[row]:
                mark[row] = 1
                named[distinct] = row
                distinct += 1
            out[row] += weight
    for row in named[:distinct]:
        mark[row] = 0
        out[row] /= np.sqrt(1.0 + (ever[:, row].sum() if row < ever.shape[1] else 0))
    return named[:distinct]
