"""Hostile input: golden events, mutated; whatever comes of it is a record or a reason, and the fold takes every record.

A few thousand in every run, a million in `make chaos`, where some also go through a broker and a worker. Mutations are of bytes and
of meaning, all from a seed.
"""

from __future__ import annotations

import json
import random
import re
import resource
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from feedback.policy import Policy
from infra import control
from infra.bootstrap import ROOT
from serving.release import Releases
from streams import topics
from streams.events import PUBLIC, Release
from streams.fold import Fold, Log
from streams.ingest import Refused, ingest
from streams.kafka import Kafka
from streams.monitor import Monitor
from streams.timeline import encode
from tests.chaos.cluster import prepare, wait
from tests.integration.conftest import lacking

GOLDEN = {name: (ROOT / "tests" / "golden" / f"{name}.json").read_bytes() for name in (*PUBLIC, topics.RECOMMENDATIONS)}
APPENDED = 1_900_000_000_000  # ms; later than every golden `at`
TOKENS: list[Any] = [
    None, True, -1, 0, 1 << 53, 1 << 63, 1 << 200, 1e308, -0.0, "", " ", "\x00", "\u202e", "a" * 257, "a" * 70_000, [], {}, [[[]]], [None],
    {"": {}}, "NaN", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00", "2026-13-45T99:99:99Z", "\ud83d\ude00", ["a"] * 2_000, "AAAA",
]  # fmt: skip
RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"[" * 3_000, b'{"a":' * 1_000, b"1" * 5_000]


def bytewise(rng: random.Random, value: bytes) -> bytes:
    """Flip, cut, insert or double some bytes."""
    place = rng.randrange(len(value) + 1)
    match rng.randrange(5):
        case 0:
            return value[:place]
        case 1:
            return value[:place] + bytes([rng.randrange(256)]) + value[place + 1 :]
        case 2:
            return value[:place] + rng.choice(RAW) + value[place:]
        case 3:
            return value[:place] + value[place // 2 :]
        case _:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))


def by_meaning(rng: random.Random, value: bytes) -> bytes:
    """Give a name another value, another name, or none; keep it JSON."""
    event = json.loads(value)
    name = rng.choice(list(event))
    match rng.randrange(4):
        case 0:
            event[name] = rng.choice(TOKENS)
        case 1:
            del event[name]
        case 2:
            event[rng.choice(["itme", "", "__class__", "\x00", "user "])] = rng.choice(TOKENS)
        case _:
            event = rng.choice([*TOKENS, [event], {"event": event}])
    return json.dumps(event).encode("utf-8", "surrogatepass")


def mutated(rng: random.Random, name: str, number: int) -> tuple[bytes, bool]:
    """(a message for topic `name`, it is the golden one but for its id)."""
    value = GOLDEN[name]
    if rng.random() < 0.2:
        event = json.loads(value)
        if "id" in event:
            event["id"] = f"valid-{number}"
        return json.dumps(event).encode(), True
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        try:
            value = rng.choice((bytewise, by_meaning))(rng, value) or b"{}"
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError):  # it is no JSON object any more
            value = bytewise(rng, value) or b"{}"
    return value, False


def attack(messages: int, seed: int) -> dict[str, Counter[str]]:
    """Send `messages` through ingest and fold, monitor and releases; topic -> what came of them. Raises whatever they raise."""
    rng, came = random.Random(seed), dict[str, Counter[str]]()
    fold, monitor, releases = Fold(0, 1), Monitor(Policy()), Releases()
    for number in range(messages):
        name = rng.choice(list(GOLDEN))
        value, valid = mutated(rng, name, number)
        counted = came.setdefault(name, Counter())
        counted["valid"] += valid
        log = Log(number, APPENDED + number, b"", value)
        if name in topics.READ:
            counted[_through_ingest(fold, topics.READ.index(name), log, valid)] += 1
        elif name == topics.METRICS:
            letters = [output for output in monitor.fold([log]).outputs if output.topic.endswith(".dlq")]
            counted["letter" if letters else "taken"] += 1
            assert len(letters) <= 1 and not (valid and letters), value
        else:
            counted[_as_public(releases, name, value, valid)] += 1
    return came


