"""When the watchdog gives a worker up: work, none done, a broker that answers."""

from __future__ import annotations

import pytest

from streams.watchdog import PATIENCE_S, Patience

PLACE = "timeline/0"


def watched(*steps: tuple[float, int, int, int]) -> str | None:
    """The first reason to give up over steps (now s, position, other work, end of the log)."""
    patience = Patience()
    for now, position, done, end in steps:
        if reason := patience.lost(now, {PLACE: (position, done)}, {PLACE: end}):
            return reason
    return None


def test_work_that_nobody_does_is_a_reason() -> None:
    reason = watched(*((2.0 * n, 5, 0, 9 + n) for n in range(9)))
    assert reason == f"{PLACE} stands at 5 of 16 for {PATIENCE_S + 2:.0f} s though the broker answers"


@pytest.mark.parametrize(
    "steps",
    [
        [(0.0, 5, 0, 5), (100.0, 5, 0, 5), (200.0, 5, 0, 5)],
        [(n * 10.0, n, 0, 1000) for n in range(20)],
        [(n * 10.0, 0, n, 1000) for n in range(20)],
        [(0.0, 5, 0, 5), (100.0, 5, 0, 9), (102.0, 5, 0, 9), (104.0, 9, 0, 9)],
        [(0.0, 5, 0, 9), (60.0, 5, 0, 9), (62.0, 6, 0, 9)],
    ],
    ids=["nothing to do", "slow", "restoring", "work came late", "paused for a minute"],
)
def test_no_work_or_some_progress_is_none(steps: list[tuple[float, int, int, int]]) -> None:
    assert watched(*steps) is None


def test_a_partition_that_is_opened_again_and_again_does_not_progress() -> None:
    steps = [(2.0 * n, 50 * (n % 2), 0, 90) for n in range(20)]
    assert watched(*steps) is not None


def test_the_time_a_broker_is_away_does_not_count() -> None:
    patience = Patience()
    for now in range(100):
        assert patience.lost(float(now), {PLACE: (5, 0)}, {PLACE: 9}) is None
        patience.forgive()


def test_a_partition_that_went_and_came_back_begins_anew() -> None:
    patience = Patience()
    assert patience.lost(0.0, {PLACE: (5, 0)}, {PLACE: 9}) is None
    for n in range(1, 40):
        held = {} if n % 5 == 0 else {PLACE: (5, 0)}
        assert patience.lost(2.0 * n, held, {PLACE: 9}) is None
