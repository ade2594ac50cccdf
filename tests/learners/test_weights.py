"""The ranker's record, read without river."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learners.weights import LEAST, Weights

five = hnp.arrays(np.float64, 5)


@given(st.integers(0, 1 << 60), five, five, five)
def test_a_record_is_read_back_to_the_last_bit(slates: int, scaled: np.ndarray, squares: np.ndarray, variance: np.ndarray) -> None:
    record = Weights(slates, scaled.tobytes(), squares.tobytes(), variance.tobytes())
    assert Weights.load(record.dump()) == record


def test_weights_are_those_of_the_features_as_they_are() -> None:
    record = Weights(3, np.array([2.0, 2.0, 0.0, 0.0, 0.0, 3.0]).tobytes(), b"", np.array([4.0, 0.0, 9.0]).tobytes())
    assert record.array().shape == (2, 3)
    assert record.array()[0] == pytest.approx([2 / (4 + LEAST) ** 0.5, 2 / LEAST**0.5, 0.0])
    assert record.array()[1] == pytest.approx([0, 0, 3 / (9 + LEAST) ** 0.5])
