"""Creates the topics and checks those that are there: a wrong partition count stops the start with its remedy."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from streams.kafka import Kafka
from streams.topics import check, topics


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
