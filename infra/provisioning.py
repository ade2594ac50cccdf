"""Creates the topics and checks those that are there: a wrong partition count stops the start with its remedy."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from streams.kafka import Kafka
from streams.topics import Topic, topics


class WrongTopic(Exception):
    """A topic is missing or has another partition count than it must; the text has the command that mends it."""


def existing(kafka: Kafka) -> dict[str, int]:
    """Name without prefix -> partition count, of the topics that carry our prefix."""
    admin = KafkaAdminClient(**kafka.kafka_python())
    try:
        found = admin.describe_topics()
    finally:
        admin.close()
    return {t["name"][len(kafka.prefix) :]: len(t["partitions"]) for t in found if t["name"].startswith(kafka.prefix)}


def provision(kafka: Kafka) -> list[str]:
    """Create what is missing; returns the names created. Raises `WrongTopic` for what has the wrong count."""
    there = existing(kafka)
    check(kafka, there)
    missing = [topic for topic in topics(kafka) if topic.name not in there]
    admin = KafkaAdminClient(**kafka.kafka_python())
    try:
        for topic in missing:
            try:
                admin.create_topics([NewTopic(kafka.prefix + topic.name, topic.partitions, kafka.replication, topic_configs=topic.config)])
            except TopicAlreadyExistsError:  # another worker was quicker
                continue
    finally:
        admin.close()
    return [topic.name for topic in missing]


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
