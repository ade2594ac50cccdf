"""Session neighbours: what the users who lately chose the same items chose besides (VMIS-kNN, Serenade, SIGMOD 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from learners.covisitation import best
from learners.profiles import Profiles

SEEN_BY = 12  # users an item remembers
MATCHED = 5  # last items of the history that look for neighbours
NEIGHBOURS = 30  # users that vote
TAKEN = 20  # last items of a neighbour that get a vote
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(list[str])


class Neighbours:
    """The last users of each item, `partitions` of them side by side; their histories are the profiles'.

    >>> users, near = Profiles(), Neighbours()
    >>> for user, item in [("ann", "tea"), ("ann", "cup"), ("bob", "tea")]:
    ...     _ = users.learn_one(user, item, 0.0), near.learn_one(user, item)
    >>> near.rank("bob", ["tea"], users, 5)
    [('cup', 1.0)]
    """

    kind = "s"

    def __init__(self, partitions: int = 1) -> None:
        self._seen_by: list[dict[str, list[str]]] = [{} for _ in range(partitions)]

    def learn_one(self, user: str, item: str) -> None:
        """`user` is the latest to choose `item`."""
        users = self._seen_by[0].setdefault(item, [])
        if user in users:
            users.remove(user)
        users.insert(0, user)
        del users[SEEN_BY:]

    def forget(self, user: str) -> list[str]:
        """Remove an erased user; returns the items whose lists changed."""
        changed = [item for item, users in self._seen_by[0].items() if user in users]
        for item in changed:
            self._seen_by[0][item] = [u for u in self._seen_by[0][item] if u != user]
        return changed

    def dump(self, item: str) -> bytes:
        return _packer.encode(self._seen_by[0][item])

    def load(self, partition: int, item: str, value: bytes | None) -> None:
        if value is None:
            self._seen_by[partition].pop(item, None)
        else:
            self._seen_by[partition][item] = _unpacker.decode(value)

    def rank(self, user: str, recent: Sequence[str], profiles: Profiles, k: int) -> list[tuple[str, float]]:
        """Best k (item, votes) for a history `recent`, oldest first; what `recent` holds gets no vote."""
        likeness: dict[str, float] = {}
        for age, item in enumerate(reversed(recent[-MATCHED:])):
            for seen_by in self._seen_by:
                for other in seen_by.get(item, ()):
                    likeness[other] = likeness.get(other, 0.0) + 1.0 / (1 + age)
        likeness.pop(user, None)
        own = set(recent)
        votes: dict[str, float] = {}
        for other, weight in best(likeness.items(), NEIGHBOURS):
            for item in profiles.recent(other)[-TAKEN:]:
                if item not in own:
                    votes[item] = votes.get(item, 0.0) + weight
        return best(votes.items(), k)
