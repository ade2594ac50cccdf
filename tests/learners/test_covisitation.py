"""Co-visitation: weights by distance, both directions, what is kept when a list is cut."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.covisitation import BEHIND, DECAY, KEPT, SLACK, UNIT, WINDOW, CoVisitation, best

names = st.text("abcdef", min_size=1, max_size=1)


def test_weights_fall_with_the_distance_and_are_kept_in_both_directions() -> None:
    pairs = CoVisitation()
    touched = pairs.learn_one("now", ["gone", "e", "d", "c", "b", "a"])
    assert touched == {"now", "a", "b", "c", "d", "e"}
    assert {o: pairs._near[0][o]["now"] for o in "abcde"} == {o: UNIT // d for d, o in enumerate("abcde", 1)}
    assert pairs._near[0]["now"] == {o: UNIT // d << BEHIND for d, o in enumerate("abcde", 1)}


@given(names, st.lists(names, max_size=8))
def test_only_touched_items_change_and_an_item_is_never_its_own_neighbour(item: str, recent: list[str]) -> None:
    pairs = CoVisitation()
    pairs.learn_one("a", ["b", "c"])
    before = {i: pairs.dump(i) for i in "abcdef"}
    touched = pairs.learn_one(item, recent)
    assert touched == {i for i in "abcdef" if pairs.dump(i) != before[i]}
    assert all(i not in pairs._near[0].get(i, {}) for i in "abcdef")
    assert touched <= {item, *recent[-WINDOW:]}


def test_an_item_seen_twice_in_the_window_counts_by_its_nearest_place() -> None:
    pairs = CoVisitation()
    pairs.learn_one("now", ["a", "b", "a"])
    assert pairs._near[0]["a"]["now"] == UNIT


def test_a_full_list_keeps_the_strongest() -> None:
    pairs = CoVisitation()
    for n in range(KEPT + SLACK):
        for _ in range(1 + (n < KEPT - 1)):
            pairs.learn_one("hub", [f"i{n:03}"])
    pairs.learn_one("hub", ["new"])
    kept = pairs._near[0]["hub"]
    assert len(kept) == KEPT
    assert {f"i{n:03}" for n in range(KEPT - 1)} <= kept.keys()


def test_rank_of_what_came_after_is_the_share_of_an_items_weight() -> None:
    pairs = CoVisitation()
    for _ in range(3):
        pairs.learn_one("milk", ["tea"])
    pairs.learn_one("cup", ["tea"])
    after, both = pairs.rank(["tea"], 5)
    assert [i for i, _ in after] == ["milk", "cup"]
    assert dict(after) == pytest.approx({"milk": 3 / 5, "cup": 1 / 5})
    mass = 5 * UNIT
    assert dict(both) == pytest.approx({"milk": 3 * UNIT / sqrt(mass * 4 * UNIT), "cup": UNIT / sqrt(mass * 2 * UNIT)})


def test_what_came_before_counts_for_the_cosine_only() -> None:
    pairs = CoVisitation()
    pairs.learn_one("tea", ["kettle"])
    after, both = pairs.rank(["tea"], 5)
    assert after == []
    assert [i for i, _ in both] == ["kettle"]


def test_an_older_item_counts_less_and_beyond_the_last_three_not_for_what_comes_after() -> None:
    pairs = CoVisitation()
    for n in range(4):
        pairs.learn_one(f"after{n}", [f"i{n}"])
    after, both = pairs.rank([f"i{n}" for n in (3, 2, 1, 0)], 9)
    assert [i for i, _ in after] == ["after0", "after1", "after2"]
    assert dict(after) == pytest.approx({f"after{n}": DECAY**n / 2 for n in range(3)})
    assert [i for i, _ in both] == ["after0", "after1", "after2", "after3"]


def test_a_tombstone_forgets_an_items_list() -> None:
    pairs = CoVisitation()
    pairs.learn_one("b", ["a"])
    pairs.load(0, "a", None)
    assert pairs.rank(["a"], 3) == ([], [])
    assert pairs.dump("a") == CoVisitation().dump("a")


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 3).map(float), max_size=20), st.integers(0, 25))
def test_best_sorts_by_score_then_name(scored: dict[str, float], k: int) -> None:
    assert best(scored.items(), k) == sorted(scored.items(), key=lambda p: (-p[1], p[0]))[:k]
