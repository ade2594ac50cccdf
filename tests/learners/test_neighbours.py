"""Session neighbours: who votes, what gets a vote."""

from learners.neighbours import ASKED, NEIGHBOURS, TAKEN, rank
from learners.online import Online


def learned(choices: list[tuple[str, str]]) -> Online:
    online = Online()
    for user, item in choices:
        online.learn_one(user, item, 0.0)
    return online


def asked(online: Online, user: str, recent: list[str], k: int) -> list[tuple[str, float]]:
    return rank(user, recent, online, k)


def test_users_of_newer_items_are_nearer_and_all_who_vote_count_as_much() -> None:
    online = learned([("ann", "x"), ("ann", "of_ann"), ("bob", "y"), ("bob", "of_bob")])
    assert asked(online, "me", ["x", "y"], 5) == [("of_ann", 1.0), ("of_bob", 1.0)]
    choices = [(f"u{p}{n:02}", item) for p in "xy" for n in range(60) for item in (f"i{p}{n:02}", p)]
    for recent, far in (["x", "y"], "ix"), (["y", "x"], "iy"):
        voted = {item for item, _ in asked(learned(choices), "me", recent, 999)}
        assert len(voted) == NEIGHBOURS and sum(item.startswith(far) for item in voted) == NEIGHBOURS - 60


def test_neither_the_user_nor_what_they_had_gets_a_vote() -> None:
    online = learned([("me", "x"), ("me", "mine"), ("ann", "x"), ("ann", "new")])
    assert asked(online, "me", ["x"], 5) == [("new", 1.0)]
    assert asked(online, "me", ["new", "x"], 5) == []
    assert asked(online, "me", ["unknown"], 5) == []


def test_a_user_who_chose_an_item_twice_is_one_neighbour() -> None:
    online = learned([("ann", "x"), ("ann", "y"), ("ann", "x"), ("bob", "x"), ("bob", "z")])
    assert asked(online, "me", ["x"], 5) == [("y", 1.0), ("z", 1.0)]


def test_only_the_newest_items_of_a_neighbour_get_a_vote() -> None:
    online = learned([("ann", "x")] + [("ann", f"i{n}") for n in range(70)])
    assert {i for i, _ in asked(online, "me", ["x"], 99)} == {f"i{n}" for n in range(70 - TAKEN, 70)}


def test_only_so_many_neighbours_vote_and_partitions_are_asked_together() -> None:
    merged = Online(3, 3)
    for p in range(3):
        one = Online(1, 3)
        for n in range(80):
            for item in (f"i{p}{n:02}", "y" if n % 2 else "x"):
                one.learn_one(f"u{p}{n:02}", item, 0.0)
        for key, value in one.changes().items():
            merged.load(p, key, value)
    votes = asked(merged, "me", ["x", "y"], 999)
    assert len(votes) == NEIGHBOURS
    assert len(asked(merged, "me", ["x"], 999)) == 3 * -(-ASKED // 3)
    assert {i[:2] for i, _ in votes} == {"i0", "i1", "i2"}
