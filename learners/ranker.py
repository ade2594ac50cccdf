"""The pairwise ranker: a river logistic regression on feature differences inside one logged slate.

The chosen item against items drawn uniformly from the same slate: hard negatives push a re-ranker below its best
source, uniform ones lift it above (docs/learners.md). Weights leave as an array; `serving` scores with them in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from river import linear_model, optim

from learners.weights import Weights

NEGATIVES = 10  # drawn from a slate for each choice
CLIP = 10.0  # largest weight of a rare choice (inverse propensity)


class PairwiseRanker:
    """A linear ranker over the features named in `names`.

    >>> ranker = PairwiseRanker(("good", "noise"))
    >>> rng = Random(7)
    >>> for _ in range(200):
    ...     slate = np.array([[float(row == 0), rng.random()] for row in range(5)])
    ...     ranker.learn_slate(slate, 0, rng, 1.0)
    >>> good, noise = ranker.weights()
    >>> bool(good > 5 * abs(noise))
    True
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.slates = 0
        self._model = self._fresh()

    def _fresh(self) -> linear_model.LogisticRegression:
        return linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1), intercept_lr=0.0)

    def learn_slate(self, slate: npt.NDArray[np.floating], chosen: int, rng: Random, weight: float) -> None:
        """Learn that row `chosen` of `slate` [items, features] was preferred; `weight` is clipped to `CLIP`."""
        others = [row for row in range(len(slate)) if row != chosen]
        rows = slate.tolist()
        best = rows[chosen]
        for other in rng.sample(others, min(NEGATIVES, len(others))):
            difference = {name: b - o for name, b, o in zip(self.names, best, rows[other], strict=True)}
            self._model.learn_one(difference, True, w=min(weight, CLIP))
        self.slates += 1

    def weights(self) -> npt.NDArray[np.float64]:
        """float64[features], zeros before the first slate."""
        weights = self._model.weights
        return np.array([weights.get(name, 0.0) for name in self.names])

    def dump(self) -> bytes:
        """Slates learned, weights, and AdaGrad's sums of squared gradients, exact."""
        squares = np.array([self._model.optimizer.g2[name] for name in self.names])
        return Weights(self.slates, self.weights().tobytes(), squares.tobytes()).dump()

    def load(self, value: bytes | None) -> None:
        self._model = self._fresh()
        self.slates = 0
        if value is not None:
            state = Weights.load(value)
            self.slates = state.slates
            for name, w, s in zip(self.names, state.array(), np.frombuffer(state.squares), strict=True):
                self._model._weights[name] = float(w)
                self._model.optimizer.g2[name] = float(s)
