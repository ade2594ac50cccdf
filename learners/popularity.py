"""Decayed popularity: how often each item was chosen lately, at several half-lives at once.

The half-lives are counted in events, not in seconds, so that a busy and a quiet stream need no tuning; the ranker
weighs them (no single one was safe on every data set: docs/learners.md). Counters add, so partitions merge by a sum.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

HALF_LIVES = (100, 500, 2_000, 10_000, 1 << 40)  # events of the whole stream; the last one never decays
TABLED = 4096  # ages, in events, whose decay is looked up
_ONE = np.float32(1)
_packer = msgspec.msgpack.Encoder()


class _Entry(msgspec.Struct, array_like=True):
    clock: int
    counts: bytes  # float32[5]
    n: int
    first: float
    last: float


_entry = msgspec.msgpack.Decoder(_Entry)


class Popularity:
    """Counts per item, `partitions` of them side by side (a fold holds one, a replica all).

    `shards`: into how many partitions the stream is split; a partition's clock runs that much slower.

    >>> popular = Popularity()
    >>> for item in "abb": popular.learn_one(item, at=0.)
    >>> popular.rank(0, 2)
    ['b', 'a']
    """

    kind = "p"

    def __init__(self, partitions: int = 1, shards: int = 1) -> None:
        self.row: dict[str, int] = {}
        self.names: list[str] = []
        self.clock = [0] * partitions  # events seen by each partition
        self._rate = -np.array(shards, np.float32) / np.array(HALF_LIVES, np.float32)  # log2 of the decay an event
        self._counts = np.zeros((partitions, 64, len(HALF_LIVES)), np.float32)
        self._at = np.zeros((partitions, 64), np.int64)  # clock at which the counts stand
        self._n = np.zeros((partitions, 64), np.int64)
        self._first = np.full((partitions, 64), np.inf)
        self._last = np.full((partitions, 64), -np.inf)
        self._decay = np.exp2(np.arange(TABLED, dtype=np.float32)[:, None] * self._rate)  # [age, half-lives]
        self._own = self._views()

    def _views(self) -> tuple[npt.NDArray[np.float32], Any, Any, Any, Any]:
        """What the first partition learns into; a memoryview's element is a tenth of the price of an array's."""
        return self._counts[0], *(memoryview(a[0]) for a in (self._at, self._n, self._first, self._last))

    def _row_of(self, item: str) -> int:
        row = self.row.get(item)
        if row is None:
            row = self.row[item] = len(self.names)
            self.names.append(item)
            if row == self._n.shape[1]:
                for name, fill in (("_counts", 0), ("_at", 0), ("_n", 0), ("_first", np.inf), ("_last", -np.inf)):
                    old = getattr(self, name)
                    new = np.full((old.shape[0], row * 2, *old.shape[2:]), fill, old.dtype)
                    new[:, :row] = old
                    setattr(self, name, new)
                self._own = self._views()
        return row

    def learn_one(self, item: str, at: float) -> None:
        """Count one choice of `item` at event time `at` (Unix s) in the first partition."""
        row = self._row_of(item)
        clock = self.clock[0] = self.clock[0] + 1
        all_counts, at_clock, n, first, last = self._own
        counts, age = all_counts[row], clock - at_clock[row]
        np.multiply(counts, self._decay[age] if age < TABLED else np.exp2(np.float32(age) * self._rate), counts)
        np.add(counts, _ONE, counts)
        at_clock[row] = clock
        n[row] += 1
        if at < first[row]:
            first[row] = at
        if at > last[row]:
            last[row] = at

    def dump(self, item: str) -> bytes:
        """The item's record for the state topic."""
        r = self.row[item]
        counts, at_clock, n, first, last = self._own
        return _packer.encode(_Entry(at_clock[r], counts[r].tobytes(), n[r], first[r], last[r]))

    def load(self, partition: int, item: str, value: bytes | None) -> None:
        """Take the item's record over from the state topic; None forgets it."""
        row = self._row_of(item)
        entry = _entry.decode(value) if value is not None else _Entry(0, bytes(4 * len(HALF_LIVES)), 0, np.inf, -np.inf)
        self._at[partition, row] = entry.clock
        self._counts[partition, row] = np.frombuffer(entry.counts, np.float32)
        self._n[partition, row] = entry.n
        self._first[partition, row] = entry.first
        self._last[partition, row] = entry.last

    def scores(self) -> npt.NDArray[np.float32]:
        """float32[items, half-lives]: every item's decayed count now, all partitions together."""
        n = len(self.names)
        total = np.zeros((n, len(HALF_LIVES)), np.float32)
        for p, clock in enumerate(self.clock):
            age = (clock - self._at[p, :n]).astype(np.float32)
            total += self._counts[p, :n] * np.exp2(age[:, None] * self._rate)
        return total

    def first_seen(self) -> npt.NDArray[np.float64]:
        """float64[items]: event time of each item's first choice, inf where there is none."""
        return np.min(self._first[:, : len(self.names)], axis=0) if self.names else np.empty(0)

    def n(self) -> npt.NDArray[np.int64]:
        """int64[items]: choices ever."""
        return np.asarray(self._n[:, : len(self.names)].sum(0))

    def rank(self, half_life: int, k: int) -> list[str]:
        """The k most popular items at the half-life of that index, ties by name."""
        scores = self.scores()[:, half_life]
        order = sorted(range(len(self.names)), key=lambda r: (-scores[r], self.names[r]))
        return [self.names[r] for r in order[:k]]
