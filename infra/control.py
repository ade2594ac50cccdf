"""Control records, read and written for the command line: releases, requests, dead letters, topics (kafka-python)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from serving.release import Releases
from streams import topics
from streams.events import Event, Release, RetrainingRequest, to_bytes, utc
from streams.ingest import Refused, item
from streams.kafka import Kafka
from streams.standing import POSITION, Standing

OURS = "headrace.error."


def read(kafka: Kafka, name: str) -> Iterator[Any]:
    """Every record of topic `name` that is there now, and none that comes meanwhile: no transaction is read by half."""
    consumer = KafkaConsumer(
        **kafka.kafka_python(), enable_auto_commit=False, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    try:
        places = [TopicPartition(kafka.prefix + name, p) for p in sorted(consumer.partitions_for_topic(kafka.prefix + name) or ())]
        consumer.assign(places)
        for place in places:
            consumer.seek_to_beginning(place)
        ends = consumer.end_offsets(places) if places else {}
        behind = {place for place in places if consumer.position(place) < ends[place]}
        while behind:
            for place, records in consumer.poll(timeout_ms=500).items():
                yield from (record for record in records if record.offset < ends[place])
            behind = {place for place in behind if consumer.position(place) < ends[place]}
    finally:
        consumer.close()


def latest(kafka: Kafka, name: str) -> dict[int, dict[bytes, bytes]]:
    """Partition -> key -> last value, of a compacted topic; a tombstone is no record."""
    found: dict[int, dict[bytes, bytes | None]] = {}
    for record in read(kafka, name):
        found.setdefault(record.partition, {})[record.key] = record.value
    return {p: {k: v for k, v in records.items() if v is not None} for p, records in found.items()}


def send(
    kafka: Kafka, name: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]] | None = None
) -> tuple[int, int]:
    """Write one record; returns (partition, offset) once it is acknowledged."""
    producer = KafkaProducer(**kafka.kafka_python(), acks="all")
    try:
        sent = producer.send(kafka.prefix + name, key=key, value=value, headers=headers or []).get(timeout=10)
        return sent.partition, sent.offset
    finally:
        producer.close(timeout=5)


def announce(kafka: Kafka, name: str, event: Event, key: str) -> tuple[int, int]:
    return send(kafka, name, key.encode(), to_bytes(event))


def request_retraining(kafka: Kafka) -> RetrainingRequest:
    """A manual request on the bus; the trainer answers with release records that carry its id."""
    request = RetrainingRequest(id=f"manual-{uuid4().hex[:12]}", reason="manual", at=utc(time.time()))
    announce(kafka, topics.RETRAINING_REQUESTS, request, request.model)
    return request


def releases(kafka: Kafka) -> tuple[Releases, list[Release]]:
    """The fold of the release topic, and the records that counted."""
    fold, records = Releases(), []
    for record in read(kafka, topics.RELEASES):
        try:
            release = Release.model_validate_json(record.value or b"")
        except ValueError:
            continue
        if release.apply_to(fold) is None:
            records.append(release)
    return fold, records


def since(records: Sequence[Release]) -> dict[int, datetime]:
    """When each version came to the stage it is at; a version is superseded by another one's record."""
    fold, found = Releases(), dict[int, datetime]()
    for record in records:
        before = dict(fold.stages)
        record.apply_to(fold)
        found.update({version: record.at for version, stage in fold.stages.items() if before.get(version) != stage})
    return found


def move(kafka: Kafka, version: int, stage: str) -> str | None:
    """Promote (`live`), roll back (`rolled_back`), pin or freeze (`frozen`, version 0) or thaw by a record.

    Returns why not, where it is not allowed.
    """
    fold, _ = releases(kafka)
    refused = fold.apply(version, stage)
    if refused is None:
        release = Release(id=f"operator-{uuid4().hex[:12]}", version=version, stage=stage, reason="operator", at=utc(time.time()))  # type: ignore[arg-type] # those above
        announce(kafka, topics.RELEASES, release, release.model)
    return refused


def letters(kafka: Kafka) -> list[dict[str, Any]]:
    """All dead letters, each once: id (`topic/partition/offset` of the refused record), reason, detail, tries, value."""
    found: dict[str, dict[str, Any]] = {}
    for topic in [t for t in topics.topics(kafka) if t.name.endswith(".dlq")]:
        for record in read(kafka, topic.name):
            why = {k[len(OURS) :]: v.decode("utf-8", "replace") for k, v in record.headers if k.startswith(OURS)}
            origin = why.get("topic", "").removeprefix(kafka.prefix)
            id = f"{origin}/{why.get('partition')}/{why.get('offset')}"
            found.setdefault(
                id,
                {
                    "id": id,
                    "topic": origin,
                    "reason": why.get("reason"),
                    "detail": why.get("detail"),
                    "tries": int(why.get("tries", 0)),
                    "at": utc(record.timestamp / 1000).isoformat(),
                    "key": record.key,
                    "value": record.value,
                    "headers": [(k, v) for k, v in record.headers if not k.startswith(OURS)],
                },
            )
    return list(found.values())


def retry(kafka: Kafka, letter: dict[str, Any], mended: bytes | None = None) -> tuple[int, int]:
    """Send a dead letter again, `mended` or as it was, to the topic that it came from."""
    value = letter["value"] if mended is None else mended
    headers = [*letter["headers"], (f"{OURS}tries", str(letter["tries"] + 1).encode())]
    key = letter["key"] or None
    if letter["reason"] == "key_contradicts":
        key = None  # the value names the user
    return send(kafka, letter["topic"], key, value, headers)


def titles(kafka: Kafka) -> dict[str, str]:
    """Item -> title, of the catalogue as it stands; entries that are dead letters do not count."""
    found = {}
    for record in read(kafka, topics.ITEMS):
        try:
            found[(record.key or b"").decode("utf-8", "replace")] = (item(record.key, record.value).title or "") if record.value else ""
        except Refused:
            continue
    return found


def standings(kafka: Kafka) -> dict[int, Standing]:
    """Where each partition's state stands, by the state topic."""
    found = {}
    for record in read(kafka, topics.ONLINE_STATE):
        if record.key == POSITION:
            found[record.partition] = Standing.load(record.value)
    return found


def records_in(kafka: Kafka, name: str) -> int:
    """How many records topic `name` holds, all partitions together (not for transactional or compacted ones)."""
    consumer = KafkaConsumer(**kafka.kafka_python())
    try:
        places = [TopicPartition(kafka.prefix + name, p) for p in consumer.partitions_for_topic(kafka.prefix + name) or ()]
        return sum(consumer.end_offsets(places).values()) - sum(consumer.beginning_offsets(places).values()) if places else 0
    finally:
        consumer.close()
