"""The ranker's record on the state topic, readable without river: Triton scores with it."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

LEAST = 1e-4  # variance that a feature has at least: one that was always the same gets no wild weight


class Weights(msgspec.Struct, array_like=True, frozen=True):
    """`slates` learned from; float64 bytes: [1 + contexts, features] `scaled` weights of the features divided by their deviation,
    and AdaGrad's `squares`; [features] the `variance` inside a slate.
    """

    slates: int
    scaled: bytes
    squares: bytes
    variance: bytes

    def array(self) -> npt.NDArray[np.float64]:
        """float64[1 + contexts, features]: weights of the features as they are."""
        deviations = deviation(np.frombuffer(self.variance))
        return np.asarray(np.frombuffer(self.scaled).reshape(-1, len(deviations)) / deviations)

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def load(value: bytes) -> Weights:
        return msgspec.msgpack.decode(value, type=Weights)


def deviation(variance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(variance + LEAST))
