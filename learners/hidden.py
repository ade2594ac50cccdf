"""The ranker's hidden layer: what it needs to learn that two facts mean more together than each does alone.

A unit is the positive part of a weighed sum of all features. It begins as a random one (Rahimi & Recht, NeurIPS 2008), the same in every
partition, and is learned from there, slowly: so the means of what partitions made of it are a layer, too (McMahan et al., AISTATS 2017).
"""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt

WIDTH = 64  # units
SCALE = 0.3  # of their values at first, and so of their rate beside that of the features

Layer = npt.NDArray[np.float32]


@cache
def first(features: int, contexts: int) -> tuple[Layer, Layer]:
    """float32 [features, WIDTH], for features that are divided by their deviation, and what is added in each context, [contexts, WIDTH]; by
    Python's own generator, which is the same in every environment.
    """
    rng, inputs = Random("hidden"), features + contexts
    drawn = np.array([[rng.gauss() for _ in range(WIDTH)] for _ in range(inputs + 1)]) * SCALE
    drawn[:inputs] /= np.sqrt(inputs)
    return drawn[:features].astype(np.float32), (drawn[features:inputs] + drawn[inputs]).astype(np.float32)
