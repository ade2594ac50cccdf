"""Occurrences: when each item was lately chosen, by whom, and where in their sequence. What is chosen near it is read from there.

Learning is one entry; the newest are the evidence, so that nothing has to decay; and counting in a sample of 128 ranks as well as
counting all (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.items import Items

KEPT = 128  # choices of an item that are remembered, all partitions together
LEAST = 16  # and in one partition at least
NEAR, FAR, LASTING = 128, 48, 32
NEWEST, MATCHED, REMEMBERED = 3, 10, 100  # last items of a history for which NEAR, FAR, LASTING of them are looked at
ENTRY = Struct("<II")  # the user's number, and how many choices were in their sequence before

Scored = list[tuple[str, float]]


class Looked(NamedTuple):
    """One partition's choices of the last items of a history, uint32[m, 2]: the user's number, and choices in their sequence before it.

    `sizes` intp[items]: how many of each item, of the last one first, its newest choice first; the first `lasting` of them count for what
    lasts.
    """

    entries: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.intp]
    lasting: int


class Occurrences:
    """The last choices of each row of `items`, newest first, `partitions` of them side by side; `shards` as in `Popularity`."""

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
        """Each partition's choices of the last 100 items of a history in `rows`, oldest first (-1: unknown)."""
        wanted, shared = rows[: -REMEMBERED - 1 : -1].tolist(), len(self._of)
        near, far, lasting = (-(-choices // shared) for choices in (NEAR, FAR, LASTING))
        most = [ENTRY.size * (near if age < NEWEST else far if age < MATCHED else lasting) for age in range(len(wanted))]
        out = list[Looked]()
        for of in self._of:
            some = [of[row][:size] if 0 <= row < len(of) else b"" for row, size in zip(wanted, most, strict=True)]
            sizes = np.array([len(entries) // ENTRY.size for entries in some], np.intp)
            out.append(Looked(np.frombuffer(b"".join(some), np.uint32).reshape(-1, 2), sizes, lasting))
        return out


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
