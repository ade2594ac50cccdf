"""The online state as it is committed, as the timeline says it must be, and as a file. All three carry the same hash.

A file is a gzip of frames (length as 4 bytes, big-endian, then msgpack): a header, then (partition, key, value) of every record.
"""

from __future__ import annotations

import gzip
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka import KafkaAdminClient, KafkaProducer

from infra import control
from learners.online import Memory
from streams import topics
from streams.fold import Fold, Log, shape
from streams.kafka import Kafka
from streams.standing import FORMAT, POSITION, Standing

State = dict[bytes, bytes]  # key -> value of one partition, its position among them
BATCH = 500
_frame = struct.Struct(">I")
_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(tuple[int, bytes, bytes]).decode


class Unfit(Exception):
    """A state that cannot be taken; the text says why and what to do."""


class Header(msgspec.Struct):
    """Of a file: what wrote it, and the timeline offsets that it stands at."""

    format: int
    shape: str
    partitions: int
    positions: dict[int, int]


@dataclass
class Bound:
    """Where a rebuild stops: before `offsets[partition]`, or before the first record appended after `until_ms`."""

    offsets: dict[int, int] | None = None
    until_ms: int | None = None

    def holds(self, partition: int, log: Log) -> bool:
        if self.offsets is not None and log.offset >= self.offsets.get(partition, 0):
            return False
        return self.until_ms is None or log.timestamp <= self.until_ms


def committed(kafka: Kafka) -> dict[int, State]:
    """What the workers have committed, by the state topic."""
    return {p: {} for p in range(kafka.partitions)} | control.latest(kafka, topics.ONLINE_STATE)


def timeline(kafka: Kafka, partition: int) -> Iterator[Log]:
    """Every record of one partition of the timeline that is there now."""
    consumer = Consumer(kafka.confluent() | {"group.id": f"{kafka.prefix}state", "enable.auto.commit": False, "auto.offset.reset": "error"})
    try:
        place = TopicPartition(kafka.prefix + topics.TIMELINE, partition)
        first, end = consumer.get_watermark_offsets(place, timeout=10)
        consumer.assign([TopicPartition(place.topic, partition, first)])
        while first < end:
            for message in consumer.consume(5_000, 1.0):
                if message.error() is not None:
                    raise KafkaException(message.error())
                first = (message.offset() or 0) + 1
                if first > end:
                    break
                yield Log(first - 1, message.timestamp()[1], message.key(), message.value() or b"")
    finally:
        consumer.close()


def rebuild(kafka: Kafka, memory: Memory, bound: Bound, progress: Callable[[int], None] = lambda done: None) -> dict[int, State]:
    """Fold the timeline from its beginning, up to `bound`, and emit nothing; without the records that are dead letters."""
    bad = {tuple(letter["id"].rsplit("/", 2)[1:]) for letter in control.letters(kafka) if letter["topic"] == topics.TIMELINE}
    states, done = dict[int, State](), 0
    for p in range(kafka.partitions):
        fold, state, skip = Fold(p, kafka.partitions, memory), dict[bytes, bytes | None](), {int(o) for at, o in bad if int(at) == p}
        logs = takewhile(partial(bound.holds, p), timeline(kafka, p))
        while batch := list(islice(logs, BATCH)):
            state.update(fold.fold(batch, skip).touched)
            key, value = fold.position(batch[-1].offset + 1, batch[-1].timestamp)
            state[key] = value
            done += len(batch)
            progress(done)
        states[p] = {k: v for k, v in state.items() if v is not None}
    return states


def positions(states: dict[int, State]) -> dict[int, int]:
    """Timeline offset that each partition's state stands at."""
    return {p: Standing.load(state[POSITION]).next for p, state in states.items() if POSITION in state}


def digest(state: State) -> str:
    """Hash of one partition's state. Left out is `as_of`, the one fact that is about the clock and not about the timeline."""
    found = blake2b(digest_size=8)
    for key in sorted(state):
        value = state[key]
        if key == POSITION:
            standing = Standing.load(value)
            standing.as_of = 0
            value = standing.dump()
        found.update(_frame.pack(len(key)) + key + _frame.pack(len(value)) + value)
    return found.hexdigest()


