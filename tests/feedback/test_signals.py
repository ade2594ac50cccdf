"""Signals: blocks that are full at ten, end with a version, and hold sums."""

import numpy as np
import pytest

from feedback.attribution import Block
from feedback.signals import FULL, add

HITS, NDCGS, RECALLS = np.array([True, False]), np.array([0.5, 0.0]), np.array([True, True])


def added(asks: list[int], block: Block | None = None) -> tuple[Block | None, list[Block]]:
    """Judged asks, given by their version, one a second."""
    closed: list[Block] = []
    for now, version in enumerate(asks):
        block, more = add(block, version, HITS, NDCGS, RECALLS, 1000 * now)
        closed += more
    return block, closed


@pytest.mark.parametrize("n", [1, FULL - 1])
def test_a_block_stays_open_and_sums_until_it_is_full(n: int) -> None:
    block, closed = added([3] * n)
    assert closed == []
    assert block == Block(3, n, [n, 0], [0.5 * n, 0.0], [n, n], 1000 * (n - 1))


def test_a_block_closes_at_ten_and_the_next_ask_opens_another() -> None:
    block, closed = added([3] * FULL)
    assert (block, closed) == (None, [Block(3, 10, [10, 0], [5.0, 0.0], [10, 10], 9000)])
    block, closed = added([3] * (2 * FULL + 1))
    assert [b.n for b in closed] == [FULL, FULL]
    assert block is not None
    assert block.n == 1


def test_another_version_closes_the_block_of_the_one_before() -> None:
    block, closed = added([3, 3, 4])
    assert closed == [Block(3, 2, [2, 0], [1.0, 0.0], [2, 2], 1000)]
    assert block == Block(4, 1, [1, 0], [0.5, 0.0], [1, 1], 2000)


def test_values_are_plain_so_that_the_state_can_be_packed() -> None:
    block, _ = added([3])
    assert block is not None
    assert {type(v) for v in (*block.hits, *block.ndcgs)} == {int, float}
