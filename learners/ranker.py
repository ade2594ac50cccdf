"""The listwise ranker: a linear model whose softmax over a logged slate should give the chosen item all of it; river's AdaGrad learns it.

The chosen item stands among items drawn uniformly from the same slate: hard negatives push a re-ranker below its best
source, uniform ones lift it above (docs/learners.md). Weights leave as an array; `serving` scores with them in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from river import optim

from learners.weights import Weights

NEGATIVES = 10  # drawn from a slate for each choice
CLIP = 10.0  # largest weight of a rare choice (inverse propensity)
RATE = 0.1


class ListwiseRanker:
    """A linear ranker over the features named in `names` (ListNet with one relevant item: Cao et al., ICML 2007).

    >>> ranker = ListwiseRanker(("good", "noise"))
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
        self.load(None)

    def learn_slate(self, slate: npt.NDArray[np.floating], chosen: int, rng: Random, weight: float) -> None:
        """Learn that row `chosen` of `slate` [items, features] was preferred; `weight` is clipped to `CLIP`."""
        others = [row for row in range(len(slate)) if row != chosen]
        rows = slate[[chosen, *rng.sample(others, min(NEGATIVES, len(others)))]].astype(np.float64)
        scores = rows @ self.weights()
        shares = np.exp(scores - scores.max())
        gradient = min(weight, CLIP) * (shares @ rows / shares.sum() - rows[0])
        self._optimizer.step(self._weights, dict(zip(self.names, gradient.tolist(), strict=True)))
        self.slates += 1

    def weights(self) -> npt.NDArray[np.float64]:
        """float64[features], zeros before the first slate."""
        return np.array(list(self._weights.values()))

    def dump(self) -> bytes:
        """Slates learned, weights, and AdaGrad's sums of squared gradients, exact."""
        squares = np.array([self._optimizer.g2[name] for name in self.names])
        return Weights(self.slates, self.weights().tobytes(), squares.tobytes()).dump()

    def load(self, value: bytes | None) -> None:
        """Become what `dump` gave; None: as new."""
        state = Weights.load(value) if value is not None else Weights(0, bytes(8 * len(self.names)), bytes(8 * len(self.names)))
        self.slates, self._optimizer = state.slates, optim.AdaGrad(RATE)
        self._weights = dict(zip(self.names, state.array().tolist(), strict=True))
        self._optimizer.g2.update(zip(self.names, np.frombuffer(state.squares).tolist(), strict=True))
