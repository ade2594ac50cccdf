"""Session neighbours: who is remembered, who votes, what gets a vote."""

import numpy as np

from learners.neighbours import NEIGHBOURS, SEEN_BY, TAKEN
from learners.online import Online


def learned(choices: list[tuple[str, str]]) -> Online:
    online = Online()
    for user, item in choices:
        online.learn_one(user, item, 0.0)
    return online


def rank(online: Online, user: str, recent: list[str], k: int) -> list[tuple[str, float]]:
    return online.neighbours.rank(user, recent, online.profiles, k)


def seen_by(online: Online, item: str) -> list[int]:
    return np.frombuffer(online.neighbours.dump(online.items.row[item]), "<u4").tolist()


def test_an_item_remembers_its_latest_users_newest_first_and_each_once() -> None:
    online = learned([(f"u{n}", "i") for n in range(20)] + [("u15", "i")])
    assert seen_by(online, "i") == [15, 19, 18, 17, 16, *range(14, 7, -1)]
    assert len(seen_by(online, "i")) == SEEN_BY


def test_users_of_newer_items_weigh_more() -> None:
    online = learned([("ann", "x"), ("ann", "of_ann"), ("bob", "y"), ("bob", "of_bob")])
    assert rank(online, "me", ["x", "y"], 5) == [("of_bob", 1.0), ("of_ann", 0.5)]


def test_neither_the_user_nor_what_they_had_gets_a_vote() -> None:
    online = learned([("me", "x"), ("me", "mine"), ("ann", "x"), ("ann", "new")])
    assert rank(online, "me", ["x"], 5) == [("new", 1.0)]
    assert rank(online, "me", ["new", "x"], 5) == []


def test_only_the_newest_items_of_a_neighbour_get_a_vote() -> None:
    online = learned([("ann", "x")] + [("ann", f"i{n}") for n in range(30)])
    assert {i for i, _ in rank(online, "me", ["x"], 99)} == {f"i{n}" for n in range(30 - TAKEN, 30)}


def test_only_so_many_neighbours_vote_and_partitions_are_asked_together() -> None:
    merged = Online(3, 3)
    for p in range(3):
        one = Online(1, 3)
        for n in range(SEEN_BY):
            for item in (f"i{p}{n:02}", "x"):
                one.learn_one(f"u{p}{n:02}", item, 0.0)
        for key, value in one.changes().items():
            merged.load(p, key, value)
    votes = rank(merged, "me", ["x"], 99)
    assert len(votes) == NEIGHBOURS
    assert {i[:2] for i, _ in votes} == {"i0", "i1", "i2"}


def test_an_erased_user_is_in_no_list() -> None:
    online = learned([("ann", "x"), ("bob", "x"), ("ann", "y"), ("bob", "z")])
    assert [online.items.names[row] for row in online.neighbours.forget(0)] == ["x", "y"]
    assert [seen_by(online, item) for item in "xyz"] == [[1], [], [1]]
