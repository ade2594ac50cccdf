"""A canary on trial: its judged answers beside those of the version before it, by the metrics as they come."""

from __future__ import annotations

import time
from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition
from pydantic import ValidationError

from feedback.harm import Judged, Trial
from serving.release import Rollout
from streams import topics
from streams.events import ANSWERS, Metric
from streams.kafka import Kafka


def judged(kafka: Kafka, version: int, live: int, rollout: Rollout, since: float, is_over: Callable[[], bool]) -> Trial:
    """Follow the metrics from `since` (Unix s) on, until there is evidence of harm, enough answers of `version` are judged, the deadline
    has come and what was there by then is read, or `is_over`.
    """
    trial = Trial()
    metrics = KafkaConsumer(**kafka.kafka_python(), enable_auto_commit=False, isolation_level="read_committed")
    try:
        place = TopicPartition(kafka.prefix + topics.METRICS, 0)
        metrics.assign([place])
        found, end = metrics.offsets_for_times({place: int(since * 1000)})[place], metrics.end_offsets([place])[place]
        metrics.seek(place, found.offset if found else end)
        deadline = since + rollout.deadline_s
        while (time.time() < deadline or metrics.position(place) < end) and trial.judged < rollout.judged:
            if trial.is_harmful or is_over():
                break
            for records in metrics.poll(timeout_ms=300).values():
                for record in records:
                    of, answers = judged_in(record.value)
                    trial.add(answers if of == version else [], answers if of == live else [])
    finally:
        metrics.close()
    return trial


def judged_in(value: bytes) -> tuple[int, list[Judged]]:
    """A version and its judged answers; none where the record is about something else, or cannot be read (the monitor buries it)."""
    try:
        metric = Metric.model_validate_json(value or b"")
    except ValidationError:
        return 0, []
    if metric.signal != ANSWERS:
        return 0, []
    columns = metric.users or (), metric.ndcgs, metric.recalls, metric.degraded or ()
    return metric.version, [Judged(*values) for values in zip(*columns, strict=False)]
