"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learners.occurrences import Occurrences, Scored, best
from learners.profiles import Profiles

SEEN_BY = 48  # last choices of an item whose users are asked, all partitions together
MATCHED = 5  # last items of the history that look for neighbours
NEIGHBOURS = 30  # users that vote
TAKEN = 20  # last items of a neighbour that get a vote


def rank(user: str, recent: Sequence[str], occurrences: Occurrences, profiles: Profiles, partitions: int, k: int) -> Scored:
    """Best k (item, votes) for a history `recent`, oldest first; what `recent` holds gets no vote.

    A user is the nearer the more of the last items they chose, newer ones counting more; the nearest vote for what they chose last.
    """
    items, likeness = occurrences.items, dict[tuple[int, int], float]()
    rows = [items.row.get(item, -1) for item in recent]
    for age, row in enumerate(reversed(rows[-MATCHED:])):
        for partition in range(partitions):
            for number in dict.fromkeys(occurrences.users(partition, row, -(-SEEN_BY // partitions))):
                likeness[partition, number] = likeness.get((partition, number), 0.0) + 1.0 / (1 + age)
    own = profiles.number(user)
    if own is not None:
        likeness.pop(own, None)
    nearest = sorted(likeness.items(), key=lambda entry: (-entry[1], entry[0][::-1]))[:NEIGHBOURS]
    if not nearest:
        return []
    nearest.sort()  # by partition, so that each is looked up once
    chosen, sizes = profiles.last_rows([place for place, _ in nearest], TAKEN)
    votes = np.bincount(chosen + 1, np.repeat([weight for _, weight in nearest], sizes), len(items.names) + 1)[1:]
    votes[[row for row in rows if row >= 0]] = 0
    voted = np.flatnonzero(votes)
    return best(items.names, voted, votes[voted], k)
