"""Choices in a record: numbers and gaps in four bytes, and where an item stands among them."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learners.choices import BITS, LONGEST, MARK, NUMBER, SESSION, found, gap, gaps, packed

numbers = st.integers(0, 1 << 17) | st.integers(0, NUMBER)


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(-5, 0), (0, 0), (0.9, 0), (1, 1), (2, 2), (3.9, 2), (2_047, 11), (2_048, SESSION), (1e9, 30), (1e12, LONGEST)]
)
def test_a_gap_is_one_more_for_each_doubling(seconds: float, wanted: int) -> None:
    assert gap(seconds) == wanted


@given(st.lists(st.floats(-1e9, 1e12)))
def test_many_gaps_are_each_as_alone(seconds: list[float]) -> None:
    assert gaps(np.array(seconds)).tolist() == [gap(s) for s in seconds]


@given(numbers, st.integers(0, LONGEST))
def test_a_choice_holds_its_number_and_its_gap(number: int, pause: int) -> None:
    mark = packed(number, pause)
    value = int.from_bytes(mark, "little")
    assert (len(mark), value & NUMBER, value >> BITS) == (MARK, number, pause)


def test_more_items_than_a_choice_can_name_are_said_to_be_too_many() -> None:
    with pytest.raises(OverflowError, match="134,217,728"):
        packed(NUMBER + 1, 0)


@example([(1 << 24, 3), (0, 0)], 0, 0)
@given(st.lists(st.tuples(numbers, st.integers(0, LONGEST)), max_size=20), numbers, st.integers(0, 9))
def test_an_item_is_found_exactly_where_it_stands_whatever_its_gap_and_never_across_two(
    there: list[tuple[int, int]], number: int, head: int
) -> None:
    record = bytes(head) + b"".join(packed(*choice) for choice in there) + packed(number, 1)  # what follows the end does not count
    end = head + MARK * len(there)
    for wanted in {number, *(number for number, _ in there)}:
        places = [head + MARK * n for n, (other, _) in enumerate(there) if other == wanted]
        assert found(record, wanted, head, end) == (places[0] if places else -1)
