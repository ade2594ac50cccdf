"""Item-to-item co-visitation: which items are chosen soon after, or soon before, which.

Each choice is paired with the user's last few, weighted by 1 / distance, and kept in both directions: what came after
(a Markov chain, with memory) and what came before. Weights are whole numbers, so that a restored state is equal to the
last bit. Counts add, so partitions merge by a sum.

In memory an item's list is its record: the numbers of its neighbours, then their weights, two bytes each way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.items import MARK, Items

WINDOW = 5  # previous choices that a new one is paired with
UNIT = 60  # weight of distance 1: 60, 30, 20, 15, 12 are whole
KEPT = 48  # neighbours that are kept when a list is cut
MOST = 64  # neighbours at which it is
FULL = (1 << 16) - 1  # largest weight: at 1,092 choices in a row the whole list is halved
DECAY = 0.8  # an older item of the history counts this much less than the one after it
_PAIR = Struct("<HH")  # weight as what came after, and as what came before
_MASS = Struct("<Q")


class CoVisitation:
    """Bounded neighbour lists per row of `items`, `partitions` of them side by side.

    `warm` loads the list of a row that was left `cold` (in the first partition), before it is learned into.

    >>> items = Items()
    >>> tea, cup, pot = (items.learn(name) for name in ("tea", "cup", "pot"))
    >>> pairs = CoVisitation(items)
    >>> sorted(pairs.learn_one(tea, [items.number[cup], items.number[pot]]))
    [0, 1, 2]
    >>> pairs.rank(["pot"], 2)[0]
    [('tea', 0.5)]
    """

    def __init__(self, items: Items, partitions: int = 1, warm: Callable[[int], None] = lambda row: None) -> None:
        self.items, self._warm = items, warm
        self._near: list[list[bytes | bytearray | None]] = [[] for _ in range(partitions)]
        self._mass = np.zeros((partitions, 64), np.uint64)  # all weight an item ever took part in
        self._own: Any = memoryview(self._mass[0])

    def _at(self, partition: int, row: int) -> list[bytes | bytearray | None]:
        """The partition's lists, long enough for `row`."""
        near, size = self._near[partition], self._mass.shape[1]
        if row >= len(near):
            near.extend([b""] * (row + 1 - len(near)))
        if row >= size:
            mass = np.zeros((len(self._near), max(row + 1, size * 3 // 2)), np.uint64)
            mass[:, :size] = self._mass
            self._mass, self._own = mass, memoryview(mass[0])
        return near

    def learn_one(self, row: int, recent: Sequence[int]) -> list[int]:
        """Pair the item in `row` with the choices before it (`recent`, numbers, oldest first).

        Returns the rows of the items whose lists changed.
        """
        touched: list[int] = []
        if not recent:
            return touched
        row_of, number_of, total, distance = self.items.row_of, self.items.number, 0, 0
        near, mass = self._at(0, len(self.items.names) - 1), self._own
        mark, mine, add = number_of[row].to_bytes(MARK, "little"), near[row] or b"", self._add
        for number in reversed(recent[-WINDOW:]):
            distance += 1
            other = row_of(number)
            if other == row or other < 0 or other in touched:  # itself, evicted since, or nearer already
                continue
            touched.append(other)
            weight = UNIT // distance
            total += weight
            if near[other] is None:
                self._warm(other)
            near[other] = add(near[other] or b"", mark, weight, 0)
            mine = add(mine, number.to_bytes(MARK, "little"), 0, weight)
            mass[other] += weight
        if touched:
            near[row] = mine
            mass[row] += total
            touched.append(row)
        return touched

    @staticmethod
    def _add(record: bytes | bytearray, mark: bytes, after: int, before: int) -> bytearray:
        """The list with more weight on one neighbour."""
        near = record if isinstance(record, bytearray) else bytearray(record)  # bytes as it was loaded
        end = len(near) >> 1
        place = near.find(mark, 0, end)
        while place > 0 and place % MARK:  # across two numbers
            place = near.find(mark, place + 1, end)
        if place < 0:
            if end == MARK * MOST:
                near = _cut(near)
                end = len(near) >> 1
            near[end:end] = mark
            near += _PAIR.pack(after, before)
            return near
        ahead, behind = _PAIR.unpack_from(near, end + place)
        if ahead + after > FULL or behind + before > FULL:
            weights = np.frombuffer(near, "<u2", offset=end) >> 1
            near[end:] = weights.tobytes()
            ahead, behind = ahead >> 1, behind >> 1
        _PAIR.pack_into(near, end + place, ahead + after, behind + before)
        return near

    def dump(self, row: int) -> bytes:
        return _MASS.pack(self._own[row]) + (self._near[0][row] or b"") if row < len(self._near[0]) else bytes(_MASS.size)

    def cool(self, row: int) -> None:
        """The row's list is loaded when it is needed."""
        self._at(0, row)[row] = None

    def load(self, partition: int, row: int, value: bytes | None) -> None:
        """Take a dumped list over; None forgets it."""
        self._at(partition, row)[row] = value[_MASS.size :] if value is not None else b""
        self._mass[partition, row] = _MASS.unpack_from(value)[0] if value is not None else 0

    def rank(self, recent: Sequence[str], k: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Best k by what came after the last items, and best k by cosine of both directions, for a history `recent`.

        `recent` is oldest first; its last 3 items count for the first list, its last 10 for the second.
        """
        mass, of = self._mass, self.items.row
        last = [(of.get(item, -1), age) for age, item in enumerate(reversed(recent[-10:]))]
        last = [(row, age) for row, age in last if 0 <= row < mass.shape[1]]
        own = mass[:, [row for row, _ in last]].sum(0) + float(UNIT)
        marks, weights, ends, sizes, places = list[bytes | bytearray](), list[bytes | bytearray](), [0], list[int](), list[int]()
        for near in self._near:
            for place, (row, _) in enumerate(last):
                record = near[row] if row < len(near) else None
                if record:
                    half = len(record) >> 1
                    marks.append(record[:half])
                    weights.append(record[half:])
                    sizes.append(half // MARK)
                    places.append(place)
            ends.append(sum(sizes))
        if not sizes:
            return [], []
        numbers = np.frombuffer(b"".join(marks), "<u4")
        rows = np.concatenate([self.items.rows(p, numbers[start:end]) for p, (start, end) in enumerate(pairwise(ends))])
        both = np.frombuffer(b"".join(weights), "<u2").reshape(-1, 2).astype(np.float64)
        fades = np.array([DECAY**age for _, age in last])
        recently = np.array([age < 3 for _, age in last])
        share, cosine = np.repeat((fades / own * recently)[places], sizes), np.repeat((fades / np.sqrt(own))[places], sizes)
        rows, near_, after = summed(rows, both.sum(1) * cosine, both[:, 0] * share)
        near_ /= np.sqrt(mass[:, np.minimum(rows, mass.shape[1] - 1)].sum(0) + float(UNIT))
        names, came = self.items.names, after > 0
        return best(names, rows[came], after[came], k), best(names, rows, near_, k)


def _cut(near: bytearray) -> bytearray:
    """The `KEPT` heaviest neighbours, in their order; ties to the newer item."""
    size = len(near) >> 3
    marks, weights = np.frombuffer(near, "<u4", size), np.frombuffer(near, "<u2", offset=MARK * size).reshape(-1, 2)
    kept = np.sort(np.lexsort((-marks.astype(np.int64), -weights.sum(1, dtype=np.int64)))[:KEPT])
    return bytearray(marks[kept].tobytes() + weights[kept].tobytes())


def summed(rows: npt.NDArray[np.signedinteger], *values: npt.NDArray[np.float64]) -> tuple[Any, ...]:
    """(each row once, without -1, and for each of `values` its sum over that row)."""
    found, place = np.unique(rows, return_inverse=True)
    sums = [np.bincount(place, v, len(found)) for v in values]
    known = found >= 0
    return found[known], *(s[known] for s in sums)


def best(names: Sequence[str], rows: npt.NDArray[np.signedinteger], scores: npt.NDArray[np.floating], k: int) -> list[tuple[str, float]]:
    """The k highest as (name of the row, score), ties by name."""
    if len(rows) > k:
        least = np.partition(scores, len(rows) - k)[len(rows) - k] if k else np.inf
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    entries = ((names[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True))
    return sorted((e for e in entries if e[0]), key=lambda pair: (-pair[1], pair[0]))[:k]
