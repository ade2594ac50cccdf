"""The listwise ranker: a linear model whose softmax over a logged slate should give the chosen item all of it; river's AdaGrad learns it.

The chosen item stands among all that the answer logged, some of which were shown and some drawn uniformly from the others: hard negatives
alone push a re-ranker below its best source (docs/learners.md). Beside the features it weighs random ones made of them
(learners/crossed.py). Weights leave as a record; `serving` scores with them in numpy (learners/weights.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from river import optim

from learners.crossed import WIDTH, crossed
from learners.weights import Weights, deviation

RATE = 0.1  # of the weights of features that are divided by their deviation, so that one rate suits all
FADE = 0.005  # of what is known of a feature's variance, at each slate


class ListwiseRanker:
    """A linear ranker over the features named in `names` (ListNet with one relevant item: Cao et al., ICML 2007).

    Weights that all slates share, and for each of `contexts` situations what is added to them.

    >>> from random import Random
    >>> from learners.weights import merged
    >>> ranker, rng = ListwiseRanker(("good", "noise"), 1), Random(7)
    >>> for _ in range(200):
    ...     slate = np.array([[float(row == 0), rng.random()] for row in range(5)])
    ...     ranker.learn_slate(slate, 0, 0)
    >>> good, bad = merged([ranker.weights()]).scores(np.array([[1.0, 0.5], [0.0, 0.5]]), 0)
    >>> bool(good > bad + 3)
    True
    """

    def __init__(self, names: Sequence[str], contexts: int) -> None:
        self._features, self._contexts = len(names), contexts
        self._names = [[f"{name}@{context}" for name in names] for context in range(contexts + 1)]  # the shared ones first
        self._crossed = [f"crossed {number}" for number in range(WIDTH)]
        self.load(None)

    def learn_slate(self, slate: npt.NDArray[np.floating], chosen: int, context: int) -> None:
        """Learn that row `chosen` of `slate` [items, features] was preferred in that context."""
        self.slates += 1
        self._variance += max(1 / self.slates, FADE) * (slate.var(0, dtype=np.float64) - self._variance)
        values, scaled = slate / deviation(self._variance), self._scaled
        rows = np.concatenate([values, values, crossed(values, context, self._contexts)], 1)
        names = (*self._names[0], *self._names[1 + context], *self._crossed)
        scores = rows @ np.array([scaled[name] for name in names])
        shares = np.exp(scores - scores.max())
        gradient = shares @ rows / shares.sum() - rows[chosen]
        self._optimizer.step(scaled, dict(zip(names, gradient.tolist(), strict=True)))

    def weights(self) -> Weights:
        """All that it knows, exact."""
        squares = np.array([self._optimizer.g2[name] for name in self._scaled])
        return Weights(self.slates, np.array(list(self._scaled.values())).tobytes(), squares.tobytes(), self._variance.tobytes())

    def dump(self) -> bytes:
        return self.weights().dump()

    def load(self, value: bytes | None) -> None:
        """Become what `dump` gave; None: as new."""
        names, zeros = [*(name for context in self._names for name in context), *self._crossed], bytes(8 * self._features)
        nothing = bytes(8 * len(names))
        state = Weights.load(value) if value is not None else Weights(0, nothing, nothing, zeros)
        self.slates, self._optimizer = state.slates, optim.AdaGrad(RATE)
        self._scaled = dict(zip(names, np.frombuffer(state.scaled).tolist(), strict=True))
        self._optimizer.g2.update(zip(names, np.frombuffer(state.squares).tolist(), strict=True))
        self._variance = np.frombuffer(state.variance).copy()
