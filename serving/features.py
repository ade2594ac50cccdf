"""What the ranker knows about a candidate: the sources' ranks and scores, side by side, for one ask.

Computed here and nowhere else: `recommend` logs what it used, the fold only looks it up, so training and serving cannot
skew. Values are rounded to float16 before they are scored, because that is how they are logged.
"""

from __future__ import annotations

from collections.abc import Sequence
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
)
DEEP, RANKER = SOURCES.index("deep"), SOURCES.index("ranker")
POPULAR = tuple(i for i, name in enumerate(SOURCES) if name.startswith("popular"))
ABSENT = 255  # the rank of an item that a source did not name

# Order is part of the wire format (Impression.features) and of the ranker's state: append only.
FEATURES = (
    "deep_score",
    "deep_rank",
    "after_share",
    "after_rank",
    "covisited_share",
    "covisited_rank",
    "neighbours_share",
    "neighbours_rank",
    "popular_100",
    "popular_500",
    "popular_2000",
    "popular_10000",
    "popular_ever",
    "trend",
    "freshness",
    "own",
    "affinity",
)


@dataclass(frozen=True)
class Candidates:
    """The union of the sources' lists for one ask: `items`, and uint8 `ranks` / float32 `scores` [items, sources].

    A rank counts from 0, `ABSENT` where the source did not name the item; the score is then 0.
    """

    items: list[str]
    ranks: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]


def union(lists: Sequence[Sequence[tuple[str, float]]]) -> Candidates:
    """Join one best-first list of (item, score) per source, in the order of `SOURCES`."""
    place: dict[str, int] = {}
    for entries in lists:
        for item, _ in entries:
            place.setdefault(item, len(place))
    ranks = np.full((len(place), len(SOURCES)), ABSENT, np.uint8)
    scores = np.zeros((len(place), len(SOURCES)), np.float32)
    for source, entries in enumerate(lists):
        if entries:
            rows = [place[item] for item, _ in entries]
            ranks[rows, source] = np.minimum(np.arange(len(rows)), ABSENT - 1)
            scores[rows, source] = [score for _, score in entries]
    return Candidates(list(place), ranks, scores)


def features(
    candidates: Candidates,
    popularity: npt.NDArray[np.float32],
    age_days: npt.NDArray[np.float32],
    own: npt.NDArray[np.float32],
    affinity: npt.NDArray[np.float32],
) -> npt.NDArray[np.float16]:
    """float16[items, features].

    `popularity` [items, half-lives] decayed counts divided by the largest of the catalogue; `age_days` since an item
    was first chosen; `own` how often the user chose it lately; `affinity` share of the history in its categories.
    """
    n = len(candidates.items)
    out = np.zeros((n, len(FEATURES)), np.float32)
    ranks, scores = candidates.ranks, candidates.scores
    present = ranks != ABSENT
    column = 0
    for source in range(4):  # deep, after, covisited, neighbours
        score = scores[:, source]
        if source == DEEP:
            named = score[present[:, source]]
            if len(named):
                spread = float(named.std()) or 1.0
                out[:, column] = np.where(present[:, source], (score - named.mean()) / spread * 0.5, -1.0)
        else:
            out[:, column] = np.sqrt(score / max(float(score.max(initial=0.0)), 1e-9))
        out[:, column + 1] = np.where(present[:, source], 1.0 / (1.0 + ranks[:, source]), 0.0)
        column += 2
    logs = np.log1p(popularity * 100.0) / np.log(101.0)
    out[:, column : column + 5] = logs
    out[:, column + 5] = logs[:, 0] - logs[:, 3]  # short against long half-life: rising or falling
    out[:, column + 6] = 1.0 / (1.0 + age_days)
    out[:, column + 7] = np.log1p(own)
    out[:, column + 8] = affinity
    return out.astype(np.float16)
