"""The gate: may a candidate be served? It refuses what looks like harm, not what has not proved its gain. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.evaluation import Difference, Scores, ndcg, paired, ranks
from learners.histories import Questions

SLICE = 300  # questions a slice needs before it may refuse
WORSE = 0.25  # relative point estimate that is harm, whatever its bounds: what few questions can show
SLICE_WORSE = 0.02  # relative upper bound of a slice that is harm
COVERAGE = 0.01  # least share of the vocabulary that appears in some top 10
LARGER, ROOM_MB = 3.0, 32.0  # a model may be so many times as large as the live one with as many items, and so much larger
SLOWER, PAUSE_MS = 3.0, 0.25  # and take so many times as long for a question, and so much longer


@dataclass(frozen=True)
class Cost:
    """What a model takes: `megabytes` as it is served, `ms` of CPU for one question; and the `items` it knows, as both grow with them."""

    megabytes: float
    ms: float
    items: int


@dataclass(frozen=True)
class Judged:
    """Per question: ranks of the right item under each model, and what the question was about."""

    candidate: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64] | None  # None: there is no live model yet
    popular: npt.NDArray[np.int64]  # decayed popularity, on the same questions
    lengths: npt.NDArray[np.int64]
    popularity: npt.NDArray[np.int64]
    coverage: float
    finite: bool
    cost: Cost
    live_cost: Cost | None  # None: there is no live model yet
    had_by: int = 0  # an earlier version that has had these very weights; 0: there is none


@dataclass(frozen=True)
class Verdict:
    """`passed`, the reasons against it, and all figures (plain values, for the release record)."""

    passed: bool
    reasons: list[str]
    figures: dict[str, Any]


def judge(judged: Judged) -> Verdict:
    """The verdict on one candidate.

    Refused: weights that an earlier version had, as they are no news, however good; scores that are not numbers; less than
    `COVERAGE` of the catalogue ever named; three times as large or as slow as the live model would be with as many items; NDCG@10
    below the live model's with 95 % confidence, or by 25 %; a slice of at least 300 questions below it by 2 % with 95 % confidence. How
    often that refuses equal models, and passes worse ones: `bench.gate`. A first model is held against decayed popularity: it joins a
    guarded blend, so half of that is enough.
    """
    mine, popular = ndcg(judged.candidate), ndcg(judged.popular)
    figures: dict[str, Any] = {
        "questions": len(mine),
        "ndcg10": _mean(mine),
        "hr10": _mean((mine > 0).astype(np.float64)),
        "popular_ndcg10": _mean(popular),
        "coverage": round(judged.coverage, 4),
        "megabytes": round(judged.cost.megabytes, 3),
        "ms": round(judged.cost.ms, 3),
    }
    reasons = []
    if judged.had_by:
        reasons.append(f"its weights are those of version {judged.had_by}")
    if not judged.finite:
        reasons.append("scores are not finite")
    if judged.coverage < COVERAGE:
        reasons.append(f"names only {judged.coverage:.2%} of the vocabulary")
    if (live_cost := judged.live_cost) is not None:
        growth = max(1.0, judged.cost.items / live_cost.items)
        if judged.cost.megabytes > LARGER * growth * live_cost.megabytes + ROOM_MB:
            reasons.append(f"{judged.cost.megabytes:.0f} MB, the live model has {live_cost.megabytes:.0f}")
        if judged.cost.ms > SLOWER * growth * live_cost.ms + PAUSE_MS:
            reasons.append(f"{judged.cost.ms:.1f} ms a question, the live model takes {live_cost.ms:.1f}")
    if len(mine) == 0:
        reasons.append("no questions: nobody with a history came back")
    elif judged.live is None:
        if mine.mean() < 0.5 * popular.mean():
            reasons.append(f"ndcg10 {mine.mean():.4f} is less than half of decayed popularity's {popular.mean():.4f}")
    else:
        live = ndcg(judged.live)
        figures["live_ndcg10"] = _mean(live)
        whole = paired(mine, live)
        figures["difference"] = _bounds(whole)
        if whole.upper < 0 or whole.mean < -WORSE * live.mean():
            reasons.append(f"ndcg10 {mine.mean():.4f} against {live.mean():.4f} of the live model")
        for name, chosen in _slices(judged).items():
            part = paired(mine[chosen], live[chosen])
            figures[f"slice_{name}"] = {**_bounds(part), "live_ndcg10": _mean(live[chosen])}
            if part.n >= SLICE and part.upper < -SLICE_WORSE * live[chosen].mean():
                reasons.append(f"slice {name}: ndcg10 lower by {-part.mean:.4f}")
    return Verdict(not reasons, reasons, figures)


def tried(
    candidate: Scores,
    live: Scores | None,
    popular: npt.NDArray[np.float32],
    asked: Questions,
    cost: Cost,
    live_cost: Cost | None,
    had_by: int = 0,
) -> Judged:
    """What `judge` wants to know: two models, and decayed popularity by row, on the same questions."""
    named, finite = set[int](), True

    def watched(histories: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        nonlocal finite
        values = candidate(histories)
        finite = finite and bool(np.isfinite(values).all())
        best = np.argpartition(-values[:, 1:], min(10, values.shape[1] - 1) - 1, 1)[:, :10]
        named.update(np.unique(best).tolist())
        return values

    return Judged(
        candidate=ranks(watched, asked),
        live=ranks(live, asked) if live else None,
        popular=ranks(lambda histories: np.tile(popular, (len(histories), 1)), asked),
        lengths=asked.lengths,
        popularity=asked.popularity,
        coverage=len(named) / cost.items,
        finite=finite,
        cost=cost,
        live_cost=live_cost,
        had_by=had_by,
    )


def _slices(judged: Judged) -> dict[str, npt.NDArray[np.bool_]]:
    return {
        "new_users": judged.lengths < 10,
        "heavy_users": judged.lengths >= 50,
        "tail_items": judged.popularity < 10,
    }


def _mean(values: npt.NDArray[np.float64]) -> float:
    return round(float(values.mean()), 5) if len(values) else 0.0


def _bounds(d: Difference) -> dict[str, float | None]:
    """As plain values; bounds that one question does not give are None."""
    lower, upper = (round(b, 5) if np.isfinite(b) else None for b in (d.lower, d.upper))
    return {"n": d.n, "mean": round(d.mean, 5), "lower95": lower, "upper95": upper}