def _through_ingest(fold: Fold, topic: int, log: Log, valid: bool) -> str:
    key = json.loads(GOLDEN[topics.ITEMS])["item"].encode() if topics.READ[topic] == topics.ITEMS else None
    try:
        record = ingest(topic, 0, log.offset, log.timestamp, key, log.value, [])
    except Refused as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert not valid, (log.value, refused)
        assert refused.reason and refused.detail
        return "letter"
    if record is not None:
        before = fold.standing.counts.get("folded", 0) + fold.standing.counts.get("duplicates", 0)
        fold.fold([log._replace(value=encode(record))])
        assert fold.standing.counts.get("folded", 0) + fold.standing.counts.get("duplicates", 0) == before + 1
    return "taken"


def _as_public(releases: Releases, name: str, value: bytes, valid: bool) -> str:
    try:
        event = PUBLIC[name].model_validate_json(value)
    except ValueError:
        assert not valid, value
        return "letter"
    if isinstance(event, Release):
        event.apply_to(releases)
    return "taken"


def check(came: dict[str, Counter[str]], messages: int) -> None:
    assert came.keys() == GOLDEN.keys()
    assert sum(counted["taken"] + counted["letter"] for counted in came.values()) == messages
    for name, counted in came.items():
        assert counted["letter"] > counted["taken"] * 0.3, (name, counted)
        assert counted["taken"] >= counted["valid"] > 0, (name, counted)


def test_a_few_thousand_hostile_messages_are_records_or_reasons() -> None:
    check(attack(5_000, seed=1), 5_000)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_a_million_hostile_messages_are_records_or_reasons_and_memory_stays(seed: int) -> None:
    check(attack(20_000, seed=100 + seed), 20_000)  # caches are full now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(attack(250_000, seed=seed), 250_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


@pytest.mark.chaos
@pytest.mark.stack
@pytest.mark.timeout(900)
@pytest.mark.skipif(lacking() is not None, reason=str(lacking()))
def test_hostile_messages_through_a_broker_are_records_or_dead_letters_and_the_worker_stays(tmp_path: Path) -> None:
    cluster = prepare(tmp_path, workers=1, partitions=2)
    try:
        pid, before, sent = cluster.workers["worker-0"].pid, 0, Counter[str]()
        for seed, messages in ((1, 20_000), (2, 200_000)):
            sent += throw(cluster.kafka, messages, seed)
            wait(partial(is_taken, cluster.kafka, sent), 300, 1.0)
            memory = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
            before = before or memory
        assert cluster.workers["worker-0"].poll() is None and memory - before < 50 << 10  # KiB
        assert sent["folded"] > 20_000 and all(sent[name] > 2_000 for name in topics.READ)
    finally:
        cluster.close()


def throw(kafka: Kafka, messages: int, seed: int) -> Counter[str]:
    """Send the messages; returns how many must be folded, and how many of each topic must be dead letters."""
    rng, came = random.Random(seed), Counter[str]()
    producer = Producer(kafka.confluent() | {"linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number in range(messages):
        name = rng.choice(list(GOLDEN))
        value, _ = mutated(rng, name, seed * messages + number)
        key = json.loads(GOLDEN[topics.ITEMS])["item"].encode() if name == topics.ITEMS else None
        producer.produce(kafka.prefix + name, value, key=key)
        producer.poll(0)
        if name in topics.READ:
            try:
                came["folded"] += ingest(topics.READ.index(name), 0, number, int(time.time() * 1000), key, value, []) is not None
            except Refused:
                came[name] += 1
    assert producer.flush(60) == 0
    return came


def is_taken(kafka: Kafka, sent: Counter[str]) -> bool:
    """Has the worker made of them what had to be made?"""
    came = Counter({name: control.records_in(kafka, topics.dead_letters(name)) for name in topics.READ})
    for standing in control.standings(kafka).values():
        came["folded"] += standing.counts.get("folded", 0) + standing.counts.get("duplicates", 0)
    return came == sent
