"""Items as numbers: rows, and numbers that are never given twice."""

import numpy as np

from learners.items import Items


def test_a_new_item_gets_the_next_number_and_a_number_is_never_given_twice() -> None:
    items = Items()
    assert [items.number[items.learn(name)] for name in ("a", "b", "a")] == [0, 1, 0]
    items.remove("a")
    assert items.rows(0, np.array([0, 1], np.uint32)).tolist() == [-1, 1] and len(items) == 1
    assert items.number[items.learn("a")] == 2
    assert [items.names[row] for row in items.rows(0, np.array([1, 2], np.uint32))] == ["b", "a"]
    assert len(items.names) == 2  # the row is used again, the number is not


def test_each_partition_has_numbers_of_its_own_for_the_same_rows() -> None:
    items = Items(2)
    assert items.place(0, 300, "a") == items.place(1, 5, "a") == 0
    assert items.place(1, 300, "b") == 1
    numbers = np.array([5, 300, 7, 4_000_000_000], np.uint32)
    assert items.rows(0, numbers).tolist() == [-1, 0, -1, -1]
    assert items.rows(1, numbers).tolist() == [0, 1, -1, -1]
    items.remove("a")
    assert items.rows(0, numbers).tolist() == [-1] * 4 and items.rows(1, numbers).tolist() == [-1, 1, -1, -1]
