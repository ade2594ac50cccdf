"""Profiles: the sequence, late events, repeats, what is remembered as had, the first choice after those that were seen."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learners.choices import NUMBER
from learners.items import Items
from learners.profiles import HEAD, KEPT, LATE, RECENT, SESSION_GAP, Profiles, remembered

NOW = 1.7e9


class Named(NamedTuple):
    """A profile in names."""

    recent: list[str]
    n: int
    had: set[str]
    last: float


class Users:
    """Profiles that are told names."""

    def __init__(self) -> None:
        self.items = Items()
        self.of = Profiles(self.items)
        self.clock = 0

    def learn(self, user: str, item: str, at: float) -> tuple[bool, bool]:
        self.clock += 1
        _, _, entered, repeat = self.of.learn_one(user, self.items.number[self.items.learn(item)], at, self.clock)
        return entered, repeat

    def get(self, user: str) -> Named:
        profile, names = self.of.get(user), self.items.names
        assert profile is not None
        had = {names[row] for row in profile.had if row >= 0}
        return Named(self.of.recent(user), profile.head.n, had, profile.head.last)


def sequence(profiles: Profiles, partition: int, user: int) -> list[int]:
    """Rows of what is looked up by the user's number."""
    slots, at, items = profiles.tables()
    start, _, size, _ = at[:, slots[partition, user]].tolist()
    return profiles.items.rows(partition, items[start : start + size] & np.uint32(NUMBER)).tolist()


def learned(n: int) -> Users:
    users = Users()
    for i in range(n):
        users.learn("u", f"i{i}", NOW + i)
    return users


def test_an_event_late_by_more_than_a_session_counts_as_had_and_leaves_the_sequence() -> None:
    users = Users()
    users.learn("u", "a", NOW)
    assert users.learn("u", "late", NOW - SESSION_GAP - 1) == (False, False)
    assert users.learn("u", "late", NOW - SESSION_GAP - 1) == (False, True)
    assert users.get("u") == Named(["a"], 1, {"a", "late"}, NOW)


def test_an_event_late_within_a_session_enters_the_sequence_and_time_does_not_run_back() -> None:
    users = Users()
    users.learn("u", "a", NOW)
    assert users.learn("u", "b", NOW - SESSION_GAP) == (True, False)
    assert (users.get("u").recent, users.get("u").last) == (["a", "b"], NOW)


def test_a_repeat_enters_the_sequence_again_and_is_had_once() -> None:
    users = Users()
    assert [users.learn("u", i, NOW) for i in "aba"] == [(True, False), (True, False), (True, True)]
    assert users.get("u").recent == ["a", "b", "a"]
    assert users.get("u").had == {"a", "b"}


def session(users: Users) -> int:
    """How long that of the user u is, and are loops told the same of what was chosen as others?"""
    profile = users.of.get("u")
    assert profile is not None
    chosen, length = remembered(*profile.head.place, *users.of.tables(), users.items.table)
    assert np.array_equal(chosen, profile.chosen) and chosen.dtype == np.int32
    assert np.array_equal([*chosen, *users.of.late("u")], profile.had)
    assert profile.head == users.of.head("u")
    return int(length)


def test_a_session_is_as_long_as_its_pauses_are_short() -> None:
    users = Users()
    for item, at in [("a", 0), ("b", 5), ("c", 5_000), ("d", 5_040), ("e", 5_010), ("f", 5_041)]:  # one is late, within the session
        users.learn("u", item, NOW + at)
    assert session(users) == 4
    assert users.learn("u", "c", NOW + 9_000) == (True, True)  # found whatever its gap
    assert session(users) == 1 and session(learned(1)) == 1


def test_late_events_are_remembered_as_had_only_so_many() -> None:
    users = learned(1)
    for n in range(LATE + 1):
        users.learn("u", f"late{n}", NOW - 2 * SESSION_GAP)
    assert users.get("u").had == {"i0", *(f"late{n}" for n in range(1, LATE + 1))}
    assert session(users) == 1
    users.learn("u", "now", NOW)
    assert users.get("u").recent == ["i0", "now"] and "late9" in users.get("u").had
    record = users.of.dump("u")
    assert record is not None and len(record) == HEAD.size + 4 * (2 + LATE)


def test_an_item_older_than_all_that_is_kept_may_come_back() -> None:
    users = learned(KEPT + 1)
    assert users.get("u").had == {f"i{i}" for i in range(1, KEPT + 1)}
    assert users.get("u").recent == [f"i{i}" for i in range(KEPT + 1 - RECENT, KEPT + 1)]
    assert users.learn("u", "i1", NOW + 1e4) == (True, True)
    assert users.learn("u", "i0", NOW + 1e4) == (True, False)


@given(st.integers(0, 120), st.integers(-3, 130))
def test_after_names_the_first_choice_after_the_seen_ones_while_it_is_remembered(n: int, seen: int) -> None:
    wanted = f"i{seen}" if 0 <= seen < n else None
    assert learned(n).of.after("u", seen) == wanted


def test_an_evicted_item_is_in_no_profile_any_more_and_those_around_it_are() -> None:
    users = learned(4)
    users.items.remove("i1")
    assert (users.get("u").recent, users.get("u").had, users.get("u").n) == (["i0", "i2", "i3"], {"i0", "i2", "i3"}, 4)
    assert (users.of.after("u", 1), users.of.after("u", 2)) == (None, "i2")


def test_the_oldest_are_those_whose_last_event_is_longest_ago() -> None:
    users = Users()
    for user in "abcba":
        users.learn(user, "x", NOW)
    assert users.of.oldest(1) == ["c"] and set(users.of.oldest(2)) == {"c", "b"}


def test_a_tombstone_forgets_the_user() -> None:
    users = learned(3)
    users.of.load(0, "u", None)
    of = users.of
    assert (of.get("u"), of.dump("u"), of.recent("u"), of.after("u", 0), of.number("u"), of.seen("u"), len(of)) == (
        None, None, [], None, None, 0, 0,
    )  # fmt: skip
    assert sequence(of, 0, 0) == []
    of.load(0, "u", None)


def test_a_user_is_found_by_number_in_the_partition_that_has_them() -> None:
    one, items = learned(3), Items(2)
    both = Profiles(items, 2)
    record = one.of.dump("u")
    assert record is not None
    for n in range(3):
        items.place(1, n, f"i{n}")
    both.load(1, "u", record)
    assert both.number("u") == (1, 0)
    assert (sequence(both, 0, 0), sequence(both, 1, 7)) == ([], [])
    assert [items.names[row] for row in sequence(both, 1, 0)] == ["i0", "i1", "i2"]
    past = both.get("u")
    assert past is not None and past.head[:2] == ((1, 0), 3)
    assert [items.names[row] for row in past.chosen] == [items.names[row] for row in past.had] == ["i0", "i1", "i2"]
    assert both.get("nobody") is None
    assert both.recent("u") == ["i0", "i1", "i2"]


def test_a_user_who_comes_back_under_another_number_is_found_by_the_new_one_only() -> None:
    one, again = learned(2), learned(3)
    record = again.of.dump("u")
    assert record is not None
    one.of.load(0, "u", (9).to_bytes(4, "little") + record[4:])
    assert (sequence(one.of, 0, 0), sequence(one.of, 0, 9)) == ([], [0, 1, -1])


def test_two_fresh_profiles_share_nothing() -> None:
    users = Users()
    users.learn("a", "x", NOW)
    users.learn("b", "y", NOW)
    assert (users.get("a").recent, users.get("b").recent) == (["x"], ["y"])
    assert (users.of.number("a"), users.of.number("b")) == ((0, 0), (0, 1))
