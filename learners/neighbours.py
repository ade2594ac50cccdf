"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from learners.choices import NUMBER
from learners.compiled import compiled
from learners.near import MATCHED, NEWEST, Dense, History, Rows
from learners.occurrences import Scored, best
from learners.online import Online

ASKED, ASKED_OLD = 64, 48  # last choices of the last three items, and of older ones, whose users are asked, all partitions together
NEIGHBOURS = 100  # users that vote
TAKEN = 50  # last items of a neighbour that get a vote


def votes(history: History, own: tuple[int, int] | None, online: Online, n: int) -> tuple[Dense, Rows]:
    """float64[n]: neighbours that lately chose the item in each row, for a history of items in these rows, oldest first (-1: unknown);
    and the rows that got one.

    A user is the nearer the more of the last items they chose, newer ones counting more; the nearest vote, each as much as another,
    for what they chose last; not for what the history holds.
    """
    out = np.zeros(n)
    return out, vote(history, *(own or (-1, -1)), *online.tables(), out)


@compiled
def vote(
    history: Any, own_partition: int, own: int,
    by_row: Any, entries_at: Any, entries: Any, by_user: Any, chosen_at: Any, chosen: Any, rows: Any, out: Any,
) -> Any:  # fmt: skip
    """Add to `out`, float64[n]; returns the rows that are named in it."""
    shards, n = len(by_row), len(out)
    keys, m = np.empty(MATCHED * shards * (ASKED // shards + 1), np.int64), 0  # newest users first, then by partition, then by age
    for age in range(min(len(history), MATCHED)):
        item = history[len(history) - 1 - age]
        if item < 0 or item >= by_row.shape[1]:
            continue
        for partition in range(shards):
            at = by_row[partition, item]
            first = entries_at[0, at]
            for nth in range(min(-(-(ASKED if age < NEWEST else ASKED_OLD) // shards), entries_at[2, at] // 2)):
                user = np.int64(entries[first + 2 * nth])
                if user != own or partition != own_partition:
                    keys[m] = (((1 << 32) - user) * shards + partition) * MATCHED + age
                    m += 1
    keys = np.sort(keys[:m])
    users, likeness, found = np.empty(m, np.int64), np.zeros(m), 0
    for place in range(m):
        if place and keys[place] == keys[place - 1]:  # once for an item
            continue
        user = keys[place] // MATCHED
        if not found or users[found - 1] != user:
            users[found] = user
            found += 1
        likeness[found - 1] += 1.0 / (1 + keys[place] % MATCHED)
    nearest = np.argsort(-likeness[:found], kind="mergesort")[:NEIGHBOURS]  # equals stay in order
    named, voted = np.empty(len(nearest) * TAKEN, np.int64), 0
    for each in nearest:
        partition, user = users[each] % shards, (1 << 32) - users[each] // shards
        slot = by_user[partition, user] if user < by_user.shape[1] else 0
        start, size = chosen_at[0, slot], chosen_at[2, slot]
        for place in range(max(start, start + size - TAKEN), start + size):
            number = np.int64(chosen[place]) & NUMBER
            row = rows[partition, number] if number < rows.shape[1] else -1
            if 0 <= row < n:
                if out[row] == 0:
                    named[voted] = row
                    voted += 1
                out[row] += 1.0
    for item in history:
        if 0 <= item < n:
            out[item] = 0.0
    return named[:voted]


def rank(user: str, recent: Sequence[str], online: Online, k: int) -> Scored:
    """Best k (item, votes) for a history `recent`, oldest first."""
    names, history = online.items.names, online.items.named(recent).astype(np.int32)
    found, voted = votes(history, online.profiles.number(user), online, len(names))
    return best(names, voted[found[voted] > 0], found[voted[found[voted] > 0]], k)
