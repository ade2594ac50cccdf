"""The retraining policy: what is a reason, and when it has to wait."""

import pytest

from feedback.policy import Policy, PolicyState, reason_to_retrain

POLICY = Policy(volume_first=100, volume_every=1_000, schedule_s=3_600, cool_down_s=60)
T0 = 1_700_000_000_000
TRAINED = PolicyState(requests=1, last_ms=T0, last_volume=500)


def asked(after_s: float, volume: int, drifting: bool = False, state: PolicyState = TRAINED, policy: Policy = POLICY) -> str | None:
    return reason_to_retrain(policy, state, T0 + int(after_s * 1000), volume, drifting)


@pytest.mark.parametrize(("volume", "reason"), [(0, None), (99, None), (100, "volume"), (5_000, "volume")])
def test_the_first_training_waits_for_its_volume(volume: int, reason: str | None) -> None:
    assert asked(0, volume, state=PolicyState()) == reason
    assert asked(1e6, volume, state=PolicyState()) == reason


def test_nothing_has_to_cool_down_before_the_first_request() -> None:
    assert reason_to_retrain(POLICY, PolicyState(), 1_000, 100, False) == "volume"


def test_before_the_first_training_neither_the_later_volume_nor_the_schedule_counts() -> None:
    never = Policy(volume_first=0, volume_every=10, schedule_s=10)
    assert asked(1e6, 10**9, state=PolicyState(), policy=never) is None


@pytest.mark.parametrize(("last", "least"), [(100, 100), (500, 250), (2_000, 1_000), (9_000, 1_000)])
def test_later_ones_wait_for_half_as_many_as_there_were_and_no_longer_than_for_the_volume(last: int, least: int) -> None:
    state = PolicyState(requests=1, last_ms=T0, last_volume=last)
    assert asked(61, last + least - 1, state=state) is None
    assert asked(61, last + least, state=state) == "volume"


@pytest.mark.parametrize(("after_s", "reason"), [(61, None), (3_599, None), (3_600, "schedule")])
def test_a_schedule_counts_from_the_last_request_where_anything_is_new(after_s: float, reason: str | None) -> None:
    assert asked(after_s, 501) == reason
    assert asked(after_s, 500) is None


def test_drift_is_a_reason_at_once_and_comes_before_all_others() -> None:
    assert asked(60, 500, drifting=True) == "drift"
    assert asked(1e5, 10**6, drifting=True) == "drift"
    assert asked(0, 0, drifting=True, state=PolicyState()) == "drift"


@pytest.mark.parametrize("drifting", [True, False])
def test_within_the_cool_down_nothing_is_a_reason(drifting: bool) -> None:
    assert asked(59.999, 10**6, drifting) is None
    assert asked(60, 10**6, drifting) is not None


@pytest.mark.parametrize("off", ["volume_every", "schedule_s"])
def test_zero_switches_a_reason_off(off: str) -> None:
    only = Policy(**{"volume_first": 1, "volume_every": 10, "schedule_s": 10.0, "cool_down_s": 0.0} | {off: 0})
    assert asked(1e6, 10**6, policy=only) == ("schedule" if off == "volume_every" else "volume")
    assert asked(1e6, 505, policy=only) == ("schedule" if off == "volume_every" else None)


def test_without_a_cool_down_requests_may_follow_at_once() -> None:
    assert asked(0, 10**6, policy=Policy(cool_down_s=0.0)) == "volume"


def test_without_news_volume_is_no_reason_however_little_there_was_before() -> None:
    only = Policy(volume_first=0, volume_every=10, schedule_s=0, cool_down_s=0)
    assert asked(60, 0, state=PolicyState(1, T0, 0), policy=only) is None
    assert asked(60, 1, state=PolicyState(1, T0, 0), policy=only) == "volume"


def test_asking_changes_nothing() -> None:
    state = PolicyState(1, T0, 500)
    asked(1e6, 10**6, True, state)
    assert state == PolicyState(1, T0, 500)
