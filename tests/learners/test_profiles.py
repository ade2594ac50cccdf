"""Profiles: the sequence, late events, repeats, hashes side by side, the first choice after those that were seen."""

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from learners.profiles import CONSUMED, RECENT, SESSION_GAP, Profile, Profiles, item_hash

NOW = 1.7e9


def learned(n: int) -> Profiles:
    users = Profiles()
    for i in range(n):
        users.learn_one("u", f"i{i}", NOW + i)
    return users


def test_an_event_late_by_more_than_a_session_counts_as_had_and_leaves_the_sequence() -> None:
    users = Profiles()
    users.learn_one("u", "a", NOW)
    assert users.learn_one("u", "late", NOW - SESSION_GAP - 1) == (False, False)
    assert users.learn_one("u", "late", NOW - SESSION_GAP - 1) == (False, True)
    profile = users.get("u")
    assert profile is not None
    assert (profile.recent, profile.n, profile.last) == (["a"], 1, NOW)
    assert profile.has_had("late")


def test_an_event_late_within_a_session_enters_the_sequence_and_time_does_not_run_back() -> None:
    users = Profiles()
    users.learn_one("u", "a", NOW)
    assert users.learn_one("u", "b", NOW - SESSION_GAP) == (True, False)
    profile = users.get("u")
    assert profile is not None
    assert (profile.recent, profile.last) == (["a", "b"], NOW)


def test_a_repeat_enters_the_sequence_again_and_is_had_once() -> None:
    users = Profiles()
    assert [users.learn_one("u", i, NOW) for i in "aba"] == [(True, False), (True, False), (True, True)]
    profile = users.get("u")
    assert profile is not None
    assert (profile.recent, len(profile.had)) == (["a", "b", "a"], 8)


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=12), st.text(max_size=6))
def test_an_item_was_had_exactly_when_its_hash_stands_on_a_boundary(hashes: list[bytes], item: str) -> None:
    assert Profile(had=b"".join(hashes)).has_had(item) == (item_hash(item) in hashes)


@given(st.text(max_size=6), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_a_hash_across_two_others_is_not_had_and_does_not_hide_one_that_is(item: str, shift: int, more: int, there: bool) -> None:
    mark = item_hash(item)
    pad = bytes([mark[0] ^ 1])  # never a byte of a hash that begins like the mark
    across = pad * shift + mark + pad * (4 - shift)
    had = across + pad * 4 * more + (mark if there else b"")
    aligned = {had[i : i + 4] for i in range(0, len(had), 4)}
    assert Profile(had=had).has_had(item) == (mark in aligned)


def test_the_hash_is_little_endian_crc32() -> None:
    assert int.from_bytes(item_hash("tea"), "little") == crc32(b"tea")


def test_an_item_older_than_all_that_is_kept_may_come_back() -> None:
    users = learned(CONSUMED + 1)
    profile = users.get("u")
    assert profile is not None
    assert not profile.has_had("i0")
    assert all(profile.has_had(f"i{i}") for i in range(1, CONSUMED + 1))


@given(st.integers(0, 120), st.integers(-3, 130))
def test_after_names_the_first_choice_after_the_seen_ones_while_it_is_remembered(n: int, seen: int) -> None:
    wanted = f"i{seen}" if max(0, n - RECENT) <= seen < n else None
    assert learned(n).after("u", seen) == wanted


def test_rank_gives_the_own_items_newest_first_each_once() -> None:
    users = Profiles()
    for item in "abcab":
        users.learn_one("u", item, NOW)
    assert users.rank("u", 2) == ["b", "a"]
    assert users.rank("u", 9) == ["b", "a", "c"]
    assert users.rank("nobody", 9) == []


def test_a_tombstone_forgets_the_user() -> None:
    users = learned(3)
    users.load(0, "u", None)
    assert (users.get("u"), users.dump("u"), list(users.recent("u")), users.after("u", 0), len(users)) == (None, None, [], None, 0)
    users.load(0, "u", None)


def test_two_fresh_profiles_share_nothing() -> None:
    users = Profiles()
    users.learn_one("a", "x", NOW)
    users.learn_one("b", "y", NOW)
    assert (list(users.recent("a")), list(users.recent("b"))) == (["x"], ["y"])
