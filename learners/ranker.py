"""The listwise ranker: its softmax over a logged slate should give the chosen item all of it; river's AdaGrad learns it.

The chosen item stands among all that the answer logged, some of which were shown and some drawn uniformly from the others: hard negatives
alone push a re-ranker below its best source (docs/learners.md). A linear model with a hidden layer beside it (learners/hidden.py). Weights
leave as a record; `serving` scores with them in numpy (learners/weights.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from river import optim

from learners.hidden import Layer
from learners.weights import Layers, Weights, deviation

RATE = 0.1  # of the weights of features that are divided by their deviation, so that one rate suits all
SLOW = 0.01  # of the hidden units: what partitions make of them has to stay alike
FADE = 0.005  # of what is known of a feature's variance, at each slate


class ListwiseRanker:
    """A ranker over so many `features` (ListNet with one relevant item: Cao et al., ICML 2007).

    Weights that all slates share, and for each of `contexts` situations what is added to them.

    >>> from random import Random
    >>> from learners.weights import merged
    >>> ranker, rng = ListwiseRanker(2, 1), Random(7)
    >>> for _ in range(200):
    ...     slate = np.array([[float(row == 0), rng.random()] for row in range(5)])
    ...     ranker.learn_slate(slate, 0, 0)
    >>> good, bad = merged([ranker.weights()]).scores(np.array([[1.0, 0.5], [0.0, 0.5]]), 0)
    >>> bool(good > bad + 3)
    True
    """

    def __init__(self, features: int, contexts: int) -> None:
        self._features, self._contexts = features, contexts
        self.load(None)

    def learn_slate(self, slate: npt.NDArray[np.floating], chosen: int, context: int) -> None:
        """Learn that row `chosen` of `slate` [items, features] was preferred in that context."""
        self.slates += 1
        self._variance += max(1 / self.slates, FADE) * (slate.var(0, dtype=np.float64) - self._variance)
        values, (linear, out, hidden, shift) = (slate / deviation(self._variance)).astype(np.float32), self._layers
        sums = values @ hidden + shift[context]
        units = np.maximum(sums, 0.0)
        scores = values @ (linear[0] + linear[1 + context]) + units @ out
        wrong = np.exp(scores - scores.max())
        wrong /= wrong.sum()
        wrong[chosen] -= 1.0
        of_units = wrong[:, None] * out * (sums > 0)
        shared = wrong @ values
        self._quick.step(self._weights, {"linear": shared, f"linear {context}": shared, "out": wrong @ units})
        self._slow.step(self._weights, {"hidden": values.T @ of_units, f"shift {context}": of_units.sum(0)})

    def weights(self) -> Weights:
        """All that it knows, exact."""
        return Weights(self.slates, self._flat.tobytes(), self._squares.tobytes(), self._variance.tobytes())

    def dump(self) -> bytes:
        return self.weights().dump()

    def load(self, value: bytes | None) -> None:
        """Become what `dump` gave; None: as new."""
        state = Weights.load(value) if value is not None else Weights.new(self._features, self._contexts)
        self.slates, self._variance = state.slates, np.frombuffer(state.variance).copy()
        self._flat, self._squares = np.frombuffer(state.layers, np.float32).copy(), np.frombuffer(state.squares, np.float32).copy()
        self._layers, self._weights = Layers.of(self._flat, self._features), self._named(self._flat)
        self._quick, self._slow = optim.AdaGrad(RATE), optim.AdaGrad(SLOW)
        for optimizer in (self._quick, self._slow):
            optimizer.g2.update(self._named(self._squares))

    def _named(self, flat: Layer) -> dict[str, Layer]:
        """Views of an array of `Layers`: what river changes in place."""
        linear, out, hidden, shift = Layers.of(flat, self._features)
        contexts = range(self._contexts)
        named = {f"linear {c}": linear[1 + c] for c in contexts} | {f"shift {c}": shift[c] for c in contexts}
        return named | {"linear": linear[0], "out": out, "hidden": hidden}
