"""The ranker's record, read without river."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learners.hidden import WIDTH, first
from learners.weights import LEAST, Layers, Weights, merged

some = hnp.arrays(np.float32, 5)


@given(st.integers(0, 1 << 60), some, some, hnp.arrays(np.float64, 5))
def test_a_record_is_read_back_to_the_last_bit(slates: int, layers: np.ndarray, squares: np.ndarray, variance: np.ndarray) -> None:
    record = Weights(slates, layers.tobytes(), squares.tobytes(), variance.tobytes())
    assert Weights.load(record.dump()) == record


def test_a_record_fits_what_it_was_learned_from_only() -> None:
    record = Weights.new(3, 2)
    assert record.fits(3, 2) and not record.fits(3, 3) and not record.fits(4, 2)
    linear, out, hidden, shift = Layers.of(np.frombuffer(record.layers, np.float32), 3)
    assert linear.shape == (3, 3) and not linear.any() and out.shape == (WIDTH,) and not out.any()
    assert np.array_equal(hidden, first(3, 2)[0]) and np.array_equal(shift, first(3, 2)[1])


def made(slates: int, linear: list[list[float]], out: float, hidden: float, variance: list[float]) -> Weights:
    """A record of which all units are the same."""
    features, contexts = len(variance), len(linear) - 1
    flat = np.frombuffer(Weights.new(features, contexts).layers, np.float32).copy()
    layers = Layers.of(flat, features)
    layers.linear[:], layers.out[:], layers.hidden[:], layers.shift[:] = linear, out / WIDTH, hidden, 0.5
    return Weights(slates, flat.tobytes(), bytes(flat.nbytes), np.array(variance).tobytes())


def test_scores_are_those_of_the_features_as_they_are() -> None:
    record = made(3, [[2.0, 2.0, 0.0], [0.0, 0.0, 3.0]], 7.0, 0.1, [4.0, 0.0, 9.0])
    scorer = merged([record])
    assert scorer is not None and scorer.linear.shape == (2, 3)
    assert scorer.linear[0] == pytest.approx([2 / (4 + LEAST) ** 0.5, 2 / LEAST**0.5, 0.0])
    unit = 0.1 * (1 / 2 + 3 / 3) + 0.5
    assert scorer.scores(np.array([[1.0, 0.0, 3.0], [-20.0, 0.0, 0.0]]), 0) == pytest.approx([1 + 3 + 7 * unit, -20.0], abs=1e-3)


def test_partitions_weigh_as_many_slates_as_they_have() -> None:
    one, other = made(1, [[4.0], [0.0]], 8.0, 0.0, [1.0]), made(3, [[0.0], [8.0]], 0.0, 4.0, [4.0])
    scorer = merged([one, other])
    assert scorer is not None
    linear, out, hidden, _ = scorer
    assert (
        linear[:, 0] == pytest.approx([1.0, 3.0], rel=1e-3) and out.sum() == pytest.approx(2.0) and hidden == pytest.approx(1.5, rel=1e-3)
    )
