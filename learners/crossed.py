"""Random features: what a linear ranker needs to learn that two facts mean more together than each does alone.

Each is the positive part of a random sum of all features (Rahimi & Recht, NeurIPS 2008): the directions are the same for everybody and
never learned, only their weights are, so that what partitions learned still adds up, as the weights of learned ones would not.
"""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt

WIDTH = 128
SCALE = 0.3  # of their values, and so of their rate beside that of the features


def crossed(values: npt.NDArray[np.floating], context: int, contexts: int) -> npt.NDArray[np.float32]:
    """float32[n, WIDTH] of features [n, features] that are divided by their deviation, in one of so many contexts."""
    features, situations, shifts = _directions(values.shape[1], contexts)
    sums = values.astype(np.float32, copy=False) @ features
    sums += situations[context] + shifts
    return np.asarray(np.maximum(sums, 0.0, out=sums))


@cache
def _directions(features: int, contexts: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """float32 [features, WIDTH], [contexts, WIDTH] and [WIDTH]; Python's own generator, which is the same in every environment."""
    rng, inputs = Random("crossed"), features + contexts
    drawn = np.array([[rng.gauss() for _ in range(WIDTH)] for _ in range(inputs + 1)]) * SCALE
    drawn[:inputs] /= np.sqrt(inputs)
    made = drawn.astype(np.float32)
    return made[:features], made[features:inputs], made[inputs]