# --- file ----------------------------------------------------------------------------------------------------------------
def save(states: dict[int, State], file: Path, kafka: Kafka, memory: Memory) -> None:
    with gzip.open(file, "wb", compresslevel=3) as out:
        for frame in (
            msgspec.msgpack.encode(Header(FORMAT, shape(kafka.partitions, memory), kafka.partitions, positions(states))),
            *_frames(states),
        ):
            out.write(_frame.pack(len(frame)) + frame)


def _frames(states: dict[int, State]) -> Iterator[bytes]:
    for partition, state in states.items():
        for key, value in state.items():
            yield _pack((partition, key, value))


def load(file: Path) -> tuple[Header, dict[int, State]]:
    """Raises `Unfit` where it is no such file, or not whole."""
    try:
        with gzip.open(file, "rb") as text:
            header = msgspec.msgpack.decode(_read(text) or b"", type=Header)
            states: dict[int, State] = {p: {} for p in range(header.partitions)}
            while (frame := _read(text)) is not None:
                partition, key, value = _unpack(frame)
                states[partition][key] = value
    except (OSError, EOFError, KeyError, msgspec.DecodeError) as error:
        raise Unfit(f"{file} is no state, or not a whole one: {error}") from None
    if positions(states) != header.positions:
        raise Unfit(f"{file} is not whole: it stands at {positions(states)}, its header says {header.positions}")
    return header, states


def _read(text: BinaryIO | gzip.GzipFile) -> bytes | None:
    head = text.read(_frame.size)
    if not head:
        return None
    if len(head) < _frame.size:
        raise EOFError("it ends inside a frame")
    frame = text.read(_frame.unpack(head)[0])
    if len(frame) < _frame.unpack(head)[0]:
        raise EOFError("it ends inside a frame")
    return frame


def restore(kafka: Kafka, memory: Memory, file: Path) -> dict[int, State]:
    """Write the file's state to the empty state topic, one transaction a partition; returns it.

    Whoever starts a worker then goes on from there. Raises `Unfit` where workers run, the topic is not empty, or the file was
    written by another format or partition count.
    """
    header, states = load(file)
    mine = (FORMAT, shape(kafka.partitions, memory), kafka.partitions)
    if (header.format, header.shape, header.partitions) != mine:
        theirs = f"format {header.format}, settings {header.shape}, {header.partitions} partitions"
        raise Unfit(f"{file} has {theirs}; here they are {mine[0]}, {mine[1]}, {mine[2]}: rebuild from the timeline instead")
    refuse_unless_idle(kafka)
    if any(committed(kafka).values()):
        raise Unfit(f"{kafka.prefix}{topics.ONLINE_STATE} holds a state: delete the topic and run `headrace topics --create` first")
    write(kafka, states)
    return states


def write(kafka: Kafka, states: dict[int, State]) -> None:
    """Write the states to their empty topic, and read them back."""
    for partition, state in states.items():
        # The id that a worker's own producer has for this partition: one that still runs is fenced.
        producer = KafkaProducer(
            **kafka.kafka_python(), transactional_id=f"{kafka.prefix}fold-{partition}", transaction_timeout_ms=600_000, linger_ms=20
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            for key, value in sorted(state.items(), key=lambda record: record[0] == POSITION):
                producer.send(kafka.prefix + topics.ONLINE_STATE, key=key, value=value, partition=partition)
            producer.commit_transaction()
        finally:
            producer.close(timeout=5)
    written = committed(kafka)
    wrong = [p for p in states if digest(written[p]) != digest(states[p])]
    if wrong:
        raise Unfit(f"what was written is not what is there, in partitions {wrong}: did a worker start meanwhile?")


def refuse_unless_idle(kafka: Kafka) -> None:
    """Raise `Unfit` while workers run."""
    admin = KafkaAdminClient(**kafka.kafka_python())
    members = 0
    try:
        for group in (f"{kafka.prefix}fold", f"{kafka.prefix}ingest"):
            with suppress(KeyError):
                members += len(admin.describe_groups([group])[group]["members"])
    finally:
        admin.close()
    if members:
        raise Unfit("workers run: stop them first, they would fold beside this (one that was killed leaves its group after 6 s)")


def wait(check: Callable[[], bool], within_s: float = 30) -> None:
    """Until the broker has done what it was asked for: topics are deleted and created behind the answer."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise Unfit(f"the broker has not done it within {within_s:.0f} s: look at its topics, then run this again")
        time.sleep(0.3)
