"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from learners.occurrences import Dense, Occurrences, Scored, best
from learners.profiles import Profiles

SEEN_BY = 64  # last choices of an item whose users are asked, all partitions together
MATCHED = 10  # last items of the history that look for neighbours
NEIGHBOURS = 100  # users that vote
TAKEN = 50  # last items of a neighbour that get a vote


def votes(rows: npt.NDArray[np.integer], own: tuple[int, int] | None, occurrences: Occurrences, profiles: Profiles, n: int) -> Dense:
    """float64[n]: neighbours that lately chose the item in each row, for a history of items in `rows`, oldest first (-1: unknown).

    A user is the nearer the more of the last items they chose, newer ones counting more; the nearest vote, each as much as another,
    for what they chose last; not for what the history holds.
    """
    who, ages, partitions = list[npt.NDArray[np.int64]](), list[int](), occurrences.partitions
    for age, row in enumerate(rows[: -MATCHED - 1 : -1].tolist()):
        for partition in range(partitions):
            found = occurrences.users(partition, row, -(-SEEN_BY // partitions))
            who.append(found.astype(np.int64) + (partition << 32))
            ages.append(age)
    if not who:
        return np.zeros(n)
    asked = np.concatenate(who)
    each = np.unique(asked * MATCHED + np.repeat(ages, [len(found) for found in who]))  # a user counts once for an item
    users, place = np.unique(each // MATCHED, return_inverse=True)
    likeness = np.bincount(place, 1.0 / (1 + each % MATCHED), len(users))
    if own is not None:
        likeness[users == (own[0] << 32) + own[1]] = 0.0
    nearest = np.lexsort((users >> 32, -(users & 0xFFFFFFFF), -likeness))[:NEIGHBOURS]
    nearest = np.sort(users[nearest[likeness[nearest] > 0]])
    chosen = profiles.last_rows([(user >> 32, user & 0xFFFFFFFF) for user in nearest.tolist()], TAKEN)
    voted = np.bincount(chosen + 1, minlength=n + 1)[1 : n + 1].astype(np.float64)
    voted[rows[(rows >= 0) & (rows < n)]] = 0.0
    return voted


def rank(user: str, recent: Sequence[str], occurrences: Occurrences, profiles: Profiles, k: int) -> Scored:
    """Best k (item, votes) for a history `recent`, oldest first."""
    names, row = occurrences.items.names, occurrences.items.row
    found = votes(np.array([row.get(item, -1) for item in recent], np.int32), profiles.number(user), occurrences, profiles, len(names))
    voted = np.flatnonzero(found)
    return best(names, voted, found[voted], k)
