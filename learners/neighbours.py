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
        own, likeness = profiles.number(user), dict[tuple[int, int], float]()
        rows = [self.items.row.get(item, -1) for item in recent]
        for age, row in enumerate(reversed(rows[-MATCHED:])):
            for partition, seen_by in enumerate(self._seen_by):
                if 0 <= row < len(seen_by):
                    for number in np.frombuffer(seen_by[row], "<u4").tolist():
                        likeness[partition, number] = likeness.get((partition, number), 0.0) + 1.0 / (1 + age)
        if own is not None:
            likeness.pop(own, None)
        nearest = sorted(likeness.items(), key=lambda entry: (-entry[1], entry[0]))[:NEIGHBOURS]
        voted = [(profiles.last_rows(*place, TAKEN), weight) for place, weight in nearest]
        if not voted:
            return []
        choices, votes = summed(np.concatenate([v for v, _ in voted]), np.repeat([w for _, w in voted], [len(v) for v, _ in voted]))
        fresh = ~np.isin(choices, rows)
        return best(self.items.names, choices[fresh], votes[fresh], k)
