"""Another number of partitions for the timeline and the online state, and nothing lost or counted twice.

A user's partition is a hash by the number of partitions, so another number moves users. While no worker runs:

1. Every partition of the timeline is read as the fold reads it, what counts nothing left out, and all of them are merged by the
   time they were appended, which keeps each user's order, into a file. Ingest may have stopped between two partitions: what it had
   written for some users but not for others of the same stretch of an input is taken from the input.
2. Timeline and online state are deleted, created with the new number, and the timeline is written from the file. A record keeps
   its source, but under a partition that stands for where it was, so that the fence is exact; at the end of each new partition a
   `Moved` record gives the fences of the real inputs.
3. The state is folded from it and written, as `headrace state rebuild` and `restore` would.

The file is whole before anything is deleted, and the command may be repeated with it from there.
"""

from __future__ import annotations

import gzip
import heapq
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from infra import state
from infra.provisioning import existing, provision
from learners.online import Memory
from streams import topics
from streams.ingest import Refused, ingest
from streams.kafka import Kafka
from streams.once import FRESH, Once
from streams.timeline import Fact, Moved, Source, decode, encode, user_of
from streams.topics import partition_of

STAMP = 1_000_000  # partitions from here on stand for (former timeline partition, input partition)
_frame = struct.Struct(">I")
_pack = msgspec.msgpack.Encoder().encode


class End(msgspec.Struct):
    """The last frame of a file: how many records it holds, the fences, and the timeline's ends as they were."""

    records: int
    fences: dict[str, int]
    ends: dict[int, int]


def collect(kafka: Kafka, old: int, file: Path, progress: Callable[[int], None]) -> None:
    """Merge the `old` partitions of the timeline into `file`."""
    onces = [Once() for _ in range(old)]
    stamps: dict[tuple[int, int, int], int] = {}
    partial, done, ends = file.with_suffix(file.suffix + ".partial"), 0, _ends(kafka)

    def fresh(p: int) -> Iterator[tuple[int, int, int, Fact]]:
        for log in state.timeline(kafka, p):
            record = decode(log.value)
            if onces[p].verdict(record) == FRESH and not isinstance(record, Moved):
                yield record.source.appended, p, log.offset, record

    with gzip.open(partial, "wb", compresslevel=1) as out:

        def put(p: int, record: Fact) -> None:
            nonlocal done
            s = record.source
            stamp = stamps.setdefault((p, s.topic, s.partition), STAMP + len(stamps))
            frame = encode(msgspec.structs.replace(record, source=Source(s.topic, stamp, s.offset, s.appended)))
            out.write(_frame.pack(len(frame)) + frame)
            done += 1
            if done % 10_000 == 0:
                progress(done)

        for _, p, _, record in heapq.merge(*(fresh(p) for p in range(old)), key=lambda entry: entry[:3]):
            put(p, record)
        fences: dict[str, int] = {}
        for once in onces:
            for name, offset in once.fences.items():
                fences[name] = max(offset, fences.get(name, -1))
        for record in _begun(kafka, fences):
            p = partition_of(user_of(record), old)
            if onces[p].verdict(record) == FRESH:
                put(p, record)
        end = _pack(End(done, {name: offset for name, offset in fences.items() if int(name.split("/")[1]) < STAMP}, ends))
        out.write(_frame.pack(0) + _frame.pack(len(end)) + end)
    progress(done)
    with open(partial, "rb") as written:
        os.fsync(written.fileno())  # what it is the only copy of is deleted next
    partial.rename(file)


def _ends(kafka: Kafka) -> dict[int, int]:
    """Partition of the timeline -> its next offset."""
    consumer = KafkaConsumer(**kafka.kafka_python())
    try:
        name = kafka.prefix + topics.TIMELINE
        places = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name) or ()]
        return {place.partition: end for place, end in consumer.end_offsets(places).items()} if places else {}
    finally:
        consumer.close()


def _begun(kafka: Kafka, fences: dict[str, int]) -> Iterator[Fact]:
    """What the inputs hold between where ingest has committed and the furthest that it wrote of."""
    consumer = Consumer(
        kafka.confluent() | {"group.id": f"{kafka.prefix}ingest", "enable.auto.commit": False, "auto.offset.reset": "error"}
    )
    try:
        for number, name in enumerate(topics.READ):
            there = consumer.list_topics(kafka.prefix + name, timeout=10).topics[kafka.prefix + name].partitions
            for partition in there:
                furthest = fences.get(f"{number}/{partition}", -1)
                place = consumer.committed([Place(kafka.prefix + name, partition)], timeout=10)[0]
                first = max(place.offset, consumer.get_watermark_offsets(place, timeout=10)[0])
                if first <= furthest:
                    yield from _read(consumer, number, Place(place.topic, partition, first), furthest)
    finally:
        consumer.close()


