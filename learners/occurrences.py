"""Occurrences: when each item was lately chosen, by whom, and where in their sequence. What is chosen near it is read from there.

Learning is one entry; the newest are the evidence, so that nothing has to decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.items import Items
from learners.sequences import Sequences

KEPT = 512  # choices of an item that are remembered, all partitions together
SHARED = 2_048  # of them that the items of a history share, where that is more than each would get
LEAST = 16  # and in one partition at least
ENTRY = Struct("<II")  # the user's number, and how many choices were in their sequence before

Scored = list[tuple[str, float]]


class Occurrences:
    """The last choices of each row of `items`, newest first, `partitions` of them side by side; `shards` as in `Popularity`.

    `serves`: they lie in one array, for loops that look at many of them; else as the records that they are written as.
    """

    def __init__(self, items: Items, partitions: int = 1, shards: int = 1, serves: bool = True) -> None:
        self.items = items
        self.bytes = ENTRY.size * max(LEAST, KEPT // shards)  # of one item's entries, at most
        self._of: list[bytes] = []  # by row; the first partition's, the only one that learns
        self._served = Sequences(partitions) if serves else None

    def dump(self, row: int) -> bytes:
        """The first partition's entries of that row."""
        if self._served is not None:
            return self._served.get(0, row).tobytes()
        return self._of[row] if row < len(self._of) else b""

    def learn_one(self, row: int, user: int, position: int) -> None:
        """The user of that number chose the item in `row` after `position` other choices."""
        self.load(0, row, (ENTRY.pack(user, position) + self.dump(row))[: self.bytes])

    def forget(self, user: int) -> list[int]:
        """Remove an erased user; returns the rows of the items that they had chosen lately."""
        changed = []
        for row in range(len(self.items.names)):
            entries = self.dump(row)
            kept = b"".join(ENTRY.pack(u, p) for u, p in ENTRY.iter_unpack(entries) if u != user)
            if kept != entries:
                self.load(0, row, kept)
                changed.append(row)
        return changed

    def load(self, partition: int, row: int, value: bytes | None) -> None:
        """Take dumped entries over; None forgets them."""
        if self._served is not None:
            if value:
                self._served.put(partition, row, 0, np.frombuffer(value, np.uint32))
            else:
                self._served.drop(partition, row)
            return
        if row >= len(self._of):
            self._of.extend([b""] * (row + 1 - len(self._of)))
        self._of[row] = value or b""

    def tables(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """`Sequences.tables` by row: a user's number and how many choices were in their sequence before, in turn."""
        assert self._served is not None, "made not to serve"
        return self._served.tables()


@compiled
def spare(history: int) -> int:
    """So many choices of each item of a history of that length are looked at in any case: the fewer items, the more evidence of each."""
    return min(KEPT, SHARED // max(history, 1))


def best(names: Sequence[str], rows: npt.NDArray[np.signedinteger], scores: npt.NDArray[Any], k: int) -> Scored:
    """The k highest as (name of the row, score), ties by name; rows without one are left out."""
    if len(rows) > k:
        least: Any = np.partition(scores, len(rows) - k)[len(rows) - k] if k else np.inf
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    named = ((names[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if names[row])
    return sorted(named, key=lambda one: (-one[1], one[0]))[:k]
