"""Occurrences: when each item was lately chosen, by whom, and where in their sequence. What is chosen near it is read from there.

Item-to-item neighbours without pairs: instead of counting pairs as events come (twenty lists change with each), an item remembers its
last choices, and a question looks at what those users chose around them. Learning is one entry; the newest are the evidence, so that
nothing has to decay; and counting in a sample of 128 ranks as well as counting all (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

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
Dense = npt.NDArray[np.float64]


class Near(NamedTuple):
    """Of every row, float64[n] each: share of what came next after the last item; of what came within three places after the last
    three, by distance; cosine with what was chosen around the last item; and around the last ten, older ones fading.
    """

    next: Dense
    after: Dense
    last: Dense
    around: Dense


class Looked(NamedTuple):
    """Choices of the items of a history, integers[m] each: the user's number, choices in their sequence before it, which item of the
    history it is of, the last one 0, and the how manieth choice of that item in the partition, the newest 0.
    """

    users: npt.NDArray[np.integer]
    positions: npt.NDArray[np.integer]
    ages: npt.NDArray[np.integer]
    nth: npt.NDArray[np.integer]


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

    def looked_up(self, rows: npt.NDArray[np.integer]) -> list[Looked]:
        """Each partition's choices of the last 10 items of a history in `rows`, oldest first (-1: unknown)."""
        wanted, partitions, out = rows[: -MATCHED - 1 : -1].tolist(), len(self._of), list[Looked]()
        for of in self._of:
            some = [
                of[row][: ENTRY.size * -(-(NEAR if age < 3 else FAR) // partitions)] if 0 <= row < len(of) else b""
                for age, row in enumerate(wanted)
            ]
            sizes = np.array([len(entries) // ENTRY.size for entries in some], np.intp)
            places = np.frombuffer(b"".join(some), "<u4").reshape(-1, 2)
            before = np.repeat(np.cumsum(sizes) - sizes, sizes)
            out.append(Looked(places[:, 0], places[:, 1], np.repeat(np.arange(len(sizes)), sizes), np.arange(len(places)) - before))
        return out

    def scores(self, looked_up: Sequence[Looked], own: tuple[int, int] | None, profiles: Profiles, popularity: Popularity, n: int) -> Near:
        """What is near a history; its last 10 items count, its last 3 for what came after.

        `own`: (partition, number) of the user: what they chose around these items themselves says nothing new.
        """
        windows = [profiles.around(p, at.users, at.positions, REACH) for p, at in enumerate(looked_up)]
        around = np.concatenate(windows) + 1  # 0: nothing there
        if not len(around):
            return Near(*np.zeros((4, n)))
        age = np.concatenate([at.ages for at in looked_up])
        found, fades = np.bincount(age, minlength=MATCHED)[age], DECAY**age
        share, cosine = np.where(age < 3, fades / found, 0.0), fades / np.sqrt(found)
        if own is not None:
            mine = sum(len(at.users) for at in looked_up[: own[0]])
            cosine[mine + np.flatnonzero(looked_up[own[0]].users == own[1])] = 0.0

        def counted(places: npt.NDArray[np.int32], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.bincount(places.ravel(), weights.ravel(), n + 1)[1 : n + 1].astype(np.float64, copy=False)

        late, newest = around[:, REACH + 1 : REACH + 4], age == 0
        next_, after = counted(late[newest, 0], share[newest]), counted(late, share[:, None] / [1, 2, 3])
        around[:, REACH] = 0  # the item itself
        each = np.repeat(cosine[:, None], around.shape[1], 1)
        both, last = counted(around, each), counted(around[newest], each[newest])
        named = np.flatnonzero(both)
        size = np.sqrt(popularity.choices(named) + 1.0)
        both[named] /= size
        last[named] /= size
        return Near(next_, after, last, both)

    def rank(self, user: str, recent: Sequence[str], profiles: Profiles, popularity: Popularity, k: int) -> tuple[Scored, Scored]:
        """Best k by what came after the last items of `recent`, and best k by what was chosen around them."""
        names, rows = self.items.names, np.array([self.items.row.get(item, -1) for item in recent], np.int32)
        near = self.scores(self.looked_up(rows), profiles.number(user), profiles, popularity, len(names))
        after, both = np.flatnonzero(near.after), np.flatnonzero(near.around)
        return best(names, after, near.after[after], k), best(names, both, near.around[both], k)


def best(names: Sequence[str], rows: npt.NDArray[np.signedinteger], scores: npt.NDArray[Any], k: int) -> Scored:
    """The k highest as (name of the row, score), ties by name."""
    return [(names[row], score) for row, score in best_rows(names, rows, scores, k)]


def best_rows(names: Sequence[str], rows: npt.NDArray[np.signedinteger], scores: npt.NDArray[Any], k: int) -> list[tuple[int, float]]:
    """The k highest as (row, score), ties by the name of the row; rows without one are left out."""
    if len(rows) > k:
        least: Any = np.partition(scores, len(rows) - k)[len(rows) - k] if k else np.inf
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    entries = zip(rows.tolist(), scores.tolist(), strict=True)
    return sorted((e for e in entries if names[e[0]]), key=lambda entry: (-entry[1], names[entry[0]]))[:k]
