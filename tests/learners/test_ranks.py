"""An answer's ranks, packed: what is packed comes back, and nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.ranks import ABSENT, packed, unpacked


@given(st.integers(0, 9), st.integers(8, 20), st.floats(0, 1), st.integers(0, 99))
def test_packed_ranks_come_back_and_only_as_so_many(rows: int, sources: int, absent: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = rng.integers(0, 256, (rows, sources)).astype(np.uint8)
    ranks[rng.random(ranks.shape) < absent] = ABSENT
    data = packed(ranks)
    assert unpacked(data, rows).tolist() == ranks.tolist()
    for other in {rows + 1, rows + 7, max(rows - 1, 0), 0} - {rows}:
        with pytest.raises(ValueError, match="rows"):
            unpacked(data, other)


def test_what_no_source_named_takes_a_bit() -> None:
    assert len(packed(np.full((160, 15), ABSENT, np.uint8))) == 1 + 160 * 15 // 8


@given(st.binary(max_size=40), st.integers(0, 9))
def test_any_bytes_are_ranks_of_so_many_or_refused(data: bytes, rows: int) -> None:
    try:
        found = unpacked(data, rows)
    except ValueError:
        return
    assert found.shape == (rows, data[0]) and data[0]
