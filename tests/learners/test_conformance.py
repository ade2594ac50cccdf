"""What every online source promises: a state that survives the state topic to the last byte, stays bounded, and merges."""

from collections.abc import Callable, Iterable
from random import Random

import numpy as np
import pytest

from learners import near, neighbours, occurrences, popularity, profiles
from learners.online import Online

Choice = tuple[str, str, float]

# How each source says what it knows of a stream's items and users.
SOURCES: dict[str, Callable[[Online, str], bytes | None]] = {
    "popularity": lambda o, name: o.popularity.dump(o.items.row[name]) if name in o.items.row else None,
    "occurrences": lambda o, name: o.occurrences.dump(o.items.row[name]) if name in o.items.row else None,
    "profiles": lambda o, name: o.profiles.dump(name),
}
source = pytest.mark.parametrize("dump", list(SOURCES.values()), ids=list(SOURCES))


def items(choices: list[Choice]) -> set[str]:
    return {item for _, item, _ in choices}


def stream(n: int, seed: int = 1) -> list[Choice]:
    rng = Random(seed)
    return [(f"u{rng.randrange(25)}", f"i{int(rng.random() ** 2 * 150)}", 1e9 + at * rng.choice([1.0, 200.0])) for at in range(n)]


def feed(online: Online, choices: Iterable[Choice]) -> Online:
    for choice in choices:
        online.learn_one(*choice)
    return online


def moved(online: Online, into: Online, partition: int = 0) -> Online:
    """`into`, with all records of `online`, the last first; clock and numbers come with the position."""
    for key, value in reversed(online.changes().items()):
        into.load(partition, key, value)
    into.popularity.clock[partition] = online.popularity.clock[0]
    into.items.next, into.profiles.next = online.items.next, online.profiles.next
    return into


def dumped(dump: Callable[[Online, str], bytes | None], online: Online, choices: list[Choice]) -> dict[str, bytes | None]:
    return {name: dump(online, name) for choice in choices for name in choice[:2]}


@source
def test_a_loaded_state_dumps_the_same_bytes(dump: Callable[[Online, str], bytes | None]) -> None:
    choices = stream(800)
    one = feed(Online(), choices)
    assert dumped(dump, moved(one, Online()), choices) == dumped(dump, one, choices)


@source
def test_learning_goes_on_after_a_load_as_if_never_interrupted(dump: Callable[[Online, str], bytes | None]) -> None:
    choices = stream(1200)
    one = feed(Online(), choices[:500])
    again = feed(moved(one, Online()), choices[500:])
    assert dumped(dump, again, choices) == dumped(dump, feed(one, choices[500:]), choices)


@source
def test_a_record_stays_bounded_however_much_is_learned(dump: Callable[[Online, str], bytes | None]) -> None:
    """One item and one user that meet thousands of others: their records are the largest there are."""
    online, largest = Online(), dict[str, int]()
    for n in range(3000):
        online.learn_one("u", f"i{n:05}", float(n))
        online.learn_one(f"u{n:05}", f"j{n:05}", float(n))
        online.learn_one(f"u{n:05}", "i", float(n))
        sizes = {name: len(dump(online, name) or b"") for name in ("u", "i")}
        if n == 1499:
            largest = sizes
    assert all(sizes[name] <= 1.25 * largest[name] < 5_200 or sizes[name] == largest[name] == 0 for name in sizes)


def test_the_bounds_are_the_constants() -> None:
    online = Online()
    for n in range(2000):
        online.learn_one(f"v{n}", f"j{n}", float(n))
        online.learn_one(f"v{n}", "i", float(n))
        online.learn_one("u", f"i{n}", float(n))
        row = online.items.row["i"]
        assert len(online.occurrences.dump(row)) <= 8 * occurrences.KEPT
    profile = online.profiles.get("u")
    assert profile is not None
    assert (len(profile.chosen), len(profile.had), profile.head.n) == (profiles.KEPT, profiles.KEPT, 2000)


def split(choices: list[Choice]) -> tuple[Online, Online]:
    """(one state that saw all users, two that saw half of them each, merged)."""
    merged = Online(2, 1)
    for p in (0, 1):
        moved(feed(Online(), [c for c in choices if int(c[0][1:]) % 2 == p]), merged, p)
    return feed(Online(), choices), merged


def had(online: Online, user: str) -> tuple[set[str], int, float]:
    profile = online.profiles.get(user)
    assert profile is not None
    return {online.items.names[row] for row in profile.had}, profile.head.n, profile.head.last


def test_partitions_of_popularity_rank_as_their_counts_add() -> None:
    choices = stream(600)
    alone, merged = split(choices)
    ever = len(popularity.HALF_LIVES) - 1
    assert merged.popularity.rank(ever, 200) == alone.popularity.rank(ever, 200)
    for values in (lambda o: o.popularity.n(), lambda o: o.popularity.first_seen()):
        ours, theirs = (dict(zip(o.items.names, values(o).tolist(), strict=True)) for o in (merged, alone))
        assert ours == theirs


def test_partitions_of_occurrences_rank_as_one() -> None:
    """Small enough that nothing is cut: one state that saw all users ranks as two that saw half of them each."""
    rng = Random(3)
    alone, merged = split([(f"u{rng.randrange(40)}", f"i{rng.randrange(20)}", 0.0) for _ in range(300)])
    for recent in (["i1"], ["i2", "i3", "i4"], [f"i{n}" for n in range(12)]):
        lists = [near.rank("v", recent, o, 20) for o in (merged, alone)]
        for ours, theirs in zip(*lists, strict=True):
            assert dict(ours) == pytest.approx(dict(theirs))
            assert np.allclose([s for _, s in ours], [s for _, s in theirs])


def test_partitions_have_their_users_and_their_neighbours() -> None:
    choices = stream(300)
    alone, merged = split(choices)
    for user in {user for user, _, _ in choices}:
        assert merged.profiles.recent(user) == alone.profiles.recent(user)
        assert had(merged, user) == had(alone, user)
    votes = neighbours.rank("nobody", ["i1", "i2"], merged, 9)
    assert votes and {i for i, _ in votes} <= items(choices) - {"i1", "i2"}
