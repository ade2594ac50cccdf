"""Every topic of the bus: its name, its partitions, how long it keeps what.

Topics are created by us and never by a client's first use; a count that differs stops the start with the command that
mends it (docs/streams.md has the table of who writes and who reads).
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from streams.kafka import Kafka

DAY = 86_400_000  # ms

INTERACTIONS = "interactions.v1"
FEEDBACK = "feedback.v1"
ITEMS = "items.v1"
ERASURES = "erasures.v1"
RECOMMENDATIONS = "recommendations.v1"
TIMELINE = "timeline.v1"
ONLINE_STATE = "online-state.v1"
METRICS = "metrics.v1"
MONITOR_STATE = "monitor-state.v1"
DRIFT_ALERTS = "drift-alerts.v1"
RETRAINING_REQUESTS = "retraining-requests.v1"
RELEASES = "releases.v1"

# What ingest reads, in the order that numbers them in a timeline record: append only.
INPUTS = (INTERACTIONS, FEEDBACK, ERASURES, RECOMMENDATIONS)
READ = (*INPUTS, ITEMS)  # ingest also looks at the catalogue, for its dead letters; nothing of it enters the timeline

_APPENDED = {"message.timestamp.type": "LogAppendTime"}  # what a producer says the time is goes into `at`
_OURS = _APPENDED | {"max.message.bytes": str(5 << 20)}  # above the batches we write (partition.MAX_BATCH)
_KEEP_DAYS = _OURS | {"cleanup.policy": "delete", "retention.ms": str(14 * DAY)}
_KEEP_LONG = _OURS | {"cleanup.policy": "delete", "retention.ms": "-1"}
# Bigger than what a producer may send by default (1 MiB), so that an oversized value reaches our dead letters with its
# reason instead of stopping the producer; smaller than the batch ingest writes (4 MiB).
_INPUT = {"max.message.bytes": str(3 << 19)}
# The active segment is never compacted: small segments keep a restart's catch-up short (measured: 14 s -> 1.5 s).
_COMPACT = _OURS | {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": "30000",
}


@dataclass(frozen=True)
class Topic:
    """A topic of ours: `name` without the prefix, `partitions` wanted, broker settings."""

    name: str
    partitions: int
    config: dict[str, str]
    any_count: bool = False  # users' producers may have created it with another count; that is fine


def topics(kafka: Kafka) -> list[Topic]:
    """Every topic that has to exist, dead letters included."""
    many = kafka.partitions
    listed = [
        Topic(INTERACTIONS, many, _KEEP_DAYS | _INPUT, any_count=True),
        Topic(FEEDBACK, many, _KEEP_DAYS | _INPUT, any_count=True),
        Topic(ERASURES, 1, _KEEP_LONG | _INPUT, any_count=True),
        Topic(RECOMMENDATIONS, many, _KEEP_DAYS | _INPUT, any_count=True),
        Topic(ITEMS, 1, _COMPACT, any_count=True),
        Topic(TIMELINE, many, _KEEP_LONG),
        Topic(ONLINE_STATE, many, _COMPACT),
        Topic(METRICS, 1, _KEEP_DAYS),
        Topic(MONITOR_STATE, 1, _COMPACT),
        Topic(DRIFT_ALERTS, 1, _KEEP_LONG),
        Topic(RETRAINING_REQUESTS, 1, _KEEP_LONG),
        Topic(RELEASES, 1, _KEEP_LONG),
    ]
    letters = [*INPUTS, ITEMS, TIMELINE, METRICS, RETRAINING_REQUESTS, RELEASES]
    return listed + [Topic(dead_letters(name), 1, _KEEP_LONG) for name in letters]


def dead_letters(name: str) -> str:
    """The topic where unreadable records of topic `name` go."""
    return f"{name}.dlq"


def partition_of(user: str, partitions: int) -> int:
    """The timeline partition that owns `user`: our own hash, so producers may use any client and partitioner."""
    return crc32(user.encode()) % partitions


class WrongTopic(Exception):
    """A topic is missing or has another partition count than it must; the text has the command that mends it."""


def check(kafka: Kafka, there: dict[str, int]) -> None:
    """Raise `WrongTopic` where an existing topic of ours has another partition count than it must."""
    wrong = [topic for topic in topics(kafka) if _is_wrong(topic, there)]
    if wrong:
        lines = [f"topic {kafka.prefix}{t.name} has {there[t.name]} partitions, it must have {t.partitions}" for t in wrong]
        first = wrong[0]
        raise WrongTopic(
            "; ".join(lines)
            + f". Set kafka.partitions to {there[first.name]}, or stop workers, trainer and Triton and run"
            + " `headrace state repartition FILE`, or, to begin anew, delete the topic"
            + f" (`kafka-topics.sh --bootstrap-server {kafka.bootstrap} --delete --topic {kafka.prefix}{first.name}`)"
            + " and run `headrace topics --create`"
        )


def _is_wrong(topic: Topic, there: dict[str, int]) -> bool:
    return topic.name in there and not topic.any_count and there[topic.name] != topic.partitions
