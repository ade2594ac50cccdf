"""Drift: silent while nothing changes, loud soon after a fall, with the mark where the fall began."""

import msgspec
import numpy as np
import pytest

from feedback.drift import DriftState, MixtureESR

WARM_UP = 150


def qualities(n: int, mean: float = 0.25, seed: int = 1) -> list[float]:
    """NDCG-like block means: ten asks, most of them worth nothing."""
    rng = np.random.default_rng(seed)
    return (rng.binomial(10, mean / 0.6, n) * 0.06).tolist()


def told(detector: MixtureESR, values: list[float], start: int = 0) -> list[tuple[int, str]]:
    """Every transition with the number of its block; `mark` counts blocks."""
    changes = []
    for n, x in enumerate(values, start):
        detector.update(x, {"0": n})
        change = detector.transition()
        if change:
            changes.append((n, change))
    return changes


def first_alarm(detector: MixtureESR, values: list[float]) -> int | None:
    for n, x in enumerate(values):
        detector.update(x, {"0": n})
        if detector.drift_detected:
            return n
    return None


def test_it_is_silent_over_a_hundred_thousand_stationary_blocks() -> None:
    alarms = [first_alarm(MixtureESR(arl=1e4), qualities(20_000, seed=seed)) for seed in range(5)]
    assert sum(alarm is not None for alarm in alarms) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_it_fires_soon_after_a_fall_of_60_percent_and_marks_where_it_began(seed: int) -> None:
    usual = qualities(1_000, seed=seed)
    detector = MixtureESR()
    assert first_alarm(detector, usual) is None
    alarm = first_alarm(detector, qualities(300, 0.1, seed + 50))
    assert alarm is not None
    assert alarm < 100
    fell = MixtureESR()
    told(fell, [*usual, *qualities(alarm + 1, 0.1, seed + 50)])
    assert 970 <= fell.change_point["0"] <= min(1_015, 1_000 + alarm)


def test_a_larger_fall_is_found_sooner() -> None:
    def delay(mean: float) -> float:
        found = []
        for seed in range(6):
            detector = MixtureESR()
            told(detector, qualities(400, seed=seed))
            found.append(first_alarm(detector, qualities(3_000, mean, seed + 70)) or 3_000)
        return float(np.mean(found))

    assert delay(0.02) < delay(0.1) < delay(0.15)


def test_a_fall_within_the_margin_and_a_rise_are_no_drift() -> None:
    for later in (0.225, 0.4):
        detector = MixtureESR(margin=0.2)
        told(detector, qualities(400))
        assert first_alarm(detector, qualities(2_000, later, 9)) is None


def test_it_says_nothing_before_it_is_armed() -> None:
    detector = MixtureESR(warm_up=WARM_UP)
    assert told(detector, [0.5] * 20 + [0.0] * (WARM_UP - 21)) == []
    assert not detector.armed
    detector.update(0.0)
    assert detector.armed
    assert not detector.drift_detected


def test_a_signal_without_any_noise_is_watched_too() -> None:
    detector = MixtureESR()
    assert told(detector, [0.3] * 1_000) == []
    assert first_alarm(detector, [0.1] * 50) is not None
    perfect = MixtureESR()
    assert told(perfect, [1.0] * 1_000) == []


def test_status_goes_from_warning_to_drift_and_is_cleared_when_the_quality_is_back() -> None:
    detector = MixtureESR()
    changes = told(detector, [*qualities(400), *qualities(120, 0.1, 5), *qualities(300, 0.25, 6)])
    assert [change for _, change in changes] == ["warning", "drift", "cleared"]
    warning, drift, cleared = (n for n, _ in changes)
    assert 400 <= warning < drift < 520
    assert cleared >= 520 + 20
    assert (detector.state.status, detector.drift_detected) == ("quiet", False)
    assert [change for _, change in told(detector, qualities(80, 0.05, 7))] == ["warning", "drift"]


def test_it_stays_in_drift_while_the_quality_stays_low_and_says_so_once() -> None:
    detector = MixtureESR()
    told(detector, qualities(400))
    assert [c for _, c in told(detector, qualities(1_000, 0.1, 5))] == ["warning", "drift"]
    assert detector.state.status == "drift"
    assert np.isfinite(detector.evidence)


def test_a_warning_that_comes_to_nothing_is_cleared() -> None:
    detector = MixtureESR()
    told(detector, qualities(400))
    told(detector, [0.0] * 20)
    while detector.state.status == "quiet":
        told(detector, [0.0])
    assert detector.state.status in ("warning", "drift")
    assert [c for _, c in told(detector, qualities(200, 0.27, 8))][-1] == "cleared"


def test_effect_is_how_far_the_quality_fell() -> None:
    detector = MixtureESR()
    told(detector, qualities(400))
    told(detector, [0.1] * 200)
    assert detector.state.mean == pytest.approx(np.mean(qualities(WARM_UP)))
    assert detector.effect == pytest.approx(0.1 - detector.state.mean, abs=1e-4)


@pytest.mark.parametrize("cut", [0, 80, 300, 440, 510, 540])
def test_a_state_that_went_over_the_state_topic_goes_on_equally(cut: int) -> None:
    values = [*qualities(400), *qualities(120, 0.1, 5), *qualities(200, 0.25, 6)]
    whole, before = MixtureESR(), MixtureESR()
    told(before, values[:cut])
    record = msgspec.msgpack.encode(before.state)
    again = MixtureESR(state=msgspec.msgpack.decode(record, type=DriftState))
    assert msgspec.msgpack.encode(again.state) == record
    changes = told(whole, values)
    assert told(again, values[cut:], cut) == [change for change in changes if change[0] >= cut]
    assert again.state == whole.state


def test_a_stricter_arl_asks_for_more_evidence() -> None:
    delays = []
    for arl in (1e2, 1e4, 1e8):
        detector = MixtureESR(arl=arl)
        told(detector, qualities(400))
        delays.append(first_alarm(detector, qualities(400, 0.1, 5)))
    assert delays[0] < delays[1] < delays[2]  # type: ignore[operator]


def test_a_quality_of_nothing_cannot_fall() -> None:
    detector = MixtureESR(warm_up=50)
    statuses = []
    for _ in range(1_000):
        detector.update(0.0)
        statuses.append(detector.transition())
    assert set(statuses) == {None}
