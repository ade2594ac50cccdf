"""Harm: is a model on trial worse than the one before it? A test that may be looked at after every answer. Pure.

Each judged answer of the trial is held against the mean of the last `BESIDE` answers of the model before, and bets multiply: while the
trial is not worse, the mean of their wealth hardly ever reaches 1 / `ALPHA`, whenever one looks. Ville's inequality says so, with a
probability of at most `ALPHA`, of answers that are alike by chance only (Waudby-Smith, Ramdas: Estimating means of bounded random variables
by betting, 2024). Those of one user are alike, so the k-th one of the trial counts 1 / k^1.5; what is then left is measured
(docs/releases.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ALPHA = 0.01
BESIDE = 30
FADING = 1.5
BETS = np.array([[0.2], [0.95]])
SHARES = np.array([[0.4], [0.6]]) * np.array([0.2, 0.8])  # of the first wealth, by bet, and by NDCG@10 and recall


class Judged(NamedTuple):
    """One judged answer: whose, NDCG@10 of the list as shown, whether the model's own list had the item, and whether it was degraded (0
    or 1).
    """

    user: int
    ndcg: float
    recall: float
    degraded: int = 0


@dataclass
class Arm:
    """Judged answers of one model since the trial began: (NDCG@10, recall) and weight of each."""

    values: list[tuple[float, float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    degraded: int = 0
    _of: Counter[int] = field(default_factory=Counter)

    def add(self, judged: Sequence[Judged]) -> None:
        for user, ndcg, recall, degraded in judged:
            self._of[user] += 1
            self.values.append((ndcg, recall))
            self.weights.append(self._of[user] ** -FADING)
            self.degraded += degraded

    def means(self) -> list[float | None]:
        """Weighted NDCG@10 and recall."""
        if not self.values:
            return [None, None]
        return [round(float(x), 5) for x in np.average(self.values, 0, self.weights)]


@dataclass
class Trial:
    """The model on trial, the one before, and the evidence so far."""

    mine: Arm = field(default_factory=Arm)
    others: Arm = field(default_factory=Arm)
    _bet: int = 0  # answers that bets have been made with
    _logs: npt.NDArray[np.float64] = field(default_factory=lambda: np.log(SHARES))

    def add(self, mine: Sequence[Judged], others: Sequence[Judged]) -> None:
        """Take in what was judged since. Answers wait until there are enough to be held against."""
        self.mine.add(mine)
        self.others.add(others)
        if len(self.others.values) < BESIDE:
            return
        usual = np.average(self.others.values[-BESIDE:], 0, self.others.weights[-BESIDE:])
        for value, weight in zip(self.mine.values[self._bet :], self.mine.weights[self._bet :], strict=True):
            self._logs = self._logs + np.log1p(BETS * weight * (usual - value))
        self._bet = self.judged

    @property
    def judged(self) -> int:
        """Answers of the model on trial."""
        return len(self.mine.values)

    @property
    def evidence(self) -> float:
        """ln of the e-value of harm, be it to the list as shown or to the model's own."""
        most = float(self._logs.max())
        return most + float(np.log(np.exp(self._logs - most).sum()))

    @property
    def is_harmful(self) -> bool:
        return self.evidence >= -log(ALPHA)

    def figures(self) -> dict[str, float | int | None]:
        """For the release record."""
        (ndcg, recall), (live_ndcg, live_recall) = self.mine.means(), self.others.means()
        return {
            "judged": self.judged,
            "live_judged": len(self.others.values),
            "evidence": round(self.evidence, 3),
            "canary_ndcg10": ndcg,
            "live_ndcg10": live_ndcg,
            "canary_recall": recall,
            "live_recall": live_recall,
            "canary_degraded": self.mine.degraded,
            "live_degraded": self.others.degraded,
        }
