"""Item-to-item co-visitation: which items are chosen soon after, or soon before, which.

Each choice is paired with the user's last few, weighted by 1 / distance, and kept in both directions: what came after
(a Markov chain, with memory) and what came before. Weights are whole numbers, so that a restored state is equal to the
last bit. Counts add, so partitions merge by a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest
from math import sqrt

import msgspec

WINDOW = 5  # previous choices that a new one is paired with
UNIT = 60  # weight of distance 1: 60, 30, 20, 15, 12 are whole
KEPT = 48  # neighbours an item keeps, of at most KEPT + SLACK
SLACK = 16
DECAY = 0.8  # an older item of the history counts this much less than the one after it

# A neighbour's two weights in one number, half the memory and the time of two: as what came after, in the low bits, and as
# what came before, above them.
BEHIND = 28  # bits below what came before
_LOW = (1 << BEHIND) - 1  # 4 million of the heaviest pairs

_Near = dict[str, int]  # neighbour -> both weights
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[int, dict[str, int]])


class CoVisitation:
    """Bounded neighbour lists per item, `partitions` of them side by side.

    >>> pairs = CoVisitation()
    >>> sorted(pairs.learn_one("tea", ["cup", "pot"]))
    ['cup', 'pot', 'tea']
    >>> pairs.rank(["pot"], 2)[0]
    [('tea', 0.5)]
    """

    kind = "c"

    def __init__(self, partitions: int = 1) -> None:
        self._near: list[dict[str, _Near]] = [{} for _ in range(partitions)]
        self._mass: list[dict[str, int]] = [{} for _ in range(partitions)]  # all weight an item ever took part in

    def learn_one(self, item: str, recent: Sequence[str]) -> set[str]:
        """Pair `item` with the choices before it (`recent`, oldest first); returns the items whose lists changed."""
        near, mass = self._near[0], self._mass[0]
        touched: set[str] = set()
        for distance, other in enumerate(reversed(recent[-WINDOW:]), 1):
            if other == item or other in touched:
                continue
            touched.add(other)
            weight = UNIT // distance
            for one, two, added in ((other, item, weight), (item, other, weight << BEHIND)):
                neighbours = near.get(one)
                if neighbours is None:
                    neighbours = near[one] = {}
                neighbours[two] = neighbours.get(two, 0) + added
                mass[one] = mass.get(one, 0) + weight
                if len(neighbours) > KEPT + SLACK:
                    near[one] = dict(nsmallest(KEPT, neighbours.items(), key=_weakness))
        if touched:
            touched.add(item)
        return touched

    def dump(self, item: str) -> bytes:
        return _packer.encode((self._mass[0].get(item, 0), self._near[0].get(item, {})))

    def load(self, partition: int, item: str, value: bytes | None) -> None:
        if value is None:
            self._near[partition].pop(item, None)
            self._mass[partition].pop(item, None)
        else:
            self._mass[partition][item], self._near[partition][item] = _unpacker.decode(value)

    def rank(self, recent: Sequence[str], k: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Best k by what came after the last items, and best k by cosine of both directions, for a history `recent`.

        `recent` is oldest first; its last 3 items count for the first list, its last 10 for the second.
        """
        after: dict[str, float] = {}
        both: dict[str, float] = {}
        mass = self._mass
        for age, item in enumerate(reversed(recent[-10:])):
            own = UNIT
            for m in mass:
                own += m.get(item, 0)
            fade = DECAY**age
            share = fade / own
            cosine = fade / sqrt(own)
            for near in self._near:
                for other, weights in near.get(item, {}).items():
                    ahead = weights & _LOW
                    both[other] = both.get(other, 0.0) + cosine * (ahead + (weights >> BEHIND))
                    if age < 3 and ahead:
                        after[other] = after.get(other, 0.0) + ahead * share
        for other in both:
            own = UNIT
            for m in mass:
                own += m.get(other, 0)
            both[other] /= sqrt(own)
        return best(after.items(), k), best(both.items(), k)


def _weakness(neighbour: tuple[str, int]) -> tuple[int, str]:
    name, weights = neighbour
    return -(weights & _LOW) - (weights >> BEHIND), name


def best(scored: Iterable[tuple[str, float]], k: int) -> list[tuple[str, float]]:
    """The k highest of (item, score), ties by name."""
    entries = list(scored)
    if len(entries) > k:  # floats sort without a key, five times as fast: only what can be among the k gets one
        least = sorted([score for _, score in entries], reverse=True)[k - 1] if k else float("inf")
        entries = [entry for entry in entries if entry[1] >= least]
    return sorted(entries, key=lambda pair: (-pair[1], pair[0]))[:k]
