"""The ranker's record, read without river."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learners.crossed import WIDTH, crossed
from learners.weights import LEAST, Weights, merged

five = hnp.arrays(np.float64, 5)


@given(st.integers(0, 1 << 60), five, five, five)
def test_a_record_is_read_back_to_the_last_bit(slates: int, scaled: np.ndarray, squares: np.ndarray, variance: np.ndarray) -> None:
    record = Weights(slates, scaled.tobytes(), squares.tobytes(), variance.tobytes())
    assert Weights.load(record.dump()) == record


def test_scores_are_those_of_the_features_as_they_are() -> None:
    scaled = np.array([2.0, 2.0, 0.0, 0.0, 0.0, 3.0, *np.zeros(WIDTH)])
    record = Weights(3, scaled.tobytes(), b"", np.array([4.0, 0.0, 9.0]).tobytes())
    scorer = merged([record])
    assert scorer is not None and scorer.linear.shape == (2, 3)
    assert scorer.linear[0] == pytest.approx([2 / (4 + LEAST) ** 0.5, 2 / LEAST**0.5, 0.0])
    assert scorer.scores(np.array([[1.0, 0.0, 3.0]]), 0) == pytest.approx([1.0 + 3.0], abs=1e-3)
    scaled[-WIDTH:] = 1.0
    scorer = merged([Weights(3, scaled.tobytes(), b"", np.array([4.0, 0.0, 9.0]).tobytes())])
    assert scorer is not None
    more = crossed(np.array([[1.0, 0.0, 3.0]]) / np.sqrt(np.array([4.0, 0.0, 9.0]) + LEAST), 0, 1).sum()
    assert scorer.scores(np.array([[1.0, 0.0, 3.0]]), 0) == pytest.approx([4.0 + more], abs=1e-3)
