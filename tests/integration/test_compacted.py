"""A state comes back as it was committed: no more, no less, and of several the first after its share of the time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams import compacted
from streams.kafka import Kafka
from tests.integration.conftest import Running, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture
def place(stack: Running) -> str:
    """A topic of two partitions."""
    name = f"{stack.kafka.prefix}test-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(stack.kafka.confluent())
    for made in admin.create_topics([NewTopic(name, 2, 1)]).values():
        made.result(20)
    return name


def write(
    kafka: Kafka, topic: str, keys: range, end: Callable[[Producer], object] = Producer.commit_transaction, partition: int = 0
) -> None:
    """One transaction of small records, ended as `end` says."""
    producer = Producer(kafka.confluent() | {"transactional.id": uuid.uuid4().hex})
    producer.init_transactions(20)
    producer.begin_transaction()
    for n in keys:
        producer.produce(topic, b"v%d" % n, key=b"%d" % n, partition=partition)
    producer.flush(20)
    end(producer)


def read(kafka: Kafka, topic: str, offset: int = 0, partition: int = 0) -> list[tuple[int, bytes | None]]:
    got: list[tuple[int, bytes | None]] = []
    asyncio.run(
        compacted.read(
            kafka, (topic, partition, offset), asyncio.Lock(), lambda batch: got.extend((m.offset() or 0, m.key()) for m in batch)
        )
    )
    return got


def test_what_was_committed_is_read_and_what_was_aborted_is_not(stack: Running, place: str) -> None:
    write(stack.kafka, place, range(3000))  # offsets 0..2999, a marker
    write(stack.kafka, place, range(10), Producer.abort_transaction)  # 3001..3010, a marker
    write(stack.kafka, place, range(5))  # 3012..3016, a marker
    whole = [(n, b"%d" % n) for n in range(3000)] + [(3012 + n, b"%d" % n) for n in range(5)]
    assert read(stack.kafka, place) == whole
    assert read(stack.kafka, place, 2998) == whole[2998:]
    assert read(stack.kafka, place, 3017) == []
    write(stack.kafka, place, range(10), Producer.abort_transaction)
    assert read(stack.kafka, place, 3012) == whole[3000:]


def test_an_empty_partition_has_an_end_too(stack: Running, place: str) -> None:
    assert read(stack.kafka, place) == []


def test_an_open_transaction_ends_it_there(stack: Running, place: str) -> None:
    write(stack.kafka, place, range(4))
    opened: list[Producer] = []
    write(stack.kafka, place, range(4, 8), opened.append)
    assert [key for _, key in read(stack.kafka, place)] == [b"0", b"1", b"2", b"3"]
    opened[0].abort_transaction()


def test_one_after_the_other_and_one_that_waits_holds_nobody_up(stack: Running, place: str) -> None:
    for partition in (0, 1):
        write(stack.kafka, place, range(6000), partition=partition)
    until(lambda: all(len(read(stack.kafka, place, partition=partition)) == 6000 for partition in (0, 1)), timeout=20)  # markers come later
    order: list[str] = []

    async def both() -> None:
        turn = asyncio.Lock()
        missing = asyncio.create_task(compacted.read(stack.kafka, (f"{place}-missing", 0, 0), turn, lambda batch: order.append("missing")))
        await asyncio.sleep(0)  # it has the turn
        await asyncio.gather(
            compacted.read(stack.kafka, (place, 0, 0), turn, lambda batch: order.append("first")),
            compacted.read(stack.kafka, (place, 1, 0), turn, lambda batch: order.append("second")),
        )
        assert not missing.done()
        missing.cancel()

    asyncio.run(both())
    assert set(order) == {"first", "second"} and len(order) >= 12
    assert order == sorted(order)
