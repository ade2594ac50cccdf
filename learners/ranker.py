"""The listwise ranker: a linear model whose softmax over a logged slate should give the chosen item all of it; river's AdaGrad learns it.

The chosen item stands among items drawn uniformly from the same logged slate, of which some were shown and some were not: hard
negatives alone push a re-ranker below its best source (docs/learners.md). Weights leave as an array; `serving` scores with them in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from river import optim

from learners.weights import Weights, deviation

NEGATIVES = 10  # drawn from a slate for each choice
RATE = 0.1  # of the weights of features that are divided by their deviation, so that one rate suits all
FADE = 0.005  # of what is known of a feature's variance, at each slate


class ListwiseRanker:
    """A linear ranker over the features named in `names` (ListNet with one relevant item: Cao et al., ICML 2007).

    Weights that all slates share, and for each of `contexts` situations what is added to them.

    >>> ranker = ListwiseRanker(("good", "noise"), 1)
    >>> rng = Random(7)
    >>> for _ in range(200):
    ...     slate = np.array([[float(row == 0), rng.random()] for row in range(5)])
    ...     ranker.learn_slate(slate, 0, rng, 0)
    >>> good, noise = ranker.weights().sum(0)
    >>> bool(good > 5 * abs(noise))
    True
    """

    def __init__(self, names: Sequence[str], contexts: int) -> None:
        self._features = len(names)
        self._names = [[f"{name}@{context}" for name in names] for context in range(contexts + 1)]  # the shared ones first
        self.load(None)

    def learn_slate(self, slate: npt.NDArray[np.floating], chosen: int, rng: Random, context: int) -> None:
        """Learn that row `chosen` of `slate` [items, features] was preferred in that context."""
        self.slates += 1
        self._variance += max(1 / self.slates, FADE) * (slate.var(0, dtype=np.float64) - self._variance)
        others = [row for row in range(len(slate)) if row != chosen]
        rows = slate[[chosen, *rng.sample(others, min(NEGATIVES, len(others)))]] / deviation(self._variance)
        shared, own, scaled = self._names[0], self._names[1 + context], self._scaled
        scores = rows @ np.array([scaled[a] + scaled[b] for a, b in zip(shared, own, strict=True)])
        shares = np.exp(scores - scores.max())
        gradient = (shares @ rows / shares.sum() - rows[0]).tolist()
        self._optimizer.step(scaled, dict(zip((*shared, *own), (*gradient, *gradient), strict=True)))

    def _state(self) -> Weights:
        squares = np.array([self._optimizer.g2[name] for name in self._scaled])
        return Weights(self.slates, np.array(list(self._scaled.values())).tobytes(), squares.tobytes(), self._variance.tobytes())

    def weights(self) -> npt.NDArray[np.float64]:
        """float64[1 + contexts, features], the shared ones first; zeros before the first slate."""
        return self._state().array()

    def dump(self) -> bytes:
        """All that it knows, exact."""
        return self._state().dump()

    def load(self, value: bytes | None) -> None:
        """Become what `dump` gave; None: as new."""
        names, nothing = [name for context in self._names for name in context], bytes(8 * self._features)
        weights = nothing * len(self._names)
        state = Weights.load(value) if value is not None else Weights(0, weights, weights, nothing)
        self.slates, self._optimizer = state.slates, optim.AdaGrad(RATE)
        self._scaled = dict(zip(names, np.frombuffer(state.scaled).tolist(), strict=True))
        self._optimizer.g2.update(zip(names, np.frombuffer(state.squares).tolist(), strict=True))
        self._variance = np.frombuffer(state.variance).copy()
