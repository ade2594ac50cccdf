"""Evaluation: what a ranking is worth, and whether two rankings of the same questions differ. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learners.histories import ITEMS, Questions

Scores = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]  # int64 [n, 2, LENGTH] -> float32 [n, rows]


def ranks(scores: Scores, asked: Questions, batch: int = 256) -> npt.NDArray[np.int64]:
    """int64[n]: how many items stand before the right one (0 = first); a right item that is unknown stands last.

    Where a stream never brings an item back, what the history holds is left out. Ties count against the right item.
    """
    out = np.full(len(asked.answers), 1 << 40, np.int64)
    for start in range(0, len(out), batch):
        part = slice(start, start + batch)
        values, items, answers = scores(asked.histories[part]).copy(), asked.histories[part, ITEMS], asked.answers[part]
        rows = np.arange(len(values))
        right = values[rows, np.minimum(answers, values.shape[1] - 1)].copy()
        known = (answers > 0) & (answers < values.shape[1])
        if asked.once:
            values[rows[:, None], np.where(items < values.shape[1], items, 0)] = -np.inf
        values[:, 0] = -np.inf
        before = (values >= right[:, None]).sum(1) - (values[rows, np.minimum(answers, values.shape[1] - 1)] >= right)
        out[part] = np.where(known & np.isfinite(right), before, 1 << 40)
    return out


def ndcg(ranks: npt.NDArray[np.int64], k: int = 10) -> npt.NDArray[np.float64]:
    """float64[n]: NDCG@k of each question; one item is right."""
    return np.where(ranks < k, 1.0 / np.log2(np.minimum(ranks, k) + 2.0), 0.0)


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, and its bounds at the given one-sided confidence (normal)."""

    n: int
    mean: float
    lower: float
    upper: float


def paired(candidate: npt.NDArray[np.float64], other: npt.NDArray[np.float64], z: float = 1.6449) -> Difference:
    """Candidate minus other on the same questions; the default bounds hold with 95 % each."""
    d = candidate - other
    n = len(d)
    mean = float(d.mean()) if n else 0.0
    error = float(d.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return Difference(n, mean, mean - z * error, mean + z * error)


def place(items: Sequence[str], item: str, k: int) -> int:
    """Where `item` stands among the first `k` of a list, counting from 0; k where it does not."""
    return items.index(item) if item in items[:k] else k


def metrics(ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    """HR, NDCG and MRR at 10, HR and NDCG at 20 of questions with one right item each; `ranks` int64[n] from 0."""
    hit = ranks < 10
    return {
        "hr10": round(float(hit.mean()), 4),
        "ndcg10": round(float(ndcg(ranks).mean()), 4),
        "mrr10": round(float(np.where(hit, 1 / (np.minimum(ranks, 10) + 1.0), 0).mean()), 4),
        "hr20": round(float((ranks < 20).mean()), 4),
        "ndcg20": round(float(ndcg(ranks, 20).mean()), 4),
    }


def interval(values: npt.NDArray[np.float64], users: npt.NDArray[np.generic], seed: int, rounds: int = 1000) -> list[float]:
    """95 % bootstrap interval of the mean of `values`; what is drawn are whole users, as their questions are alike."""
    rng, (_, of) = np.random.default_rng(seed), np.unique(users, return_inverse=True)
    sums, counts = np.bincount(of, values), np.bincount(of)
    means = np.empty(rounds)
    for n in range(rounds):
        drawn = np.bincount(rng.integers(0, len(sums), len(sums)), minlength=len(sums))
        means[n] = (drawn @ sums) / (drawn @ counts)
    return [round(float(q), 4) for q in np.quantile(means, [0.025, 0.975])]
