"""Sequences against a dictionary of lists: what was put is what is found, whatever grew, moved and left in between."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learners.sequences import Sequences

users = st.tuples(st.integers(0, 1), st.integers(0, 6))
histories = st.lists(st.integers(0, 1 << 32), max_size=40)
changes = st.lists(st.tuples(users, st.none() | st.tuples(histories, st.integers(0, 5))), max_size=40)


@given(changes)
def test_what_was_put_is_found(changes: list[tuple[tuple[int, int], tuple[list[int], int] | None]]) -> None:
    made, wanted = Sequences(2), dict[tuple[int, int], tuple[list[int], int]]()
    for (partition, user), change in changes:
        if change is None:
            made.drop(partition, user)
            wanted.pop((partition, user), None)
            continue
        items = [item % (1 << 32) for item in change[0]]
        made.put(partition, user, len(items) + change[1], np.array(items, np.uint32))
        wanted[partition, user] = items, change[1]
    for partition in range(2):
        slots, at, chosen = made.tables()
        for user in range(8):
            start, _, size, n = at[:, slots[partition, user] if user < slots.shape[1] else 0].tolist()
            items, lost = wanted.get((partition, user), ([], 0))
            assert made.get(partition, user).tolist() == items
            assert (chosen[start : start + size].tolist(), n) == (items, len(items) + lost)


def test_room_that_became_free_is_used_again() -> None:
    made = Sequences()
    for n in range(200):
        made.put(0, n, 8, np.arange(8, dtype=np.uint32))
        made.drop(0, n)
        made.put(0, 1000, n + 1, np.arange(n % 100 + 1, dtype=np.uint32))
    assert len(made._numbers) == 1024 and made._at.shape[1] == 64
