"""The ranker's record on the state topic, readable without river, and what is made of all partitions' records: Triton scores with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from learners.crossed import WIDTH, crossed

LEAST = 1e-4  # variance that a feature has at least: one that was always the same gets no wild weight


class Weights(msgspec.Struct, array_like=True, frozen=True):
    """`slates` learned from; float64 bytes: `scaled` weights of the features divided by their deviation, [1 + contexts, features], then
    those of the random features, [WIDTH]; AdaGrad's `squares` of the same; [features] the `variance` inside a slate.
    """

    slates: int
    scaled: bytes
    squares: bytes
    variance: bytes

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def load(value: bytes) -> Weights:
        return msgspec.msgpack.decode(value, type=Weights)

    def fits(self, features: int, contexts: int) -> bool:
        """Was it learned from so many features, in so many contexts?"""
        return len(self.variance) == 8 * features and len(self.scaled) == 8 * ((1 + contexts) * features + WIDTH)


@dataclass(frozen=True)
class Scorer:
    """float32: `linear` weights of the features as they are [1 + contexts, features], their `deviation`, and weights of the random ones."""

    linear: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    crossed: npt.NDArray[np.float32]

    def scores(self, features: npt.NDArray[np.floating], context: int) -> npt.NDArray[np.float32]:
        """float32[n] of features [n, features]."""
        values = features.astype(np.float32, copy=False)
        together = crossed(values / self.deviation, context, len(self.linear) - 1) @ self.crossed
        return np.asarray(values @ (self.linear[0] + self.linear[1 + context]) + together)


def merged(records: Collection[Weights]) -> Scorer | None:
    """Means of what partitions learned, each weighing as many slates as it has; None before the first slate."""
    slates = sum(record.slates for record in records)
    if not slates:
        return None
    shares = [(record.slates / slates, record) for record in records]
    variance = sum(share * np.frombuffer(record.variance) for share, record in shares)
    linear, together = np.zeros(1), np.zeros(WIDTH)
    for share, record in shares:
        scaled, own = np.frombuffer(record.scaled), deviation(np.frombuffer(record.variance))
        linear = linear + share * scaled[:-WIDTH].reshape(-1, len(own)) / own
        together = together + share * scaled[-WIDTH:]
    return Scorer(*(np.asarray(each, np.float32) for each in (linear, deviation(np.asarray(variance)), together)))


def deviation(variance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(variance + LEAST))
