"""Occurrences: what was chosen near an item, in which order it ranks, what is kept."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.occurrences import DECAY, ENTRY, KEPT, LEAST, MATCHED, REACH, best
from learners.online import Online


def learned(*choices: tuple[str, str]) -> Online:
    online = Online()
    for user, items in choices:
        for item in items.split():
            online.learn_one(user, item, 0.0)
    return online


def rank(online: Online, recent: str, k: int = 9, user: str = "me") -> tuple[dict[str, float], dict[str, float]]:
    after, both = online.occurrences.rank(user, recent.split(), online.profiles, online.popularity, k)
    assert [s for _, s in after] == sorted((s for _, s in after), reverse=True)
    assert [s for _, s in both] == sorted((s for _, s in both), reverse=True)
    return dict(after), dict(both)


def entries(online: Online, item: str) -> list[tuple[int, int]]:
    return list(ENTRY.iter_unpack(online.occurrences.dump(online.items.row[item])))


def test_an_item_remembers_who_chose_it_last_and_where_in_their_sequence() -> None:
    online = learned(("ann", "a b x"), ("bob", "x"), ("ann", "x"))
    assert entries(online, "x") == [(0, 3), (1, 0), (0, 2)]
    for n in range(KEPT + 5):
        online.learn_one(f"u{n}", "x", 0.0)
    assert len(entries(online, "x")) == KEPT
    assert (Online(1, 4).occurrences.bytes, Online(1, 64).occurrences.bytes) == (8 * KEPT // 4, 8 * LEAST)


def test_what_came_right_after_ranks_by_its_share_and_falls_with_the_distance() -> None:
    online = learned(("ann", "tea milk cup pot far"), ("bob", "tea cup"), ("cat", "jam tea"))
    after, _ = rank(online, "tea")
    assert after == pytest.approx({"cup": (1 / 2 + 1) / 3, "milk": 1 / 3, "pot": 1 / 9})


def test_what_was_chosen_around_ranks_by_cosine_in_both_directions() -> None:
    online = learned(("ann", "jam tea cup"), ("bob", "cup tea"))
    _, both = rank(online, "tea")
    assert both == pytest.approx({"cup": 2 / sqrt(2) / sqrt(3), "jam": 1 / sqrt(2) / sqrt(2)})


def test_beyond_its_reach_nothing_is_near() -> None:
    online = learned(("ann", " ".join(["tea", *(f"i{n}" for n in range(REACH + 5))])))
    after, both = rank(online, "tea", 99)
    assert after.keys() == {"i0", "i1", "i2"} and both.keys() == {f"i{n}" for n in range(REACH)}


def test_an_older_item_of_the_history_counts_less_and_beyond_the_last_ten_not_at_all() -> None:
    online = learned(*((f"u{n}", f"i{n} after{n}") for n in range(12)))
    after, both = rank(online, " ".join(f"i{n}" for n in reversed(range(12))))
    assert after == pytest.approx({f"after{n}": DECAY**n for n in range(3)})
    assert {name: score * sqrt(2) for name, score in both.items()} == pytest.approx({f"after{n}": DECAY**n for n in range(MATCHED - 1)})
    assert len(rank(online, " ".join(f"i{n}" for n in reversed(range(12))), 99)[1]) == MATCHED


def test_what_the_user_chose_around_says_nothing_new() -> None:
    online = learned(("me", "tea cup"), ("ann", "tea pot"))
    assert rank(online, "tea")[1].keys() == {"pot"}
    assert rank(online, "tea", user="nobody")[1].keys() == {"cup", "pot"}
    assert rank(online, "tea")[0].keys() == {"cup", "pot"}


def test_what_is_no_longer_remembered_is_not_near() -> None:
    online = learned(("ann", "tea cup"), ("ann", " ".join(f"i{n}" for n in range(600))))
    assert rank(online, "tea") == ({}, {})
    online = learned(("ann", "tea cup pot"), ("bob", "tea pot"))
    online.items.remove("cup")
    assert rank(online, "tea")[1].keys() == {"pot"}
    online.profiles.load(0, "ann", None)
    assert rank(online, "tea")[0] == {"pot": 0.5}


def test_an_erased_user_is_in_no_entry() -> None:
    online = learned(("ann", "x y"), ("bob", "x z"))
    assert [online.items.names[row] for row in online.occurrences.forget(0)] == ["x", "y"]
    assert [entries(online, item) for item in "xyz"] == [[(1, 0)], [], [(1, 1)]]


def test_who_has_no_history_or_an_unknown_one_gets_nothing() -> None:
    online = learned(("ann", "tea cup"))
    assert rank(online, "") == rank(online, "unknown") == ({}, {})


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 3).map(float), max_size=20), st.integers(0, 25))
def test_best_sorts_by_score_then_name(scored: dict[str, float], k: int) -> None:
    rows, scores = np.arange(len(scored), dtype=np.int32), np.array(list(scored.values()))
    assert best(list(scored), rows, scores, k) == sorted(scored.items(), key=lambda p: (-p[1], p[0]))[:k]
