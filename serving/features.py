"""What the ranker knows about a candidate: what the sources say of it, side by side, for one ask.

Computed here and nowhere else: `recommend` logs what it used, the fold only looks it up, so training and serving cannot
skew. Values are rounded to float16 before they are scored, because that is how they are logged.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    score = np.full(len(named), -1.0)
    if named.any():
        spread = float(facts.deep[named].std()) or 1.0
        score[named] = (facts.deep[named] - facts.deep[named].mean()) / spread * 0.5
    else:
        score[:] = 0.0
    columns = (
        score, _inverse(facts.deep_rank, named),
        _share(facts.next),
        _share(facts.after), _rank(facts.after), np.log1p(10 * facts.after),
        _share(facts.last),
        _share(facts.covisited), _rank(facts.covisited), np.log1p(10 * facts.covisited),
        _share(facts.neighbours), _rank(facts.neighbours), np.log1p(10 * facts.neighbours),
        *(np.log1p(facts.popularity * 100.0) / np.log(101.0)).T,
        1.0 / (1.0 + facts.age_days), np.log1p(facts.age_days) / 5, np.log1p(np.minimum(facts.idle, 1e9)) / 10,
        np.log1p(facts.own), np.where(facts.own_since > 0, 1.0 / np.maximum(facts.own_since, 1), 0.0), facts.affinity,
        *facts.popularity.T,
        np.log1p(facts.own_ever), np.log1p(facts.own_since) / 6,
        _share(facts.taste), _rank(facts.taste), np.log1p(10 * facts.taste),
    )  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float16)


def context(gap_s: float) -> int:
    """In which of the ranker's contexts an ask is that comes so long after the user's last event."""
    return bisect_right(GAPS, gap_s)


def _share(values: Column) -> Column:
    """Of the largest among the candidates, its square root."""
    return np.asarray(np.sqrt(values / max(float(values.max(initial=0.0)), 1e-9)))


def _rank(values: Column) -> Column:
    """1 / (1 + candidates with more), 0 for a value of 0: equal values have equal ranks, in whatever order they stand."""
    more = len(values) - np.searchsorted(np.sort(values), values, side="right")
    return _inverse(more, values > 0)


def _inverse(ranks: npt.NDArray[np.integer], named: npt.NDArray[np.bool_]) -> Column:
    return np.where(named, 1.0 / (1.0 + ranks), 0.0)
