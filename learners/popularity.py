"""Decayed popularity: how often each item was chosen lately, at several half-lives at once.

The half-lives are counted in events, not in seconds, so that a busy and a quiet stream need no tuning; the ranker
weighs them (no single one was safe on every data set: docs/learners.md). Counters add, so partitions merge by a sum.
"""

from __future__ import annotations

from math import exp2, inf
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.items import Items

HALF_LIVES = (100, 500, 2_000, 10_000, 1 << 40)  # events of the whole stream; the last one never decays
NOTHING = -149.0  # log2 of the smallest float32
TABLED = 4096  # ages, in events, whose decay is looked up
RECORD = Struct("<QIdd5f")  # clock at which the counts stand, choices ever, first and last event time, counts
_ALL_BUT = Struct("<QIdd")  # the counts


class Popularity:
    """Counts per row of `items`, `partitions` of them side by side (a fold holds one, a replica all).

    `shards`: into how many partitions the stream is split; a partition's clock runs that much slower.

    >>> items = Items()
    >>> popular = Popularity(items)
    >>> for item in "abb": popular.learn_one(items.learn(item), at=0.)
    >>> popular.rank(0, 2)
    ['b', 'a']
    """

    def __init__(self, items: Items, partitions: int = 1, shards: int = 1) -> None:
        self.items = items
        self.clock = [0] * partitions  # events seen by each partition
        self._shards = shards
        self._rate = -np.array(shards, np.float32) / np.array(HALF_LIVES, np.float32)  # log2 of the decay an event
        self._counts = np.zeros((partitions, 64, len(HALF_LIVES)), np.float32)
        self._at = np.zeros((partitions, 64), np.uint64)  # clock at which the counts stand
        self._n = np.zeros((partitions, 64), np.uint32)
        self._first = np.full((partitions, 64), np.inf)
        self._last = np.full((partitions, 64), -np.inf)
        self._rates = [float(rate) for rate in self._rate]
        self._decay = [self._decayed(age) for age in range(TABLED)]
        self._own = self._views()

    def _decayed(self, age: int) -> list[float]:
        return [exp2(age * rate) for rate in self._rates]

    def _views(self) -> tuple[Any, ...]:
        """What the first partition learns into; a memoryview's element is a tenth of the price of an array's."""
        counts = memoryview(self._counts[0].reshape(-1))
        return (counts, counts.cast("B"), *(memoryview(a[0]) for a in (self._at, self._n, self._first, self._last)))

    def _reach(self, row: int) -> None:
        size = self._n.shape[1]
        if row >= size:
            for name, fill in (("_counts", 0), ("_at", 0), ("_n", 0), ("_first", np.inf), ("_last", -np.inf)):
                old = getattr(self, name)
                new = np.full((old.shape[0], max(row + 1, size * 3 // 2), *old.shape[2:]), fill, old.dtype)
                new[:, :size] = old
                setattr(self, name, new)
            self._own = self._views()

    def learn_one(self, row: int, at: float) -> None:
        """Count one choice of the item in `row` at event time `at` (Unix s) in the first partition."""
        if row >= self._n.shape[1]:
            self._reach(row)
        clock = self.clock[0] = self.clock[0] + 1
        counts, _, at_clock, n, first, last = self._own
        age, place = clock - at_clock[row], 5 * row
        a, b, c, d, e = self._decay[age] if age < TABLED else self._decayed(age)
        counts[place] = counts[place] * a + 1.0
        counts[place + 1] = counts[place + 1] * b + 1.0
        counts[place + 2] = counts[place + 2] * c + 1.0
        counts[place + 3] = counts[place + 3] * d + 1.0
        counts[place + 4] = counts[place + 4] * e + 1.0
        at_clock[row] = clock
        n[row] += 1
        if at < first[row]:
            first[row] = at
        if at > last[row]:
            last[row] = at

    def dump(self, row: int) -> bytes:
        """The row's part of its item's record, `RECORD.size` bytes."""
        _, raw, at_clock, n, first, last = self._own
        return _ALL_BUT.pack(at_clock[row], n[row], first[row], last[row]) + bytes(raw[20 * row : 20 * row + 20])

    def load(self, partition: int, row: int, value: bytes | None) -> None:
        """Take a dumped part over; None forgets it."""
        self._reach(row)
        clock, n, first, last, *counts = RECORD.unpack(value) if value is not None else (0, 0, inf, -inf, *[0.0] * len(HALF_LIVES))
        self._at[partition, row] = clock
        self._counts[partition, row] = counts
        self._n[partition, row] = n
        self._first[partition, row] = first
        self._last[partition, row] = last

    def known(self, row: int) -> bool:
        """Has any partition counted the item in `row`?"""
        return bool(self._n[:, row].any())

    def oldest(self, k: int) -> npt.NDArray[np.intp]:
        """intp[k]: rows of the k items of the first partition that were chosen longest ago."""
        rows = np.flatnonzero(self._n[0, : len(self.items.names)])
        return rows[np.argpartition(self._at[0, rows], k - 1)[:k]]

    def scores(self) -> npt.NDArray[np.float32]:
        """float32[rows, half-lives]: every item's decayed count now, all partitions together."""
        n = min(len(self.items.names), self._n.shape[1])
        return np.asarray(_decayed(self._counts, self._at, np.array(self.clock, np.uint64), self._rate, n))

    def first_seen(self) -> npt.NDArray[np.float64]:
        """float64[rows]: event time of each item's first choice, inf where there is none."""
        return np.min(self._first[:, : len(self.items.names)], axis=0) if self.items.names else np.empty(0)

    def table(self) -> npt.NDArray[np.uint32]:
        """uint32[partitions, rows or more]: choices ever, for loops that look at many of them."""
        return self._n

    def stands(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], int]:
        """Clocks [partitions], the clock of each row's last choice [partitions, rows or more], and by how much slower than the stream."""
        return np.array(self.clock, np.int64), self._at, self._shards

    def n(self) -> npt.NDArray[np.int64]:
        """int64[rows]: choices ever."""
        return np.asarray(self._n[:, : len(self.items.names)].sum(0), np.int64)

    def rank(self, half_life: int, k: int) -> list[str]:
        """The k most popular items at the half-life of that index, ties by name."""
        scores, names = self.scores()[:, half_life], self.items.names
        order = sorted((r for r in range(len(scores)) if names[r]), key=lambda r: (-scores[r], names[r]))
        return [names[r] for r in order[:k]]


@compiled
def _decayed(counts: Any, at: Any, clocks: Any, rates: Any, n: int) -> Any:
    """float32[n, half-lives]: sums over all partitions of `counts` as they stood `at` their clocks, now that these are `clocks`."""
    total = np.zeros((n, len(rates)), np.float32)
    for partition in range(len(clocks)):
        for row in range(n):
            age = np.float32(clocks[partition] - at[partition, row]) if clocks[partition] > at[partition, row] else np.float32(0)
            for half_life in range(len(rates)):
                if counts[partition, row, half_life] > 0 and age * rates[half_life] > NOTHING:
                    total[row, half_life] += counts[partition, row, half_life] * np.exp2(age * rates[half_life])
    return total
