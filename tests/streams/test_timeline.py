"""The timeline's records: an impression's ranks, packed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.timeline import pack_ranks, unpack_ranks


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 99))
def test_packed_ranks_come_back(rows: int, columns: int, seed: int) -> None:
    ranks = np.random.default_rng(seed).integers(0, 256, (rows, columns)).astype(np.uint8)
    text = pack_ranks(ranks)
    assert unpack_ranks(text, rows, columns).tolist() == ranks.tolist()
    for other in (rows + 1, abs(rows - 1)):
        with pytest.raises(ValueError, match="rows"):
            unpack_ranks(text, other, columns)


@pytest.mark.parametrize("text", ["", "AAAA", "no base64", pack_ranks(np.zeros((1 << 12, 1 << 12), np.uint8))])
def test_ranks_that_are_none_of_that_size_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rows|zlib|base64|padding"):
        unpack_ranks(text, 2, 3)
