"""The ranker's record on the state topic, readable without river, and what is made of all partitions' records: Triton scores with it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from learners.compiled import compiled
from learners.hidden import WIDTH, Layer, first

LANES = 8  # sums side by side, which a processor adds to at once
LEAST = 1e-4  # variance that a feature has at least: one that was always the same gets no wild weight


class Layers(NamedTuple):
    """float32: `linear` weights of the features [1 + contexts, features], first those that all contexts share; weights of the hidden units,
    `out` [WIDTH]; and the units: `hidden` [features, WIDTH], `shift` [contexts, WIDTH].
    """

    linear: Layer
    out: Layer
    hidden: Layer
    shift: Layer

    @staticmethod
    def of(flat: Layer, features: int) -> Layers:
        """Views of one array that holds them one after the other."""
        contexts = (len(flat) - features - WIDTH * (1 + features)) // (features + WIDTH)
        shapes, views, start = ((1 + contexts, features), (WIDTH,), (features, WIDTH), (contexts, WIDTH)), list[Layer](), 0
        for shape in shapes:
            size = int(np.prod(shape))
            views.append(flat[start : start + size].reshape(shape))
            start += size
        return Layers(*views)

    def scores(self, features: npt.NDArray[np.floating], context: int) -> npt.NDArray[np.float32]:
        """float32[n] of features [n, features]."""
        return np.asarray(scored(features.astype(np.float32, copy=False), *self, context))


@compiled
def scored(features: Any, linear: Any, out: Any, hidden: Any, shift: Any, context: int) -> Any:
    """float32[n] of float32[n, features], by `Layers`; a feature that is 0 costs nothing."""
    scores, units, sums = np.zeros(len(features), np.float32), np.empty(WIDTH, np.float32), np.empty(LANES, np.float32)
    both = linear[0] + linear[1 + context]
    for row in range(len(features)):
        for unit in range(WIDTH):
            units[unit] = shift[context, unit]
        for column in range(features.shape[1]):
            value = features[row, column]
            if value != 0:
                scores[row] += value * both[column]
                for unit in range(WIDTH):
                    units[unit] += value * hidden[column, unit]
        sums[:] = 0
        for start in range(0, WIDTH, LANES):
            for lane in range(LANES):
                unit = units[start + lane]
                sums[lane] += (unit if unit > 0 else np.float32(0)) * out[start + lane]
        for lane in range(LANES):
            scores[row] += sums[lane]
    return scores


class Weights(msgspec.Struct, array_like=True, frozen=True):
    """`slates` learned from; float32 bytes: the `layers` for features that are divided by their deviation, and AdaGrad's `squares` of the
    same; float64[features] the `variance` inside a slate.
    """

    slates: int
    layers: bytes
    squares: bytes
    variance: bytes

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def load(value: bytes) -> Weights:
        return msgspec.msgpack.decode(value, type=Weights)

    @staticmethod
    def new(features: int, contexts: int) -> Weights:
        """Before the first slate: all that it weighs is 0, its hidden units are those that everybody begins with."""
        flat = np.zeros(_size(features, contexts), np.float32)
        layers = Layers.of(flat, features)
        layers.hidden[:], layers.shift[:] = first(features, contexts)
        return Weights(0, flat.tobytes(), bytes(flat.nbytes), bytes(8 * features))

    def fits(self, features: int, contexts: int) -> bool:
        """Was it learned from so many features, in so many contexts?"""
        return len(self.variance) == 8 * features and len(self.layers) == 4 * _size(features, contexts)


def merged(records: Collection[Weights]) -> Layers | None:
    """Means of what partitions learned, for features as they are, each weighing as many slates as it has; None before the first slate."""
    slates = sum(record.slates for record in records)
    if not slates:
        return None
    shares, layers = [record.slates / slates for record in records], list[tuple[npt.NDArray[Any], ...]]()
    for record in records:
        own = deviation(np.frombuffer(record.variance))
        linear, out, hidden, shift = Layers.of(np.frombuffer(record.layers, np.float32), len(own))
        layers.append((linear / own, out, hidden / own[:, None], shift))
    means = (sum(share * part for share, part in zip(shares, parts, strict=True)) for parts in zip(*layers, strict=True))
    return Layers(*(np.asarray(mean, np.float32) for mean in means))


def deviation(variance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(variance + LEAST))


def _size(features: int, contexts: int) -> int:
    return (1 + contexts) * features + WIDTH + (features + contexts) * WIDTH
