"""The oracle finds what it is there for: a lost, a doubled and a late effect, and a state that is not the replay's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from streams.fold import Fold, Log
from streams.standing import POSITION
from streams.timeline import Interacted, Source, encode
from tests.chaos.oracle import Verdict, _effects, _replay


@dataclass
class Sent:
    """As a ledger, after its end."""

    sent: dict[str, list[str]] = field(default_factory=lambda: {"ann": ["a1", "a2", "a3"], "bob": ["b1"]})
    acknowledged: set[str] = field(default_factory=lambda: {"a1", "a2", "a3", "b1"})


def timeline(*events: tuple[int, str, str]) -> list[Log]:
    """Records (source offset, user, id), one offset each."""
    return [
        Log(n, n, user.encode(), encode(Interacted(Source(0, 0, offset, n), user, f"item-{id}", "click", float(n), id=id)))
        for n, (offset, user, id) in enumerate(events)
    ]


GOOD = ((0, "ann", "a1"), (1, "bob", "b1"), (2, "ann", "a2"), (3, "ann", "a3"))


def judged(*partitions: list[Log]) -> tuple[int, int, int]:
    verdict = Verdict()
    _effects(verdict, dict(enumerate(partitions)), Sent())  # type: ignore[arg-type] # what of a ledger it reads
    return verdict.lost, verdict.doubled, verdict.disordered


def test_each_event_once_and_in_order_is_well() -> None:
    assert judged(timeline(*GOOD)) == (0, 0, 0)


def test_what_ingest_or_a_producer_wrote_twice_has_one_effect() -> None:
    assert judged(timeline(*GOOD, GOOD[2], (4, "ann", "a2"))) == (0, 0, 0)


@pytest.mark.parametrize(
    ("logs", "found"),
    [
        ([timeline(*GOOD[:3])], (1, 0, 1)),
        ([timeline(*GOOD), timeline((0, "bob", "b1"))], (0, 1, 1)),
        ([timeline(GOOD[0], GOOD[1], (2, "ann", "a3"), (3, "ann", "a2"))], (0, 0, 1)),
    ],
    ids=["lost", "doubled in another partition", "out of order"],
)
def test_a_wrong_effect_is_found(logs: list[list[Log]], found: tuple[int, int, int]) -> None:
    assert judged(*logs) == found


def committed(logs: list[Log]) -> dict[bytes, bytes]:
    """What a worker would have committed, batch by batch."""
    fold, state = Fold(0, 1), dict[bytes, bytes]()
    for log in logs:
        state.update({k: v for k, v in fold.fold([log]).touched.items() if v is not None})
    key, value = fold.position(len(logs), as_of=7)
    return {**state, key: value}


def lose_a_key(state: dict[bytes, bytes]) -> None:
    del state["u·ann".encode()]


def fold_one_twice(state: dict[bytes, bytes]) -> None:
    state.update(committed([*timeline(*GOOD), *timeline(*GOOD, (4, "ann", "a9"))[4:]]))


def stand_elsewhere(state: dict[bytes, bytes]) -> None:
    state[POSITION] = committed(timeline(*GOOD[:3]))[POSITION]


def test_a_state_equal_to_the_replay_has_its_hash() -> None:
    verdict = Verdict()
    _replay(verdict, "online-0", Fold(0, 1), timeline(*GOOD), committed(timeline(*GOOD)))
    assert verdict.passed and verdict.hashes["online-0"][0]


@pytest.mark.parametrize("harm", [lose_a_key, fold_one_twice, stand_elsewhere], ids=lambda f: f.__name__)
def test_a_state_that_is_not_the_replays_is_found(harm: Callable[[dict[bytes, bytes]], None]) -> None:
    state, verdict = committed(timeline(*GOOD)), Verdict()
    harm(state)
    _replay(verdict, "online-0", Fold(0, 1), timeline(*GOOD), state)
    assert not verdict.passed and "records differ" in verdict.notes[0]
