"""A canary on trial: how its answers were judged, beside those of the version before it, by the metrics as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from pydantic import ValidationError

from serving.release import Rollout
from streams import topics
from streams.events import Metric
from streams.kafka import Kafka

LEAST = 20  # session blocks of either side, below which there is no evidence of anything
Z99 = 2.326  # one-sided 99 % of the normal distribution


@dataclass
class Trial:
    """NDCG@10 of session blocks as served: the canary's (`mine`) and the live version's; and judged `asks` of the canary."""

    mine: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    asks: int = 0

    @property
    def is_harmful(self) -> bool:
        """Evidence of harm: the canary's mean is below the live one's with 99 % confidence (normal, session blocks)."""
        mine, others = self.mine, self.others
        if min(len(mine), len(others)) < LEAST:
            return False
        error = float(np.sqrt(np.var(mine, ddof=1) / len(mine) + np.var(others, ddof=1) / len(others)))
        return float(np.mean(mine) - np.mean(others)) + Z99 * error < 0

    def figures(self) -> dict[str, Any]:
        """For the release record."""
        return {
            "judged": self.asks,
            "canary_ndcg10": _mean(self.mine),
            "live_ndcg10": _mean(self.others),
            "canary_blocks": len(self.mine),
            "live_blocks": len(self.others),
        }


def judged(kafka: Kafka, version: int, live: int, rollout: Rollout, is_over: Callable[[], bool]) -> Trial:
    """Follow the metrics from now on, until enough answers of `version` are judged, the deadline has come, or `is_over`."""
    trial = Trial()
    metrics = KafkaConsumer(**kafka.kafka_python(), enable_auto_commit=False, isolation_level="read_committed")
    try:
        place = TopicPartition(kafka.prefix + topics.METRICS, 0)
        metrics.assign([place])
        metrics.seek_to_end(place)
        metrics.position(place)
        deadline = time.monotonic() + rollout.deadline_s
        while time.monotonic() < deadline and trial.asks < rollout.judged and not is_over():
            for records in metrics.poll(timeout_ms=300).values():
                for record in records:
                    try:
                        metric = Metric.model_validate_json(record.value or b"")
                    except ValidationError:  # the monitor has put it into the dead letters
                        continue
                    if metric.signal == "served" and metric.version == version:
                        trial.mine += metric.ndcgs
                        trial.asks += metric.counts.get("asks", 0)
                    elif metric.signal == "served" and metric.version == live:
                        trial.others += metric.ndcgs
    finally:
        metrics.close()
    return trial


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 5) if values else None
