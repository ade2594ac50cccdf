"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from learners.occurrences import MATCHED, Dense, Looked, Occurrences, Scored, best
from learners.profiles import Profiles

SEEN_BY = 64  # last choices of an item whose users are asked, all partitions together; of older items as many as are looked up at all
NEIGHBOURS = 100  # users that vote
TAKEN = 50  # last items of a neighbour that get a vote


def votes(rows: npt.NDArray[np.integer], looked_up: Sequence[Looked], own: tuple[int, int] | None, profiles: Profiles, n: int) -> Dense:
    """float64[n]: neighbours that lately chose the item in each row, for a history of items in `rows`, oldest first (-1: unknown).

    A user is the nearer the more of the last items they chose, newer ones counting more; the nearest vote, each as much as another,
    for what they chose last; not for what the history holds.
    """
    asked = -(-SEEN_BY // len(looked_up))
    keys = [(at.users.astype(np.int64) + (p << 32)) * MATCHED + at.ages for p, at in enumerate(looked_up)]
    each = np.unique(np.concatenate([key[at.nth < asked] for key, at in zip(keys, looked_up, strict=True)]))  # once for an item
    users, place = np.unique(each // MATCHED, return_inverse=True)
    likeness = np.bincount(place, 1.0 / (1 + each % MATCHED), len(users))
    if own is not None:
        likeness[users == (own[0] << 32) + own[1]] = 0.0
    nearest = np.lexsort((users >> 32, -(users & 0xFFFFFFFF), -likeness))[:NEIGHBOURS]
    nearest = users[nearest[likeness[nearest] > 0]]
    chosen = [profiles.last_rows(p, nearest[nearest >> 32 == p] & 0xFFFFFFFF, TAKEN) for p in range(len(looked_up))]
    voted = np.bincount(np.concatenate(chosen) + 1, minlength=n + 1)[1 : n + 1].astype(np.float64)
    voted[rows[(rows >= 0) & (rows < n)]] = 0.0
    return voted


def rank(user: str, recent: Sequence[str], occurrences: Occurrences, profiles: Profiles, k: int) -> Scored:
    """Best k (item, votes) for a history `recent`, oldest first."""
    names, row = occurrences.items.names, occurrences.items.row
    rows = np.array([row.get(item, -1) for item in recent], np.int32)
    found = votes(rows, occurrences.looked_up(rows), profiles.number(user), profiles, len(names))
    voted = np.flatnonzero(found)
    return best(names, voted, found[voted], k)
