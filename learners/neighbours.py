"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.near import Dense
from learners.occurrences import MATCHED, Looked, Occurrences, Scored, best
from learners.profiles import Profiles

SEEN_BY = 64  # last choices of an item whose users are asked, all partitions together; of older items as many as are looked up at all
NEIGHBOURS = 100  # users that vote
TAKEN = 50  # last items of a neighbour that get a vote


def votes(rows: npt.NDArray[np.integer], looked_up: Sequence[Looked], own: tuple[int, int] | None, profiles: Profiles, n: int) -> Dense:
    """float32[n]: neighbours that lately chose the item in each row, for a history of items in `rows`, oldest first (-1: unknown).

    A user is the nearer the more of the last items they chose, newer ones counting more; the nearest vote, each as much as another,
    for what they chose last; not for what the history holds.
    """
    asked = -(-SEEN_BY // len(looked_up))
    found = [_likeness(at.entries, at.sizes, asked) for at in looked_up]
    partition = np.repeat(np.arange(len(found)), [len(users) for users, _ in found])
    users, likeness = np.concatenate([users for users, _ in found]), np.concatenate([like for _, like in found])
    if own is not None:
        likeness[(partition == own[0]) & (users == own[1])] = 0.0
    nearest = np.lexsort((partition, -users, -likeness))[:NEIGHBOURS]
    nearest = nearest[likeness[nearest] > 0]
    voted = np.zeros(n, np.float32)
    for p in range(len(found)):
        _vote(users[nearest[partition[nearest] == p]], *profiles.tables(p), voted)
    voted[rows[(rows >= 0) & (rows < n)]] = 0.0
    return voted


@compiled
def _likeness(entries: Any, sizes: Any, asked: int) -> Any:
    """Numbers of one partition's users who lately chose the last items, int64[m], and how near they are, float64[m]."""
    keys, m, entry = np.empty(len(entries), np.int64), 0, 0
    for age in range(min(len(sizes), MATCHED)):
        for nth in range(sizes[age]):
            if nth < asked:
                keys[m] = np.int64(entries[entry, 0]) * MATCHED + age
                m += 1
            entry += 1
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
    return users[:found], likeness[:found]


@compiled
def _vote(users: Any, slots: Any, at: Any, items: Any, rows: Any, voted: Any) -> None:
    """Add to `voted` what one partition's users chose last."""
    for user in users:
        slot = slots[user] if user < len(slots) else 0
        start, size = np.int64(at[0, slot]), np.int64(at[2, slot])
        for place in range(max(start, start + size - TAKEN), start + size):
            row = rows[min(np.int64(items[place]), len(rows) - 1)]
            if 0 <= row < len(voted):
                voted[row] += 1.0


def rank(user: str, recent: Sequence[str], occurrences: Occurrences, profiles: Profiles, k: int) -> Scored:
    """Best k (item, votes) for a history `recent`, oldest first."""
    names, row = occurrences.items.names, occurrences.items.row
    rows = np.array([row.get(item, -1) for item in recent], np.int32)
    found = votes(rows, occurrences.looked_up(rows), profiles.number(user), profiles, len(names))
    voted = np.flatnonzero(found)
    return best(names, voted, found[voted], k)
