"""Repeats: what a stream has to show before items a user had are hidden, and shown again."""

from copy import copy

import pytest

from serving.repeats import ENOUGH, Repeats, never_happen


def lived(repeats: list[bool], start: Repeats | None = None) -> Repeats:
    state = copy(start) if start else Repeats()
    for repeat in repeats:
        state.learn(repeat)
    return state


def test_nothing_is_decided_before_enough_events() -> None:
    assert not never_happen([])
    assert not never_happen([lived([False] * (ENOUGH - 1))])
    assert never_happen([lived([False] * ENOUGH)])


def test_partitions_decide_together() -> None:
    part = lived([False] * (ENOUGH // 3))
    assert not never_happen([part, part])
    assert never_happen([part, part, part])
    assert not never_happen([part, part, part, lived([True] * 20)])


@pytest.mark.parametrize(("share", "never"), [(0.001, True), (0.02, False), (0.3, False)])
def test_rare_repeats_are_none_and_others_are(share: float, never: bool) -> None:
    every = round(1 / share)
    assert never_happen([lived([n % every == every - 1 for n in range(5_000)])]) is never


def test_a_stream_that_begins_to_repeat_shows_items_again_soon_and_forgives_in_time() -> None:
    state = lived([False] * 20_000)
    turned = lived([True] * 6, state)
    assert never_happen([state])
    assert not never_happen([turned])
    assert never_happen([lived([False] * 1_000, turned)])
