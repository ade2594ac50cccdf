"""What the ranker knows about a candidate: what the sources say of it, side by side, for one ask.

Computed here and nowhere else: `recommend` logs what it used, the fold only looks it up, so training and serving cannot
skew. Values are rounded to float16 before they are scored, because that is how they are logged.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled

# Order is part of the wire format (Impression.ranks): append only.
SOURCES = (
    "deep",
    "after",
    "covisited",
    "neighbours",
    "popular_100",
    "popular_500",
    "popular_2000",
    "popular_10000",
    "popular_ever",
    "fresh",
    "history",
    "ranker",
    "taste",
)
DEEP, RANKER = SOURCES.index("deep"), SOURCES.index("ranker")
POPULAR = tuple(i for i, name in enumerate(SOURCES) if name.startswith("popular"))
ABSENT = 255  # the rank of an item that a source did not name

# Order is part of the wire format (Impression.features) and of the ranker's state: append only.
FEATURES = (
    "deep_score",
    "deep_rank",
    "next_share",
    "after_share",
    "after_rank",
    "after_log",
    "last_share",
    "covisited_share",
    "covisited_rank",
    "covisited_log",
    "neighbours_share",
    "neighbours_rank",
    "neighbours_log",
    "popular_100",
    "popular_500",
    "popular_2000",
    "popular_10000",
    "popular_ever",
    "freshness",
    "age",
    "idle",
    "own",
    "own_last",
    "affinity",
    "popular_100_share",
    "popular_500_share",
    "popular_2000_share",
    "popular_10000_share",
    "popular_ever_share",
    "own_ever",
    "own_since",
    "taste_share",
    "taste_rank",
    "taste_log",
)

GAPS = (60.0, 86_400.0)  # s since the user's last event: the ranker's contexts are below the first, the second, and above
CONTEXTS = len(GAPS) + 1

Column = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Facts:
    """What is known of n candidates, whichever source named them; a column each.

    `deep`: the sequence model's score, nan where it did not name the item, and `deep_rank` (255 there). `next`, `after`, `last`,
    `covisited`, `taste`: `learners.near.Near`. `neighbours`: votes. `popularity` [n, half-lives]: decayed counts divided by the largest
    of the catalogue. `age_days` since an item was first chosen; `idle`: events of the stream since it was last chosen. `own`: how often
    the user chose it lately, `own_ever`: of all that is remembered; `own_since`: choices since the last time, counting from 1, 0 where
    there was none. `affinity`: share of the history in its categories.
    """

    deep: Column
    deep_rank: npt.NDArray[np.uint8]
    next: Column
    after: Column
    last: Column
    covisited: Column
    taste: Column
    neighbours: Column
    popularity: Column
    age_days: Column
    idle: Column
    own: Column
    own_ever: Column
    own_since: Column
    affinity: Column


def features(facts: Facts) -> npt.NDArray[np.float16]:
    """float16[n, features]."""
    named = ~np.isnan(facts.deep)
    score = np.zeros(len(named))
    if named.any():
        spread = float(facts.deep[named].std()) or 1.0
        score[:] = np.where(named, (facts.deep - facts.deep[named].mean()) / spread * 0.5, -1.0)
    sources = (facts.next, facts.after, facts.last, facts.covisited, facts.neighbours, facts.taste)
    next_, after, last, covisited, neighbours, taste = _compare(np.array(sources, np.float64))
    columns = (
        score, np.where(named, 1.0 / (1.0 + facts.deep_rank), 0.0),
        next_[0], *after, last[0], *covisited, *neighbours,
        *(np.log1p(facts.popularity * 100.0) / np.log(101.0)).T,
        1.0 / (1.0 + facts.age_days), np.log1p(facts.age_days) / 5, np.log1p(np.minimum(facts.idle, 1e9)) / 10,
        np.log1p(facts.own), np.where(facts.own_since > 0, 1.0 / np.maximum(facts.own_since, 1), 0.0), facts.affinity,
        *facts.popularity.T,
        np.log1p(facts.own_ever), np.log1p(facts.own_since) / 6,
        *taste,
    )  # fmt: skip
    return np.array(columns, np.float16).T


@compiled
def _compare(sources: Any) -> Any:
    """float64[sources, 3, n]: what each source gives the candidates as the root of its share of the largest, as 1 / (1 + candidates with
    more), 0 for a value of 0, and as a logarithm. Equal values have equal ranks, in whatever order they stand.
    """
    m, n = sources.shape
    out = np.zeros((m, 3, n))
    for source in range(m):
        values = np.sort(sources[source])
        for candidate in range(n):
            value = sources[source, candidate]
            if value > 0:
                out[source, 0, candidate] = np.sqrt(value / max(values[-1], 1e-9))
                out[source, 1, candidate] = 1.0 / (1 + n - np.searchsorted(values, value, side="right"))
                out[source, 2, candidate] = np.log1p(10.0 * value)
    return out


def context(gap_s: float) -> int:
    """In which of the ranker's contexts an ask is that comes so long after the user's last event."""
    return bisect_right(GAPS, gap_s)
