"""The monitor: a planted fall becomes one alert and one request, with ids that a replay gives again."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from feedback.policy import Policy
from streams import topics
from streams.events import DriftAlert, Metric, RetrainingRequest, to_bytes
from streams.fold import Log, Step
from streams.monitor import Monitor
from streams.standing import POSITION

AT = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(volume_first=0, volume_every=0, schedule_s=0, cool_down_s=10, warm_up=100, after_change=1_000)


def quality(mean: float, seconds: int, start: int, rng: random.Random, version: int = 1, signal: str = "deep") -> list[Log]:
    """One metric a second with five blocks of ten asks each, and the partition's totals."""
    logs = []
    for second in range(start, start + seconds):
        ndcgs = [sum(rng.random() < mean * 2 for _ in range(10)) / 20 for _ in range(5)]
        at = {"positions": {"0": second * 100}, "at": AT}
        metrics = [Metric(signal=signal, version=version, n=5, hits=ndcgs, ndcgs=ndcgs, recalls=ndcgs, **at)]
        metrics.append(Metric(signal="stream/0", counts={"interactions": second * 100}, **at))
        logs += [Log(second * 10 + n, second * 1000, b"", to_bytes(m)) for n, m in enumerate(metrics)]
    return logs


def outputs(step: Step, topic: str) -> list[bytes]:
    return [o.value for o in step.outputs if o.topic == topic]


def test_a_fall_is_one_alert_and_one_request_that_names_it_and_the_change_point() -> None:
    rng, monitor = random.Random(1), Monitor(POLICY)
    before = monitor.fold(quality(0.1, 100, 0, rng))
    assert not before.outputs
    step = monitor.fold(quality(0.03, 40, 100, rng))
    alerts = [DriftAlert.model_validate_json(v) for v in outputs(step, topics.DRIFT_ALERTS)]
    requests = [RetrainingRequest.model_validate_json(v) for v in outputs(step, topics.RETRAINING_REQUESTS)]
    assert [a.status for a in alerts] == ["warning", "drift"]
    assert [(r.reason, r.cause) for r in requests] == [("drift", alerts[-1].id)]
    assert 9_000 <= requests[0].change_point["0"] <= 11_500  # the change was at second 100, position 10,000
    assert alerts[-1].severity == 3
    assert alerts[-1].effect < 0
    assert alerts[-1].suggested_action == "retrain"


def test_a_steady_stream_stays_silent() -> None:
    rng, monitor = random.Random(2), Monitor(POLICY)
    assert not monitor.fold(quality(0.1, 600, 0, rng)).outputs


def test_a_restart_in_between_gives_the_same_alert() -> None:
    def run(cut: int) -> list[bytes]:
        rng, monitor = random.Random(3), Monitor(POLICY)
        records = quality(0.1, 60, 0, rng) + quality(0.02, 40, 60, rng)
        state: dict[bytes, bytes | None] = {}
        first = monitor.fold(records[:cut])
        state |= first.touched
        key, value = monitor.position(cut, 0)
        state[key] = value
        monitor = Monitor(POLICY)
        for key, stored in state.items():
            monitor.load(key, stored)
        assert POSITION in state
        return [o.value for o in first.outputs + monitor.fold(records[cut:]).outputs]

    assert run(1) == run(77) == run(150) != []


def test_a_new_version_starts_its_own_detector() -> None:
    rng, monitor = random.Random(4), Monitor(POLICY)
    monitor.fold(quality(0.2, 100, 0, rng))
    assert not monitor.fold(quality(0.1, 100, 100, rng, version=2)).outputs
    assert monitor.detectors.keys() == {"deep@1", "deep@2"}


def test_volume_asks_for_the_first_training_once() -> None:
    rng, monitor = random.Random(5), Monitor(Policy(volume_first=5_000, volume_every=0, schedule_s=0))
    step = monitor.fold(quality(0.1, 100, 0, rng))
    requests = [RetrainingRequest.model_validate_json(v) for v in outputs(step, topics.RETRAINING_REQUESTS)]
    assert [(r.reason, r.cause) for r in requests] == [("volume", None)]


def test_a_drifts_training_waits_until_there_is_something_to_learn_from() -> None:
    rng, monitor = random.Random(6), Monitor(Policy(volume_first=0, volume_every=0, schedule_s=0, warm_up=100, after_change=4_000))
    step = monitor.fold(quality(0.1, 100, 0, rng) + quality(0.02, 100, 100, rng))
    (request,) = (RetrainingRequest.model_validate_json(v) for v in outputs(step, topics.RETRAINING_REQUESTS))
    (alert,) = (a for a in map(DriftAlert.model_validate_json, outputs(step, topics.DRIFT_ALERTS)) if a.status == "drift")
    assert request.cause == alert.id
    assert alert.positions["0"] < request.change_point["0"] + 4_000 and step.outputs[-1].topic == topics.RETRAINING_REQUESTS


def test_what_is_no_metric_is_a_dead_letter_however_much_of_it_there_is() -> None:
    monitor = Monitor(POLICY)
    bad = [b"garbage", b'{"signal": "stream/9", "at": "2026-01-01T00:00:00Z", "counts": {"interactions": 1180591620717411303424}}'] * 20
    step = monitor.fold([Log(n, n, b"x", value) for n, value in enumerate(bad)])
    assert len(outputs(step, topics.dead_letters(topics.METRICS))) == 40
    assert monitor.position(40, 0)
