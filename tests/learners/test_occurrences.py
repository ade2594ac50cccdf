"""Occurrences: what is remembered of an item, and in which order scores rank."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learners.occurrences import ENTRY, KEPT, LEAST, best, spare
from learners.online import Online
from tests.learners.conftest import learned


def entries(online: Online, item: str) -> list[tuple[int, int]]:
    return list(ENTRY.iter_unpack(online.occurrences.dump(online.items.row[item])))


def test_an_item_remembers_who_chose_it_last_and_where_in_their_sequence() -> None:
    online = learned(("ann", "a b x"), ("bob", "x"), ("ann", "x"))
    assert entries(online, "x") == [(0, 3), (1, 0), (0, 2)]
    for n in range(KEPT + 5):
        online.learn_one(f"u{n}", "x", 0.0)
    assert len(entries(online, "x")) == KEPT
    assert (Online(1, 4).occurrences.bytes, Online(1, 64).occurrences.bytes) == (8 * KEPT // 4, 8 * LEAST)


def test_the_fewer_items_the_more_choices_of_each_are_looked_at() -> None:
    assert [spare(n) for n in (0, 1, 4, 5, 100, 5_000)] == [512, 512, 512, 409, 20, 0]


def test_an_erased_user_is_in_no_entry() -> None:
    online = learned(("ann", "x y"), ("bob", "x z"))
    assert [online.items.names[row] for row in online.occurrences.forget(0)] == ["x", "y"]
    assert [entries(online, item) for item in "xyz"] == [[(1, 0)], [], [(1, 1)]]


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 3).map(float), max_size=20), st.integers(0, 25))
def test_best_sorts_by_score_then_name(scored: dict[str, float], k: int) -> None:
    rows, scores = np.arange(len(scored), dtype=np.int32), np.array(list(scored.values()))
    assert best(list(scored), rows, scores, k) == sorted(scored.items(), key=lambda p: (-p[1], p[0]))[:k]
