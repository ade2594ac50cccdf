"""The online layer as one: which records a choice changes, erasure, eviction, the records of the state topic."""

from random import Random

import pytest

from learners import neighbours
from learners.near import rank
from learners.occurrences import ENTRY
from learners.online import ITEM, Memory, Online

Records = dict[bytes, bytes]


def near(online: Online, recent: list[str]) -> tuple[set[str], ...]:
    """Items that are named after and around a history, and by its session neighbours."""
    after, around = rank("v", recent, online, 9)
    found = after, around, neighbours.rank("v", recent, online, 9)
    return tuple({item for item, _ in entries} for entries in found)


def keep(online: Online, records: Records) -> set[str]:
    """What the commit does; returns the keys that changed."""
    changed = online.changes()
    for key, value in changed.items():
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value
    return {key.decode() for key in changed}


def load(records: Records, like: Online, partition: int = 0, into: Online | None = None) -> Online:
    """An online layer as a restart finds it again: records in any order, numbers and clock with the position."""
    online = into or Online(1, 1, like.memory, serves=False)
    for key in sorted(records, key=lambda k: k[::-1]):
        assert online.load(partition, key, records[key])
    online.popularity.clock[partition] = like.popularity.clock[0]
    online.items.next, online.profiles.next = like.items.next, like.profiles.next
    return online


def stream(n: int, users: int = 5, items: int = 12) -> list[tuple[str, str, float]]:
    rng = Random(5)
    return [(f"u{rng.randrange(users)}", f"i{rng.randrange(items)}", 1e9 + 60 * at - rng.choice([0.0, 0.0, 9e3])) for at in range(n)]


def test_the_records_named_are_those_that_changed() -> None:
    online, records = Online(), Records()
    for user, item, at in stream(300):
        before = dict(records)
        online.learn_one(user, item, at)
        changed = keep(online, records)
        assert {f"u·{user}", f"i·{item}"} <= changed
        assert changed == {key.decode() for key, value in records.items() if before.get(key) != value}


def test_a_late_choice_counts_and_pairs_with_nothing() -> None:
    online = Online()
    online.learn_one("u", "a", 1e9)
    online.changes()
    assert online.learn_one("u", "b", 1e9 - 1e5) == (1, False, False)
    assert {key.decode() for key in online.changes()} == {"u·u", "i·b"}
    assert near(online, ["a"]) == (set(), set(), set())


def test_all_records_of_the_state_topic_make_an_equal_state_that_learns_on_equally() -> None:
    one, records = Online(), Records()
    for choice in stream(400)[:200]:
        one.learn_one(*choice)
    keep(one, records)
    other, others = load(records, one), dict(records)
    for choice in stream(400)[200:]:
        assert one.learn_one(*choice) == other.learn_one(*choice)
    keep(one, records), keep(other, others)
    assert records == others


def test_an_erased_user_is_named_by_no_record() -> None:
    online, records = Online(), Records()
    for user, item in [("ann", "x"), ("bob", "x"), ("ann", "y")]:
        online.learn_one(user, item, 1e9)
    keep(online, records)
    online.forget("ann")
    assert keep(online, records) == {"u·ann", "i·x", "i·y"}
    assert b"u\xc2\xb7ann" not in records
    assert online.occurrences.dump(online.items.row["x"]) == ENTRY.pack(1, 0)
    online.forget("nobody")
    assert online.changes() == {}


def test_an_erased_user_is_named_by_no_record_that_was_only_loaded() -> None:
    online, records = Online(), Records()
    for user, item in [("bob", "x"), ("ann", "x"), ("ann", "y"), ("bob", "z")]:
        online.learn_one(user, item, 1e9)
    keep(online, records)
    again = load(records, online)
    again.forget("ann")
    assert keep(again, records) == {"u·ann", "i·x", "i·y"}
    online.forget("ann")
    assert all(records[key] == value for key, value in online.changes().items() if value is not None)


@pytest.mark.parametrize("key", ["w·", "a·u", "x·3", "position", ""])
def test_a_key_of_another_kind_is_left_to_others(key: str) -> None:
    online = Online()
    assert not online.load(0, key.encode(), b"anything")
    assert online.changes() == {} and len(online.items) == 0


def test_an_id_may_hold_a_middle_dot() -> None:
    online, records = Online(), Records()
    online.learn_one("u·1", "i·1", 1e9)
    keep(online, records)
    other = load(records, online)
    assert other.profiles.recent("u·1") == ["i·1"]
    assert other.items.names == ["i·1"]


def test_beyond_its_memory_it_forgets_what_it_heard_of_longest_ago_also_after_a_restart() -> None:
    memory = Memory(users=100, items=100)
    online, records, restarted = Online(1, 1, memory, serves=False), Records(), False
    last: dict[str, int] = {}
    for at, (user, item, time) in enumerate(stream(6_000, users=400, items=300)):
        online.learn_one(user, item, time)
        last[f"u·{user}"] = last[f"i·{item}"] = at
        if at % 57 == 0:
            keep(online, records)
        if at == 3_000:
            keep(online, records)
            online, restarted = load(records, online), True
    keep(online, records)
    assert restarted
    for kind in ("u·", "i·"):
        kept = {key.decode() for key in records if key.decode().startswith(kind)}
        assert 100 <= len(kept) <= 101
        newest = sorted((name for name in last if name.startswith(kind)), key=lambda name: -last[name])
        assert set(newest[:100]) <= kept
    alone, again = Online(1, 1, memory), Records()
    for choice in stream(6_000, users=400, items=300):
        alone.learn_one(*choice)
    keep(alone, again)
    assert again == {key: records[key] for key in again} and again.keys() == records.keys()


def test_a_replica_forgets_an_item_when_the_last_partition_has() -> None:
    merged = Online(2, 2)
    for p in range(2):
        one = Online(1, 2)
        one.learn_one("u", "x", 1e9)
        one.learn_one("u", f"only{p}", 1e9)
        for key, value in one.changes().items():
            merged.load(p, key, value)
    merged.load(0, ITEM + b"x", None)
    assert merged.popularity.rank(4, 9) == ["only0", "only1", "x"] and merged.popularity.n().sum() == 3
    merged.load(1, ITEM + b"x", None)
    merged.load(1, ITEM + b"never-there", None)
    assert "x" not in merged.items.row and merged.popularity.rank(4, 9) == ["only0", "only1"]
    assert near(merged, ["only0"]) == (set(), set(), set())
    assert merged.profiles.recent("u") == ["only0"]


def test_records_are_as_small_as_documented_however_long_the_ids() -> None:
    online = Online(1, 4)
    for n in range(50):
        online.learn_one("user" * 20, f"item-with-a-name-of-many-letters-{n:040}", 1e9 + n)
    assert max(len(value or b"") for value in online.changes().values()) <= 230
    for n in range(3_000):
        online.learn_one(f"v{n // 9}", f"i{n % 7}", 1e9)
    assert max(len(value or b"") for value in online.changes().values()) <= 4 + 48 + 8 * 128
