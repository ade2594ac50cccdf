"""What every online source promises: a state that survives the state topic to the last byte, and stays bounded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from learners import covisitation, neighbours, popularity, profiles
from learners.covisitation import CoVisitation
from learners.neighbours import Neighbours
from learners.popularity import Popularity
from learners.profiles import Profiles

Choice = tuple[str, str, float]


@dataclass(frozen=True)
class Source:
    """How one source is made, fed, and asked which records it has."""

    make: Callable[[], Any]
    learn: Callable[[Any, Choice, list[str]], None]
    names: Callable[[list[Choice]], set[str]]


def items(choices: list[Choice]) -> set[str]:
    return {item for _, item, _ in choices}


def users(choices: list[Choice]) -> set[str]:
    return {user for user, _, _ in choices}


SOURCES = {
    "popularity": Source(Popularity, lambda s, c, recent: s.learn_one(c[1], c[2]), items),
    "covisitation": Source(CoVisitation, lambda s, c, recent: s.learn_one(c[1], recent), items),
    "neighbours": Source(Neighbours, lambda s, c, recent: s.learn_one(c[0], c[1]), items),
    "profiles": Source(Profiles, lambda s, c, recent: s.learn_one(c[0], c[1], c[2]), users),
}
source = pytest.mark.parametrize("source", list(SOURCES.values()), ids=list(SOURCES))


def stream(n: int, seed: int = 1) -> list[Choice]:
    rng = Random(seed)
    return [(f"u{rng.randrange(25)}", f"i{int(rng.random() ** 2 * 150)}", 1e9 + at * rng.choice([1.0, 200.0])) for at in range(n)]


def feed(source: Source, state: Any, choices: Iterable[Choice], past: dict[str, list[str]]) -> Any:
    for choice in choices:
        source.learn(state, choice, past.setdefault(choice[0], []))
        past[choice[0]].append(choice[1])
    return state


def dumped(source: Source, state: Any, choices: list[Choice]) -> dict[str, bytes]:
    return {name: state.dump(name) for name in sorted(source.names(choices))}


def restored(state: Any, fresh: Any, records: dict[str, bytes]) -> Any:
    for name, value in records.items():
        fresh.load(0, name, value)
    if isinstance(state, Popularity):
        fresh.clock[0] = state.clock[0]  # the fold keeps it with its position
    return fresh


@source
def test_a_loaded_state_dumps_the_same_bytes(source: Source) -> None:
    choices = stream(800)
    state = feed(source, source.make(), choices, {})
    records = dumped(source, state, choices)
    assert dumped(source, restored(state, source.make(), records), choices) == records


@source
def test_learning_goes_on_after_a_load_as_if_never_interrupted(source: Source) -> None:
    choices = stream(1200)
    past: dict[str, list[str]] = {}
    state = feed(source, source.make(), choices[:500], past)
    again = restored(state, source.make(), dumped(source, state, choices[:500]))
    feed(source, again, choices[500:], {user: list(had) for user, had in past.items()})
    feed(source, state, choices[500:], past)
    assert dumped(source, again, choices) == dumped(source, state, choices)


@source
def test_a_tombstone_forgets_so_that_learning_starts_anew(source: Source) -> None:
    choice = ("u", "i", 1e9)
    state, fresh = source.make(), source.make()
    for recent in (["x"], ["y"], ["z"]):
        source.learn(state, choice, recent)
    state.load(0, "u" if source.names is users else "i", None)
    if isinstance(fresh, Popularity):
        fresh.clock[0] = state.clock[0]
    source.learn(state, choice, ["w"])
    source.learn(fresh, choice, ["w"])
    assert dumped(source, state, [choice]) == dumped(source, fresh, [choice])


@source
def test_a_record_stays_bounded_however_much_is_learned(source: Source) -> None:
    """One item and one user that meet thousands of others: their record is the largest there is."""
    state = source.make()
    recent: list[str] = []
    largest = 0
    for n in range(3000):
        choice = ("u", f"i{n:05}", float(n)) if source.names is users else (f"u{n:05}", "i", float(n))
        source.learn(state, choice, recent)
        recent = [f"i{n:05}"]
        if n == 1499:
            largest = len(state.dump("u" if source.names is users else "i"))
    assert len(state.dump("u" if source.names is users else "i")) <= 1.25 * largest
    assert largest < 5_000


def test_the_bounds_are_the_constants() -> None:
    pairs, seen, of = CoVisitation(), Neighbours(), Profiles()
    for n in range(2000):
        pairs.learn_one("i", [f"i{n}"])
        seen.learn_one(f"u{n}", "i")
        of.learn_one("u", f"i{n}", float(n))
        assert len(pairs._near[0]["i"]) <= covisitation.KEPT + covisitation.SLACK
    assert len(seen._seen_by[0]["i"]) == neighbours.SEEN_BY
    profile = of.get("u")
    assert profile is not None
    assert (len(profile.recent), len(profile.had), profile.n) == (profiles.RECENT, 4 * profiles.CONSUMED, 2000)


def test_partitions_of_popularity_rank_as_their_counts_add() -> None:
    choices = stream(600)
    parts = [[c for c in choices if int(c[0][1:]) % 2 == p] for p in (0, 1)]
    merged, sums = Popularity(2), dict.fromkeys(items(choices), 0)
    for p, part in enumerate(parts):
        one = feed(SOURCES["popularity"], Popularity(), part, {})
        for name in items(part):
            merged.load(p, name, one.dump(name))
        merged.clock[p] = one.clock[0]
        for _, item, _ in part:
            sums[item] += 1
    ever = len(popularity.HALF_LIVES) - 1
    assert merged.rank(ever, 200) == sorted(sums, key=lambda i: (-sums[i], i))
    assert dict(zip(merged.names, merged.n().tolist(), strict=True)) == sums
    alone = feed(SOURCES["popularity"], Popularity(), choices, {})
    first = dict(zip(alone.names, alone.first_seen().tolist(), strict=True))
    assert dict(zip(merged.names, merged.first_seen().tolist(), strict=True)) == first


def test_partitions_of_covisitation_rank_as_their_counts_add() -> None:
    """Small enough that no list is cut: one state that saw all users ranks as two that saw half of them each."""
    rng = Random(3)
    choices = [(f"u{rng.randrange(12)}", f"i{rng.randrange(20)}", 0.0) for _ in range(500)]
    alone = feed(SOURCES["covisitation"], CoVisitation(), choices, {})
    merged = CoVisitation(2)
    for p in (0, 1):
        part = [c for c in choices if int(c[0][1:]) % 2 == p]
        one = feed(SOURCES["covisitation"], CoVisitation(), part, {})
        for name in items(part):
            merged.load(p, name, one.dump(name))
    for recent in (["i1"], ["i2", "i3", "i4"], [f"i{n}" for n in range(12)]):
        for ours, theirs in zip(merged.rank(recent, 20), alone.rank(recent, 20), strict=True):
            assert dict(ours) == pytest.approx(dict(theirs))
            assert [i for i, _ in ours[:5]] == [i for i, _ in theirs[:5]]
