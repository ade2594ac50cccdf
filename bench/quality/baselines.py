"""What a user could have with an afternoon of work: decayed popularity, online item-to-item neighbours, a Markov chain."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from learners.items import Items
from learners.popularity import HALF_LIVES, Popularity

RECENT = 20  # last items that a new one is counted together with
NAMES = ("popular", "item_knn", "markov")


class Baselines:
    """All of them over one stream: `lists` of item ids, best first. Popularity has the half-life that was best in what it was tuned on."""

    def __init__(self) -> None:
        self._found = [0] * len(HALF_LIVES)  # by half-life, choices in its first ten
        self.items = Items()
        self.popularity = Popularity(self.items)
        self.history: dict[str, list[int]] = {}  # rows
        self._together: dict[int, dict[int, int]] = {}
        self._counts: dict[int, int] = {}
        self._next: dict[int, dict[int, int]] = {}

    def learn(self, user: str, item: str, at: float) -> None:
        row, past = self.items.learn(item), self.history.setdefault(user, [])
        self.popularity.learn_one(row, at)
        self._counts[row] = self._counts.get(row, 0) + 1
        for other in set(past[-RECENT:]) - {row}:
            for one, two in ((row, other), (other, row)):
                near = self._together.setdefault(one, {})
                near[two] = near.get(two, 0) + 1
        if past:
            after = self._next.setdefault(past[-1], {})
            after[row] = after.get(row, 0) + 1
        past.append(row)

    def lists(self, user: str, hidden: Collection[int], k: int) -> dict[str, list[str]]:
        """Of each of `NAMES`, without the rows `hidden`."""
        made = (self.popular(hidden, self.best(), k), self.neighbours(user, hidden, k), self.markov(user, hidden, k))
        return dict(zip(NAMES, made, strict=True))

    def tune(self, hidden: Collection[int], item: str) -> None:
        """Somebody chooses `item` next: which half-life would have named it?"""
        for half_life in range(len(HALF_LIVES)):
            self._found[half_life] += item in self.popular(hidden, half_life, 10)

    def best(self) -> int:
        """Which of `HALF_LIVES` it has."""
        return max(range(len(HALF_LIVES)), key=lambda half_life: (self._found[half_life], half_life))

    def popular(self, hidden: Collection[int], half_life: int, k: int) -> list[str]:
        """By decayed count, without the rows `hidden`."""
        scores = self.popularity.scores()[:, half_life]
        scores[list(hidden)] = -1
        return [self.items.names[r] for r in _top(scores, k)]

    def neighbours(self, user: str, hidden: Collection[int], k: int) -> list[str]:
        """Co-counts within the last 20, summed over the last 10 items, .8 for each step back, by cosine; ties by recent popularity."""
        scores = self.popularity.scores()[:, HALF_LIVES.index(500)] * 1e-9
        for age, row in enumerate(reversed(self.history.get(user, [])[-10:])):
            near = self._together.get(row)
            if near:
                rows = np.fromiter(near, np.int64, len(near))
                counts = np.fromiter(near.values(), float, len(near))
                totals = np.array([self._counts[r] for r in near], float)
                np.add.at(scores, rows, 0.8**age * counts / np.sqrt(self._counts[row] * totals + 1))
        scores[list(hidden)] = -1
        return [self.items.names[r] for r in _top(scores, k)]

    def markov(self, user: str, hidden: Collection[int], k: int) -> list[str]:
        """What came next after the last item, most often first; then by recent popularity."""
        scores = self.popularity.scores()[:, HALF_LIVES.index(500)].astype(np.float64) * 1e-9
        past = self.history.get(user, [])
        for row, n in self._next.get(past[-1], {}).items() if past else ():
            scores[row] += n
        scores[list(hidden)] = -1
        return [self.items.names[r] for r in _top(scores, k)]


def _top(scores: np.ndarray, k: int) -> list[int]:
    rows = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
    return [int(r) for r in rows[np.argsort(-scores[rows], kind="stable")] if scores[r] >= 0]
