"""The monitor: the same machine as the fold, over the metrics. Detectors are state; alerts and requests are outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

import msgspec
from pydantic import ValidationError

from feedback.drift import DriftState, MixtureESR
from feedback.policy import Policy, PolicyState, reason_to_retrain
from streams import topics
from streams.events import DriftAlert, Metric, RetrainingRequest, complaint, to_bytes, utc
from streams.fold import FoldError, Log, Output, Step
from streams.partition import dead_letter
from streams.standing import POSITION

WATCHED = "deep"  # the online layer heals itself, the deep model does not; by recall, which a retriever is there for
COMPARED = "covisited"  # an online source that learns from everybody: did the world change for it too?
_FALLEN = 0.75  # of its usual quality: then the change is in the tastes, not only in the model's age


class _Standing(msgspec.Struct):
    next: int = 0
    as_of: int = 0
    policy: PolicyState = msgspec.field(default_factory=PolicyState)
    positions: dict[str, int] = {}
    volumes: dict[str, int] = {}
    drifting: str = ""  # id of the alert that asks for a retraining, until it is asked for
    drifting_version: int = 0
    change_point: dict[str, int] = {}
    alerts: int = 0


class Monitor:
    """Detectors per signal and version, and the policy that turns their alerts into requests."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.reset()

    def reset(self) -> None:
        self.standing = _Standing()
        self.detectors: dict[str, MixtureESR] = {}

    def load(self, key: bytes, value: bytes | None) -> None:
        if key == POSITION:
            self.standing = msgspec.msgpack.decode(value or b"", type=_Standing)
        elif value is None:
            self.detectors.pop(key.decode(), None)
        else:
            self.detectors[key.decode()] = self._detector(msgspec.msgpack.decode(value, type=DriftState))

    def _detector(self, state: DriftState | None = None) -> MixtureESR:
        return MixtureESR(self.policy.warm_up, self.policy.margin, self.policy.arl, state)

    @property
    def next(self) -> int:
        return self.standing.next

    def position(self, next_offset: int, as_of: int) -> tuple[bytes, bytes]:
        self.standing.next, self.standing.as_of = next_offset, as_of
        return POSITION, msgspec.msgpack.encode(self.standing)

    def fold(self, records: Sequence[Log], skip: Collection[int] = ()) -> Step:
        step, touched = Step(), set[str]()
        for log in records:
            if log.offset in skip:
                continue
            try:
                self._one(Metric.model_validate_json(log.value), log, step, touched)
            except ValidationError as error:  # anybody may have written it
                why = complaint(error)
                step.outputs.append(dead_letter(topics.METRICS, topics.dead_letters(topics.METRICS), 0, log, "invalid", why))
            except Exception as error:
                raise FoldError(log.offset) from error
        for name in touched:
            detector = self.detectors.get(name)
            step.touched[name.encode()] = None if detector is None else msgspec.msgpack.encode(detector.state)
        return step

    def _one(self, metric: Metric, log: Log, step: Step, touched: set[str]) -> None:
        standing = self.standing
        standing.positions.update(metric.positions)
        if metric.signal.startswith("stream/"):
            standing.volumes[metric.signal] = metric.counts.get("interactions", 0)
            self._decide(log, step)
        elif metric.signal in (WATCHED, COMPARED):
            self._watch(metric, log, step, touched)

    def _watch(self, metric: Metric, log: Log, step: Step, touched: set[str]) -> None:
        name = f"{metric.signal}@{metric.version}"
        if name not in self.detectors:
            for old in [d for d in self.detectors if d.split("@")[0] == metric.signal and int(d.split("@")[1]) < metric.version - 8]:
                del self.detectors[old]
                touched.add(old)
            self.detectors[name] = self._detector()
        detector = self.detectors[name]
        touched.add(name)
        if metric.signal == WATCHED and metric.version > self.standing.drifting_version:
            self.standing.drifting = ""  # what drifted has been replaced meanwhile
        for quality in metric.recalls:
            detector.update(quality, dict(self.standing.positions))
            status = detector.transition()
            if status is None or metric.signal != WATCHED:
                continue
            alert = self._alert(metric, status, detector, log)
            step.outputs.append(Output(topics.DRIFT_ALERTS, metric.signal.encode(), to_bytes(alert)))
            if status == "drift":
                self.standing.drifting, self.standing.change_point = alert.id, alert.change_point
                self.standing.drifting_version = metric.version
                self._decide(log, step)
            elif status == "cleared":
                self.standing.drifting = ""

    def _alert(self, metric: Metric, status: str, detector: MixtureESR, log: Log) -> DriftAlert:
        self.standing.alerts += 1
        usual = max(detector.state.mean, 1e-9)
        online = self.detectors.get(f"{COMPARED}@{metric.version}")
        everywhere = online is not None and online.state.now < _FALLEN * online.state.mean
        lost = -detector.effect / usual
        severity = 1 + (lost >= 0.3) + (lost >= 0.6)
        if status == "cleared":
            cause, action = "recovered", "none"
        else:
            cause = "tastes_changed" if everywhere else "model_outdated"
            action = "retrain" if status == "drift" else "watch"
        return DriftAlert(
            id=_id("alert", log, self.standing.alerts),
            signal=metric.signal,
            version=metric.version,
            status=status,  # type: ignore[arg-type] # `transition` returns these three
            cause=cause,
            severity=severity,
            evidence=round(detector.evidence, 3),
            effect=round(detector.effect, 5),
            before=round(detector.state.mean, 5),
            now=round(detector.state.now, 5),
            suggested_action=action,
            change_point=detector.change_point,
            positions=dict(self.standing.positions),
            at=utc(log.timestamp / 1000),
        )

    def _decide(self, log: Log, step: Step) -> None:
        standing = self.standing
        volume = sum(standing.volumes.values())
        since = sum(at - standing.change_point.get(partition, 0) for partition, at in standing.positions.items())
        drifting = bool(standing.drifting) and since >= self.policy.after_change
        reason = reason_to_retrain(self.policy, standing.policy, log.timestamp, volume, drifting)
        if reason is None:
            return
        drift = reason == "drift"
        request = RetrainingRequest(
            id=_id("request", log, standing.policy.requests),
            reason=reason,  # type: ignore[arg-type] # `reason_to_retrain` returns these three
            cause=standing.drifting if drift else None,
            change_point=standing.change_point if drift else {},
            at=utc(log.timestamp / 1000),
        )
        standing.policy = PolicyState(standing.policy.requests + 1, log.timestamp, volume)
        standing.drifting = ""
        step.outputs.append(Output(topics.RETRAINING_REQUESTS, request.model.encode(), to_bytes(request)))


def _id(kind: str, log: Log, number: int) -> str:
    """The same record always gives the same id."""
    return blake2b(f"{kind}/{log.offset}/{number}".encode(), digest_size=8).hexdigest()
