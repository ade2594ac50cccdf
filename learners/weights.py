"""The ranker's record on the state topic, readable without river: Triton scores with it."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt


class Weights(msgspec.Struct, array_like=True, frozen=True):
    """`slates` learned from; `weights` and AdaGrad's `squares` as float64 bytes, one value a feature."""

    slates: int
    weights: bytes
    squares: bytes

    def array(self) -> npt.NDArray[np.float64]:
        return np.frombuffer(self.weights)

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def load(value: bytes) -> Weights:
        return msgspec.msgpack.decode(value, type=Weights)
