"""Occurrences: when each item was lately chosen, by whom, and where in their sequence. What is chosen near it is read from there.

Item-to-item neighbours without pairs: instead of counting pairs as events come (twenty lists change with each), an item remembers its
last choices, and a question looks at what those users chose around them. Learning is one entry; the newest are the evidence, so that
nothing has to decay; and counting in a sample of 128 ranks as well as counting all (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.items import Items
from learners.popularity import Popularity
from learners.profiles import Profiles

KEPT = 128  # choices of an item that are remembered, all partitions together
LEAST = 16  # and in one partition at least
NEAR, FAR = 128, 48  # of them looked at for each of the last three items of a history, and for each of those before
REACH = 20  # choices before and after that count as near
MATCHED = 10  # last items of a history that are looked up
DECAY = 0.8  # an older item of the history counts this much less than the one after it
ENTRY = Struct("<II")  # the user's number, and how many choices were in their sequence before

Scored = list[tuple[str, float]]


class Occurrences:
    """The last choices of each row of `items`, newest first, `partitions` of them side by side; `shards` as in `Popularity`.

    >>> items = Items()
    >>> popular, users, near = Popularity(items), Profiles(items), Occurrences(items)
    >>> for clock, (user, item) in enumerate([("ann", "pot"), ("ann", "tea"), ("bob", "tea"), ("bob", "cup")]):
    ...     row = items.learn(item)
    ...     number, n, _, _ = users.learn_one(user, items.number[row], 0.0, clock)
    ...     popular.learn_one(row, 0.0); near.learn_one(row, number, n)
    >>> after, both = near.rank("me", ["tea"], users, popular, 5)
    >>> after, [item for item, _ in both]
    ([('cup', 0.5)], ['cup', 'pot'])
    """

    def __init__(self, items: Items, partitions: int = 1, shards: int = 1) -> None:
        self.items = items
        self.bytes = ENTRY.size * max(LEAST, KEPT // shards)  # of one item's entries, at most
        self._of: list[list[bytes]] = [[] for _ in range(partitions)]

    def _at(self, partition: int, row: int) -> list[bytes]:
        """The partition's entries, long enough for `row`."""
        of = self._of[partition]
        if row >= len(of):
            of.extend([b""] * (row + 1 - len(of)))
        return of

    def learn_one(self, row: int, user: int, position: int) -> None:
        """The user of that number chose the item in `row` after `position` other choices."""
        of = self._at(0, row)
        of[row] = (ENTRY.pack(user, position) + of[row])[: self.bytes]

    def forget(self, user: int) -> list[int]:
        """Remove an erased user; returns the rows of the items that they had chosen lately."""
        changed = []
        for row, entries in enumerate(self._of[0]):
            kept = b"".join(ENTRY.pack(u, p) for u, p in ENTRY.iter_unpack(entries) if u != user)
            if kept != entries:
                self._of[0][row] = kept
                changed.append(row)
        return changed

    def dump(self, row: int) -> bytes:
        return self._at(0, row)[row]

    def load(self, partition: int, row: int, value: bytes | None) -> None:
        """Take dumped entries over; None forgets them."""
        self._at(partition, row)[row] = value or b""

    def users(self, partition: int, row: int, k: int) -> list[int]:
        """Numbers of the users of the item's last `k` choices in that partition, newest first."""
        of = self._of[partition]
        return np.frombuffer(of[row][: ENTRY.size * k], "<u4")[::2].tolist() if 0 <= row < len(of) else []

    @staticmethod
    def _looked(partitions: int) -> list[int]:
        """Bytes of an item's entries that are looked at in one partition, for each item of a history, the last one first."""
        return [ENTRY.size * -(-(NEAR if age < 3 else FAR) // partitions) for age in range(MATCHED)]

    def rank(self, user: str, recent: Sequence[str], profiles: Profiles, popularity: Popularity, k: int) -> tuple[Scored, Scored]:
        """Best k by what came right after the last items, and best k by cosine of what was chosen around them.

        `recent` is the history, oldest first; its last 3 items count for the first list, its last 10 for the second. What `user`
        chose around them says nothing new and does not count for the second.
        """
        own, partitions = profiles.number(user), len(self._of)
        rows = [self.items.row.get(item, -1) for item in reversed(recent[-MATCHED:])]
        windows, ages, others = list[npt.NDArray[np.int32]](), list[int](), list[bool]()
        for partition, of in enumerate(self._of):
            some = [
                of[row][:looked_at] if 0 <= row < len(of) else b"" for row, looked_at in zip(rows, self._looked(partitions), strict=False)
            ]
            sizes = [len(entries) // ENTRY.size for entries in some]
            if not any(sizes):
                continue
            places = np.frombuffer(b"".join(some), "<u4").reshape(-1, 2)
            windows.append(self.items.rows(partition, profiles.around(partition, places.tolist(), REACH)))
            ages += [age for age, size in enumerate(sizes) for _ in range(size)]
            mine = own[1] if own is not None and own[0] == partition else -1
            others += (places[:, 0] != mine).tolist()
        if not windows:
            return [], []
        around = np.concatenate(windows) + 1  # 0: nothing there
        size, age = len(self.items.names) + 1, np.array(ages)
        found, fades = np.bincount(age, minlength=MATCHED)[age], DECAY**age
        share, cosine = np.where(age < 3, fades / found, 0.0), np.where(others, fades / np.sqrt(found), 0.0)
        after = np.bincount(around[:, REACH + 1 : REACH + 4].ravel(), (share[:, None] / [1, 2, 3]).ravel(), size)[1:]
        around[:, REACH] = 0  # the item itself
        both = np.bincount(around.ravel(), np.repeat(cosine, 2 * REACH + 1), size)[1:]
        names = self.items.names
        came, near = np.flatnonzero(after), np.flatnonzero(both)
        return best(names, came, after[came], k), best(names, near, both[near] / np.sqrt(popularity.choices(near) + 1.0), k)


def best(names: Sequence[str], rows: npt.NDArray[np.signedinteger], scores: npt.NDArray[Any], k: int) -> Scored:
    """The k highest as (name of the row, score), ties by name."""
    if len(rows) > k:
        least: Any = np.partition(scores, len(rows) - k)[len(rows) - k] if k else np.inf
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    entries = ((names[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True))
    return sorted((e for e in entries if e[0]), key=lambda pair: (-pair[1], pair[0]))[:k]
