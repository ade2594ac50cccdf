"""The retraining policy: when a drift, a volume of new events or a schedule is a reason to train again."""

from __future__ import annotations

import msgspec
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Policy:
    """Reasons to retrain. `volume_first`: interactions before the first model; `volume_every`: most of them between two trainings,
    while there are few half as many as there were before; `schedule_s`: seconds between two trainings; `cool_down_s`: least
    seconds between two requests. 0 switches one off.
    `after_change`: timeline records since the change point that a drift's training waits for: fewer teach it nothing.
    `warm_up`, `margin`, `arl`: the drift detector's (`feedback.drift.MixtureESR`).
    """

    volume_first: int = 5_000
    volume_every: int = 100_000
    schedule_s: float = 86_400.0
    cool_down_s: float = 300.0
    after_change: int = 5_000
    warm_up: int = 150
    margin: float = 0.2
    arl: float = 1e4


class PolicyState(msgspec.Struct):
    """`requests` made so far, when the last one was (broker time, ms), and at how many interactions."""

    requests: int = 0
    last_ms: int = 0
    last_volume: int = 0


def reason_to_retrain(policy: Policy, state: PolicyState, now_ms: int, volume: int, drifting: bool) -> str | None:
    """`drift`, `volume` or `schedule` where it is time for a request, else None. Pure: the caller records the request."""
    if state.requests and now_ms - state.last_ms < policy.cool_down_s * 1000:
        return None
    if drifting:
        return "drift"
    since = volume - state.last_volume
    if state.requests == 0:
        return "volume" if policy.volume_first and since >= policy.volume_first else None
    if policy.volume_every and since >= min(policy.volume_every, max(policy.volume_first, state.last_volume // 2, 1)):
        return "volume"
    if policy.schedule_s and since > 0 and now_ms - state.last_ms >= policy.schedule_s * 1000:
        return "schedule"
    return None
