"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learners.covisitation import best, summed
from learners.items import MARK, Items, found
from learners.profiles import Profiles

SEEN_BY = 12  # users an item remembers
MATCHED = 5  # last items of the history that look for neighbours
NEIGHBOURS = 30  # users that vote
TAKEN = 20  # last items of a neighbour that get a vote


class Neighbours:
    """The last users of each row of `items`, by number, newest first; their histories are the profiles'.

    >>> items = Items()
    >>> users, near = Profiles(items), Neighbours(items)
    >>> for clock, (user, item) in enumerate([("ann", "tea"), ("ann", "cup"), ("bob", "tea")]):
    ...     row = items.learn(item)
    ...     near.learn_one(row, users.learn_one(user, items.number[row], 0.0, clock)[0])
    >>> near.rank("bob", ["tea"], users, 5)
    [('cup', 1.0)]
    """

    def __init__(self, items: Items, partitions: int = 1) -> None:
        self.items = items
        self._seen_by: list[list[bytes]] = [[] for _ in range(partitions)]

    def _at(self, partition: int, row: int) -> list[bytes]:
        """The partition's list, long enough for `row`."""
        seen_by = self._seen_by[partition]
        if row >= len(seen_by):
            seen_by.extend([b""] * (row + 1 - len(seen_by)))
        return seen_by

    def learn_one(self, row: int, user: int) -> None:
        """The user of that number is the latest to choose the item in `row`."""
        seen_by, mark = self._at(0, row), user.to_bytes(MARK, "little")
        users = seen_by[row]
        place = found(users, mark, 0, len(users))
        seen_by[row] = mark + users[:place] + users[place + MARK :] if place >= 0 else mark + users[: MARK * (SEEN_BY - 1)]

    def forget(self, user: int) -> list[int]:
        """Remove an erased user; returns the rows of the items whose lists changed."""
        mark, changed = user.to_bytes(MARK, "little"), []
        for row, users in enumerate(self._seen_by[0]):
            place = found(users, mark, 0, len(users))
            if place >= 0:
                self._seen_by[0][row] = users[:place] + users[place + MARK :]
                changed.append(row)
        return changed

    def dump(self, row: int) -> bytes:
        return self._at(0, row)[row]

    def load(self, partition: int, row: int, value: bytes | None) -> None:
        self._at(partition, row)[row] = value or b""

    def rank(self, user: str, recent: Sequence[str], profiles: Profiles, k: int) -> list[tuple[str, float]]:
        """Best k (item, votes) for a history `recent`, oldest first; what `recent` holds gets no vote."""
        rows = [self.items.row.get(item, -1) for item in recent]
        found_, ages, places = list[bytes](), list[float](), list[int]()
        for partition, seen_by in enumerate(self._seen_by):
            for age, row in enumerate(reversed(rows[-MATCHED:])):
                if 0 <= row < len(seen_by):
                    found_.append(seen_by[row])
                    ages.append(1.0 / (1 + age))
                    places.append(partition << 32)
        sizes = [len(users) // MARK for users in found_]
        if not any(sizes):
            return []
        users = np.frombuffer(b"".join(found_), "<u4").astype(np.int64) + np.repeat(np.array(places, np.int64), sizes)
        users, likeness = summed(users, np.repeat(ages, sizes))
        own = profiles.number(user)
        if own is not None:
            likeness[users == (own[0] << 32) + own[1]] = 0.0
        nearest = np.lexsort((users, -likeness))[:NEIGHBOURS]
        nearest = np.sort(nearest[likeness[nearest] > 0])  # by partition, so that each is looked up once
        choices, sizes = profiles.last_rows(users[nearest], TAKEN)
        choices, votes = summed(choices, np.repeat(likeness[nearest], sizes))
        fresh = ~np.isin(choices, rows)
        return best(self.items.names, choices[fresh], votes[fresh], k)
