"""What the ranker knows about a candidate: what the sources say of it, side by side, for one ask.

Computed here and nowhere else: `recommend` logs what it used, the fold only looks it up, so training and serving cannot
skew. Values are rounded to float16 before they are scored, because that is how they are logged.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

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
    "ease",
    "basket",
)
DEEP, RANKER = SOURCES.index("deep"), SOURCES.index("ranker")
POPULAR = tuple(i for i, name in enumerate(SOURCES) if name.startswith("popular"))

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
    "ease_share",
    "ease_rank",
    "ease_log",
    "basket_share",
    "basket_rank",
    "basket_log",
)

COMPARED = (
    "next",
    "last",
    "after",
    "covisited",
    "neighbours",
    "taste",
    "ease",
    "basket",
)  # sources whose values stand as shares of the largest
_SHARES = tuple(FEATURES.index(name + "_share") for name in COMPARED)
_RANKED = 2  # and from here on as a rank and a logarithm, too, in the next columns
_DEEP_SCORE, _DEEP_RANK, _POPULAR, _FRESHNESS, _AGE, _IDLE, _OWN, _OWN_LAST, _AFFINITY, _POPULAR_SHARE, _OWN_EVER, _OWN_SINCE = (
    FEATURES.index(name)
    for name in (
        "deep_score", "deep_rank", "popular_100", "freshness", "age", "idle", "own", "own_last", "affinity", "popular_100_share",
        "own_ever", "own_since",
    )
)  # fmt: skip

GAPS = (60.0, 86_400.0)  # s since the user's last event: the ranker's contexts are below the first, the second, and above
CONTEXTS = len(GAPS) + 1


_WIDTH = len(FEATURES)


@compiled
def features(
    compared: Any, popularity: Any, age_days: Any, idle: Any, own: Any, own_ever: Any, own_since: Any, deep: Any, deep_rank: Any,
    affinity: Any,
) -> Any:  # fmt: skip
    """float32[n, features], which hold what float16 can, of what is known of n candidates, whichever source named them.

    `compared` float32[COMPARED, n]: `learners.near.Near`, votes of the neighbours, `learners.ease`; stands as the root of its share of the
    largest, as 1 / (1 + candidates with more), 0 for a value of 0, and as a logarithm. Equal values have equal ranks, in whatever order
    they stand. `popularity` [half-lives, n]: decayed counts divided by the largest of the catalogue. `age_days` since an item was first
    chosen; `idle`: events of the stream since it was last chosen. `own`: how often the user chose it lately, `own_ever`: of all that is
    remembered; `own_since`: choices since the last time, counting from 1, 0 where there was none. `deep`: the sequence model's score, nan
    where it did not name the item, and `deep_rank`, from 0. `affinity`: share of the history in its categories; empty where there are none.
    """
    n = len(idle)
    out = np.zeros((n, _WIDTH), np.float32)
    bits, some = compared.view(np.int32), np.empty(n, np.int64)  # bits of floats above 0 are in the order of these
    for source in range(len(_SHARES)):
        at, above, largest = _SHARES[source], 0, np.float32(1e-9)
        for candidate in range(n):
            if compared[source, candidate] > 0:
                some[above] = np.int64(bits[source, candidate]) << 32 | candidate
                above += 1
                largest = max(largest, compared[source, candidate])
        if source >= _RANKED:
            some[:above].sort()
        more, before = 0, np.float32(np.inf)
        for nth in range(above):  # the largest first, where that matters
            candidate = some[above - 1 - nth] & 0xFFFFFFFF
            value = compared[source, candidate]
            out[candidate, at] = np.sqrt(np.float64(value) / np.float64(largest))
            if source >= _RANKED:
                if value < before:
                    more, before = nth, value
                out[candidate, at + 1] = 1.0 / (1 + more)
                out[candidate, at + 2] = np.log1p(10.0 * np.float64(value))
    named, mean, variance = 0, 0.0, 0.0
    for score in deep:
        if not np.isnan(score):
            named += 1
            mean += score
    mean /= max(named, 1)
    for score in deep:
        if not np.isnan(score):
            variance += (score - mean) ** 2 / named
    spread = np.sqrt(variance) if variance > 0 else 1.0
    for candidate in range(n):
        row = out[candidate]
        if named:
            row[_DEEP_SCORE] = -1.0
        if not np.isnan(deep[candidate]):
            row[_DEEP_SCORE] = (deep[candidate] - mean) / spread * 0.5
            row[_DEEP_RANK] = 1.0 / (1.0 + deep_rank[candidate])
        for half_life in range(len(popularity)):
            row[_POPULAR + half_life] = np.log1p(popularity[half_life, candidate] * 100.0) / np.log(101.0)
            row[_POPULAR_SHARE + half_life] = popularity[half_life, candidate]
        row[_FRESHNESS] = 1.0 / (1.0 + age_days[candidate])
        row[_AGE] = np.log1p(age_days[candidate]) / 5
        row[_IDLE] = np.log1p(min(idle[candidate], 1e9)) / 10
        if own_ever[candidate] > 0:
            row[_OWN], row[_OWN_EVER] = np.log1p(own[candidate]), np.log1p(own_ever[candidate])
        if own_since[candidate] > 0:
            row[_OWN_LAST], row[_OWN_SINCE] = 1.0 / own_since[candidate], np.log1p(own_since[candidate]) / 6
        if len(affinity):
            row[_AFFINITY] = affinity[candidate]
        for place in range(_WIDTH):  # to 11 bits (Dekker, 1971), or to a multiple of 2**-24 where float16 has fewer
            value = row[place]
            spread_out = value * np.float32(8193.0)
            rounded = spread_out - (spread_out - value)
            row[place] = rounded if abs(value) >= np.float32(2.0**-14) else (value + np.float32(0.75)) - np.float32(0.75)
    return out


def context(gap_s: float) -> int:
    """In which of the ranker's contexts an ask is that comes so long after the user's last event."""
    return bisect_right(GAPS, gap_s)
