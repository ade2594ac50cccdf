"""Session neighbours: who is remembered, who votes, what gets a vote."""

from learners.neighbours import NEIGHBOURS, SEEN_BY, TAKEN, Neighbours
from learners.profiles import Profiles


def learned(choices: list[tuple[str, str]], partitions: int = 1) -> tuple[Profiles, Neighbours]:
    users, near = Profiles(), Neighbours(partitions)
    for user, item in choices:
        users.learn_one(user, item, 0.0)
        near.learn_one(user, item)
    return users, near


def test_an_item_remembers_its_latest_users_newest_first_and_each_once() -> None:
    _, near = learned([(f"u{n}", "i") for n in range(20)] + [("u15", "i")])
    assert near._seen_by[0]["i"] == ["u15", "u19", "u18", "u17", "u16", *(f"u{n}" for n in range(14, 7, -1))]
    assert len(near._seen_by[0]["i"]) == SEEN_BY


def test_users_of_newer_items_weigh_more() -> None:
    users, near = learned([("ann", "x"), ("ann", "of_ann"), ("bob", "y"), ("bob", "of_bob")])
    assert near.rank("me", ["x", "y"], users, 5) == [("of_bob", 1.0), ("of_ann", 0.5)]


def test_neither_the_user_nor_what_they_had_gets_a_vote() -> None:
    users, near = learned([("me", "x"), ("me", "mine"), ("ann", "x"), ("ann", "new")])
    assert near.rank("me", ["x"], users, 5) == [("new", 1.0)]
    assert near.rank("me", ["new", "x"], users, 5) == []


def test_only_the_newest_items_of_a_neighbour_get_a_vote() -> None:
    users, near = learned([("ann", "x")] + [("ann", f"i{n}") for n in range(30)])
    near.learn_one("ann", "x")
    assert {i for i, _ in near.rank("me", ["x"], users, 99)} == {f"i{n}" for n in range(30 - TAKEN, 30)}


def test_only_so_many_neighbours_vote_and_partitions_are_asked_together() -> None:
    users, near = Profiles(), Neighbours(3)
    one = Neighbours()
    for p in range(3):
        one = Neighbours()
        for n in range(SEEN_BY):
            users.learn_one(f"u{p}{n:02}", f"i{p}{n:02}", 0.0)
            one.learn_one(f"u{p}{n:02}", "x")
        near.load(p, "x", one.dump("x"))
    votes = near.rank("me", ["x"], users, 99)
    assert len(votes) == NEIGHBOURS
    assert {i[:2] for i, _ in votes} == {"i0", "i1", "i2"}


def test_an_erased_user_is_in_no_list() -> None:
    _, near = learned([("ann", "x"), ("bob", "x"), ("ann", "y"), ("bob", "z")])
    assert sorted(near.forget("ann")) == ["x", "y"]
    assert near._seen_by[0] == {"x": ["bob"], "y": [], "z": ["bob"]}
