"""The trainer's pure parts; what it does on the bus: tests/integration/test_releases.py, tests/chaos/test_failpoints.py."""

from datetime import UTC, datetime
from typing import Any

from streams.events import Release, Stage
from streams.trainer import FROZEN, had_weights


def record(version: int, stage: Stage, **more: Any) -> Release:
    return Release(id=f"{version}-{stage}", version=version, stage=stage, at=datetime(2026, 1, 1, tzinfo=UTC), **more)


def test_weights_that_were_a_candidates_are_known_unless_nobody_was_ever_to_have_it() -> None:
    assert had_weights([]) == {}
    records = [
        record(1, "requested"),
        record(1, "candidate", gates={"weights": "one"}),
        record(1, "live", gates={"canary": 3}),
        record(2, "candidate", gates={"weights": "two"}),
        record(2, "rolled_back"),
        record(3, "refused", gates={"weights": "three"}),
        record(4, "candidate", gates={"weights": "four"}),
        record(4, "refused", reason=FROZEN),
        record(5, "candidate", gates={"ndcg10": 0.1}),
        record(6, "candidate"),
    ]
    assert had_weights(records) == {"one": 1, "two": 2}
