"""Repeats: what a stream has to show before items a user had are hidden, and shown again."""

import pytest

from serving.repeats import ENOUGH, Repeats, never_happen


def lived(repeats: list[bool], start: Repeats | None = None) -> Repeats:
    state = start or Repeats()
    for repeat in repeats:
        state = state.after(repeat)
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


def test_a_state_counts_without_changing_the_one_before() -> None:
    first = Repeats(3, 1, 0.5)
    assert first.after(True).n == first.after(False).n == 4
    assert (first.after(True).repeated, first.after(False).repeated) == (2, 1)
    assert first == Repeats(3, 1, 0.5)
