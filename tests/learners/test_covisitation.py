"""Co-visitation: weights by distance, both directions, what is kept when a list is cut or a weight is full."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.covisitation import DECAY, FULL, KEPT, MOST, UNIT, WINDOW, CoVisitation, best
from learners.items import Items

names = st.text("abcdef", min_size=1, max_size=1)


class Pairs:
    """Co-visitation that is told names."""

    def __init__(self) -> None:
        self.items = Items()
        self.of = CoVisitation(self.items)

    def learn(self, item: str, recent: list[str]) -> set[str]:
        numbers = [self.items.number[self.items.learn(name)] for name in recent]
        return {self.items.names[row] for row in self.of.learn_one(self.items.learn(item), numbers)}

    def near(self, item: str) -> dict[str, tuple[int, int]]:
        """Neighbour -> (weight as what came after, as what came before)."""
        record = self.dump(item)[8:]
        size = len(record) // 8
        marks, weights = np.frombuffer(record, "<u4", size), np.frombuffer(record, "<u2", offset=4 * size).reshape(-1, 2)
        return {self.items.names[self.items.row_of(m)]: tuple(w) for m, w in zip(marks.tolist(), weights.tolist(), strict=True)}

    def dump(self, item: str) -> bytes:
        return self.of.dump(self.items.learn(item))

    def rank(self, recent: list[str], k: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        return self.of.rank(recent, k)


def test_weights_fall_with_the_distance_and_are_kept_in_both_directions() -> None:
    pairs = Pairs()
    touched = pairs.learn("now", ["gone", "e", "d", "c", "b", "a"])
    assert touched == {"now", "a", "b", "c", "d", "e"}
    assert {o: pairs.near(o)["now"] for o in "abcde"} == {o: (UNIT // d, 0) for d, o in enumerate("abcde", 1)}
    assert pairs.near("now") == {o: (0, UNIT // d) for d, o in enumerate("abcde", 1)}


@given(names, st.lists(names, max_size=8))
def test_only_touched_items_change_and_an_item_is_never_its_own_neighbour(item: str, recent: list[str]) -> None:
    pairs = Pairs()
    pairs.learn("a", ["b", "c"])
    before = {i: pairs.dump(i) for i in "abcdef"}
    touched = pairs.learn(item, recent)
    assert touched == {i for i in "abcdef" if pairs.dump(i) != before[i]}
    assert all(i not in pairs.near(i) for i in "abcdef")
    assert touched <= {item, *recent[-WINDOW:]}


def test_an_item_seen_twice_in_the_window_counts_by_its_nearest_place() -> None:
    pairs = Pairs()
    pairs.learn("now", ["a", "b", "a"])
    assert pairs.near("a")["now"] == (UNIT, 0)


def test_a_full_list_is_cut_to_the_strongest_and_the_new_one_is_let_in() -> None:
    pairs = Pairs()
    for n in range(MOST):
        for _ in range(1 + (n < KEPT - 1)):
            pairs.learn("hub", [f"i{n:03}"])
    assert len(pairs.near("hub")) == MOST
    pairs.learn("hub", ["new"])
    kept = pairs.near("hub")
    assert len(kept) == KEPT + 1
    assert kept.keys() == {*(f"i{n:03}" for n in range(KEPT - 1)), f"i{MOST - 1:03}", "new"}  # of equals, the newest


def test_a_full_weight_halves_the_whole_list() -> None:
    pairs = Pairs()
    pairs.learn("tea", ["cup"])
    pairs.learn("pot", ["tea"])
    for _ in range(FULL // UNIT):
        pairs.learn("pot", ["tea"])
    assert pairs.near("tea") == {"cup": (0, UNIT // 2), "pot": (FULL // UNIT * UNIT // 2 + UNIT, 0)}


def test_an_evicted_neighbour_pairs_with_nobody_and_is_not_ranked() -> None:
    pairs = Pairs()
    pairs.learn("cup", ["pot", "tea"])
    gone = pairs.items.number[pairs.items.row["tea"]]
    pairs.items.remove("tea")
    assert pairs.of.learn_one(pairs.items.learn("new"), [gone]) == []
    assert [[i for i, _ in found] for found in pairs.rank(["cup"], 5)] == [[], ["pot"]]


def test_rank_of_what_came_after_is_the_share_of_an_items_weight() -> None:
    pairs = Pairs()
    for _ in range(3):
        pairs.learn("milk", ["tea"])
    pairs.learn("cup", ["tea"])
    after, both = pairs.rank(["tea"], 5)
    assert [i for i, _ in after] == ["milk", "cup"]
    assert dict(after) == pytest.approx({"milk": 3 / 5, "cup": 1 / 5})
    mass = 5 * UNIT
    assert dict(both) == pytest.approx({"milk": 3 * UNIT / sqrt(mass * 4 * UNIT), "cup": UNIT / sqrt(mass * 2 * UNIT)})


def test_what_came_before_counts_for_the_cosine_only() -> None:
    pairs = Pairs()
    pairs.learn("tea", ["kettle"])
    after, both = pairs.rank(["tea"], 5)
    assert after == []
    assert [i for i, _ in both] == ["kettle"]


def test_an_older_item_counts_less_and_beyond_the_last_three_not_for_what_comes_after() -> None:
    pairs = Pairs()
    for n in range(4):
        pairs.learn(f"after{n}", [f"i{n}"])
    after, both = pairs.rank([f"i{n}" for n in (3, 2, 1, 0)], 9)
    assert [i for i, _ in after] == ["after0", "after1", "after2"]
    assert dict(after) == pytest.approx({f"after{n}": DECAY**n / 2 for n in range(3)})
    assert [i for i, _ in both] == ["after0", "after1", "after2", "after3"]


def test_a_tombstone_forgets_an_items_list() -> None:
    pairs = Pairs()
    pairs.learn("b", ["a"])
    pairs.of.load(0, pairs.items.row["a"], None)
    assert pairs.rank(["a"], 3) == ([], [])
    assert pairs.dump("a") == bytes(8)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 3).map(float), max_size=20), st.integers(0, 25))
def test_best_sorts_by_score_then_name(scored: dict[str, float], k: int) -> None:
    rows, scores = np.arange(len(scored), dtype=np.int32), np.array(list(scored.values()))
    assert best(list(scored), rows, scores, k) == sorted(scored.items(), key=lambda p: (-p[1], p[0]))[:k]
