"""The ranker's record, read without river."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from learners.weights import Weights


@given(st.integers(0, 1 << 60), hnp.arrays(np.float64, 5), hnp.arrays(np.float64, 5))
def test_a_record_is_read_back_to_the_last_bit(slates: int, weights: np.ndarray, squares: np.ndarray) -> None:
    record = Weights.load(Weights(slates, weights.tobytes(), squares.tobytes()).dump())
    assert record == Weights(slates, weights.tobytes(), squares.tobytes())
    assert record.array().tobytes() == weights.tobytes()