def _read(consumer: Consumer, number: int, place: Place, last: int) -> Iterator[Fact]:
    consumer.assign([place])
    at = place.offset
    while at <= last:
        for message in consumer.consume(1_000, 1.0):
            if message.error() is not None:
                raise KafkaException(message.error())
            at = (message.offset() or 0) + 1
            if at > last + 1:
                return
            headers: Any = message.headers() or []
            try:
                record = ingest(number, place.partition, at - 1, message.timestamp()[1], message.key(), message.value(), headers)
            except Refused:  # ingest says so again, when it goes on from where it has committed
                continue
            if record is not None:
                yield record


def read(file: Path) -> Iterator[bytes | End]:
    """The records of a file, encoded, and last its end. Raises `Unfit` where it is not whole."""
    try:
        with gzip.open(file, "rb") as text:
            while size := _frame.unpack(text.read(_frame.size))[0]:
                yield text.read(size)
            yield msgspec.msgpack.decode(text.read(_frame.unpack(text.read(_frame.size))[0]), type=End)
    except (OSError, EOFError, struct.error, msgspec.DecodeError) as error:
        raise state.Unfit(f"{file} is no timeline, or not a whole one: {error}") from None


def renew(kafka: Kafka) -> None:
    """Delete timeline and online state, and create them with the number of partitions that `kafka` says."""
    admin, names = KafkaAdminClient(**kafka.kafka_python()), (topics.TIMELINE, topics.ONLINE_STATE)
    try:
        there = [kafka.prefix + name for name in names if name in existing(kafka)]
        if there:
            admin.delete_topics(there)
        state.wait(lambda: not any(name in existing(kafka) for name in names))
    finally:
        admin.close()
    state.wait(lambda: all(name in provision(kafka) or existing(kafka).get(name) == kafka.partitions for name in names))


def write(kafka: Kafka, file: Path, progress: Callable[[int], None]) -> None:
    """Write the timeline from `file`. Raises `Unfit` where not all of it is acknowledged."""
    producer = Producer(kafka.confluent() | {"enable.idempotence": True, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    failed, done, last, topic = list[str](), 0, 0, kafka.prefix + topics.TIMELINE

    def told(error: Any, message: Any) -> None:
        if error is not None:
            failed.append(str(error))

    def put(partition: int, key: bytes | None, value: bytes) -> None:
        while True:
            try:
                producer.produce(topic, value, key=key, partition=partition, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.5)
        producer.poll(0)

    for frame in read(file):
        if isinstance(frame, End):
            moved = encode(Moved(Source(len(topics.READ), 0, 0, last), frame.fences))
            for partition in range(kafka.partitions):
                put(partition, None, moved)
            if frame.records != done:
                raise state.Unfit(f"{file} is not whole: {done} of {frame.records} records")
        else:
            record = decode(frame)
            assert not isinstance(record, Moved), "collect left them out"
            last, user, done = max(last, record.source.appended), user_of(record), done + 1
            put(partition_of(user, kafka.partitions), user.encode(), frame)
            if done % 10_000 == 0:
                progress(done)
    if producer.flush(60) or failed:
        raise state.Unfit(f"not all of the timeline is written ({failed[:1]}): run this again, {file} holds all of it")
    progress(done)


def repartition(kafka: Kafka, memory: Memory, file: Path, say: Callable[[str], None]) -> dict[int, state.State]:
    """All of it; `kafka.partitions` is the new number. Returns the states."""

    def told(what: str) -> Callable[[int], None]:
        return lambda done: say(f"{done} records {what}")

    state.refuse_unless_idle(kafka)
    old = existing(kafka).get(topics.TIMELINE)
    if not file.exists():
        if old is None:
            raise state.Unfit("there is no timeline here")
        if old == kafka.partitions:
            raise state.Unfit(f"the timeline has {old} partitions: set kafka.partitions to another number")
        collect(kafka, old, file, told("collected"))
    end = next(frame for frame in read(file) if isinstance(frame, End))
    now, begun = _ends(kafka), old == kafka.partitions  # begun: timeline and state are, at most, what this file makes of them
    if old is not None and (sum(now.values()) > end.records + kafka.partitions if begun else now != end.ends):
        raise state.Unfit(f"the timeline has gone on since {file} was written: name another file")
    renew(kafka)
    write(kafka, file, told("written"))
    states = state.rebuild(kafka, memory, state.Bound(), told("folded"))
    state.write(kafka, states)
    file.rename(file.with_suffix(file.suffix + ".done"))
    return states
