"""The guard: the ranker leads only while its prequential NDCG is not below that of the best single source, give or take `NOISE`.

Else that source leads and the others fill. An unweighted blend of the ranks is no guard: with weak sources in it,
it falls far below the best one (docs/serving.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.features import RANKER, SOURCES

FADE = 0.999  # of the evidence at each judged ask: a memory of about a thousand
NOISE = 0.08  # of the best source's figure: about two standard errors of the difference over that memory; less is no evidence
ENOUGH = 50.0  # judged asks before the guard believes its own figures
# Who leads while there is no evidence: co-visitation of the recent items, then popularity.
_DEFAULT = [SOURCES.index(s) for s in ("covisited", "after", "neighbours", "deep", "popular_500", "popular_2000", "popular_ever")]


class Guard:
    """Faded sums of each source's NDCG@10 over the asks that were judged; partitions merge by addition."""

    def __init__(self, sums: Sequence[float] = (0.0,) * len(SOURCES), weight: float = 0.0) -> None:
        self.sums = np.array(sums, np.float64)
        self.weight = weight

    def learn(self, ndcg: npt.NDArray[np.float64]) -> None:
        """Count one judged ask: `ndcg` float64[sources]."""
        self.sums = self.sums * FADE + ndcg
        self.weight = self.weight * FADE + 1.0

    def means(self) -> npt.NDArray[np.float64]:
        """float64[sources]: faded mean NDCG@10 of each source."""
        return np.asarray(self.sums / max(self.weight, 1e-9))

    def order(self) -> list[int]:
        """Sources in the order in which they fill a list; `RANKER` first while nothing speaks against it, else not among them."""
        if self.weight < ENOUGH:
            return [*_DEFAULT, *(s for s in range(len(SOURCES)) if s not in _DEFAULT and s != RANKER)]
        means = self.means()
        single = sorted((s for s in range(len(SOURCES)) if s != RANKER), key=lambda s: -means[s])
        return [RANKER, *single] if means[RANKER] > 0 and means[RANKER] >= (1 - NOISE) * means[single[0]] else single


def merged(guards: Sequence[Guard]) -> Guard:
    """The guards of all partitions as one."""
    if not guards:
        return Guard()
    return Guard(np.sum([g.sums for g in guards], axis=0), sum(g.weight for g in guards))


def dcg(ranks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """NDCG@10 where one item is relevant: 1 / log2(rank + 2) for a rank below 10, else 0 (ranks count from 0)."""
    return np.where(ranks < 10, 1.0 / np.log2(ranks.astype(np.float64) + 2.0), 0.0)
