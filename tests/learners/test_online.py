"""The online layer as one: which records a choice changes, erasure, the keys of the state topic."""

from random import Random

import pytest

from learners.online import Online

KINDS = "pcsu"


def everything(online: Online) -> dict[str, bytes | None]:
    names = {
        "p": online.popularity.names,
        "c": online.pairs._near[0],
        "s": online.neighbours._seen_by[0],
        "u": online.profiles._of,
    }
    return {f"{kind}·{name}": online.dump(f"{kind}·{name}") for kind in KINDS for name in names[kind]}


def stream(n: int) -> list[tuple[str, str, float]]:
    rng = Random(5)
    return [(f"u{rng.randrange(5)}", f"i{rng.randrange(12)}", 1e9 + 60 * at - rng.choice([0.0, 0.0, 9e3])) for at in range(n)]


def test_the_keys_returned_are_those_whose_records_changed() -> None:
    """None is missed. Named in vain, because that costs nothing, are only the user and the item of the choice itself."""
    online, changes = Online(), 0
    for user, item, at in stream(300):
        before = everything(online)
        touched, _ = online.learn_one(user, item, at)
        after = everything(online)
        changed = {key for key, value in after.items() if before.get(key) != value}
        assert changed <= touched
        assert touched - changed <= {f"u·{user}", f"s·{item}"}
        changes += touched == changed
    assert changes > 150


def test_a_late_choice_counts_and_pairs_with_nothing() -> None:
    online = Online()
    online.learn_one("u", "a", 1e9)
    assert online.learn_one("u", "b", 1e9 - 1e5) == ({"u·u", "p·b"}, False)
    assert online.pairs.rank(["a"], 5) == ([], [])


def test_all_records_of_the_state_topic_make_an_equal_state_that_learns_on_equally() -> None:
    choices = stream(400)
    one, other = Online(), Online()
    for choice in choices[:200]:
        one.learn_one(*choice)
    for key, value in everything(one).items():
        assert other.load(0, key, value)
    other.popularity.clock[0] = one.popularity.clock[0]
    for choice in choices[200:]:
        assert one.learn_one(*choice) == other.learn_one(*choice)
    assert everything(one) == everything(other)


def test_an_erased_user_is_named_by_no_record() -> None:
    online = Online()
    for user, item in [("ann", "x"), ("bob", "x"), ("ann", "y")]:
        online.learn_one(user, item, 1e9)
    before = everything(online)
    touched = online.forget("ann")
    after = everything(online)
    assert touched == {"u·ann", "s·x", "s·y"}
    assert {key for key in before if before[key] != after.get(key)} == touched
    assert online.dump("u·ann") is None
    assert not any(b"ann" in (value or b"") for value in after.values())


@pytest.mark.parametrize("key", ["w·", "a·u", "x·3", "position", ""])
def test_a_key_of_another_kind_is_left_to_others(key: str) -> None:
    online = Online()
    assert not online.load(0, key, b"anything")
    assert everything(online) == {}


def test_an_id_may_hold_a_middle_dot() -> None:
    online, other = Online(), Online()
    online.learn_one("u·1", "i·1", 1e9)
    for key, value in everything(online).items():
        other.load(0, key, value)
    assert other.profiles.recent("u·1") == ["i·1"]
    assert other.popularity.names == ["i·1"]
