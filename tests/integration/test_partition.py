"""A partition's commit against a real broker, and the transaction that Kafka forgot to end.

Kafka 4.x leaves out the markers of a decided transaction for partitions that have no leader when a coordinator loads (a broker that
starts): the records hang, until the next marker of the same producer lets them through, whatever it was for.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra import control
from infra.broker import Broker
from streams.fold import Log, Output, Step
from streams.kafka import Kafka
from streams.partition import Partition
from tests.chaos.cluster import wait
from tests.integration.conftest import lacking

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120), pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]

STATE, OUTPUT = "state", "output"


class Numbers:
    """A machine that remembers what it was given."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.state: dict[bytes, bytes | None] = {}
        self.next = 0

    def load(self, key: bytes, value: bytes | None) -> None:
        self.state[key] = value

    def fold(self, records: Sequence[Log], skip: Collection[int] = ()) -> Step:
        raise NotImplementedError

    def position(self, next_offset: int, as_of: int) -> tuple[bytes, bytes]:
        return b"position", b"%d" % next_offset


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker that takes records of a transaction which its coordinator knows nothing of."""
    broker = Broker.prepare(tmp_path / "kafka")
    with open(broker.folder / "server.properties", "a") as settings:
        settings.write("\ntransaction.partition.verification.enable=false\n")
    with open(tmp_path / "log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            wait(broker.answers, 60)
            made = Kafka(broker.bootstrap, prefix="")
            admin = AdminClient(made.confluent())
            for future in admin.create_topics([NewTopic(STATE, 1, 1), NewTopic(OUTPUT, 1, 1)]).values():
                future.result(20)
            yield made
        finally:
            process.kill()


def partition(kafka: Kafka, machine: Any) -> Partition:
    return Partition(kafka, "test", STATE, 0, machine, (OUTPUT,), asyncio.Lock())


def step(value: bytes) -> Step:
    return Step({b"k": value}, [Output(OUTPUT, b"o", value, [])])


def committed(kafka: Kafka, topic: str) -> list[bytes]:
    return [record.value for record in control.read(kafka, topic) if record.key != b"position"]


async def first_then_hung(kafka: Kafka) -> None:
    """A commit, and a transaction of the same partition that hangs."""
    one = partition(kafka, Numbers())
    await one.open()
    await one.commit(1, 0, step(b"first"))
    await one.close()
    producer = AIOKafkaProducer(**kafka.aiokafka(), transactional_id="test-0")
    await producer.start()
    await hang(producer, b"hung")
    await producer.stop()


async def hang(producer: Any, value: bytes) -> None:
    """Records of the producer in both topics, in a transaction that its coordinator does not know."""
    await producer.begin_transaction()
    for topic, key in ((STATE, b"k"), (OUTPUT, b"o")):
        producer._txn_manager._txn_partitions.add(TopicPartition(topic, 0))
        await (await producer.send(topic, partition=0, key=key, value=value))
    producer._txn_manager._txn_partitions.clear()
    await producer.abort_transaction()


def test_what_was_committed_is_there_again_and_no_barrier_is_ever_seen(kafka: Kafka) -> None:
    async def story() -> None:
        one = partition(kafka, Numbers())
        for n in range(3):
            await one.open()
            await one.commit(n, 0, step(b"%d" % n))
        await one.close()
        machine = Numbers()
        await (again := partition(kafka, machine)).open()
        assert machine.state == {b"k": b"2", b"position": b"2"} and again.restored == 6
        await again.close()

    asyncio.run(story())
    assert (committed(kafka, STATE), committed(kafka, OUTPUT)) == ([b"0", b"1", b"2"], [b"0", b"1", b"2"])


def test_a_transaction_that_hangs_is_aborted_before_the_partition_goes_on(kafka: Kafka) -> None:
    async def story() -> None:
        await first_then_hung(kafka)
        machine = Numbers()
        again = partition(kafka, machine)
        await again.open()
        assert machine.state == {b"k": b"first", b"position": b"1"}
        await again.commit(2, 0, step(b"second"))
        await again.close()

    asyncio.run(story())
    assert (committed(kafka, STATE), committed(kafka, OUTPUT)) == ([b"first", b"second"], [b"first", b"second"])


def test_what_hangs_is_aborted_also_where_the_first_who_tries_dies_of_it(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(place: str) -> None:
        if place == "open.barrier_outputs":
            raise ConnectionError(place)

    async def story() -> None:
        await first_then_hung(kafka)
        with monkeypatch.context() as patched:
            patched.setattr("streams.partition.failpoint", dies)
            with pytest.raises(ConnectionError):
                await (dead := partition(kafka, Numbers())).open()
            await dead.close()
        again = partition(kafka, Numbers())
        await again.open()
        await again.commit(2, 0, step(b"second"))
        await again.close()

    asyncio.run(story())
    assert (committed(kafka, STATE), committed(kafka, OUTPUT)) == ([b"first", b"second"], [b"first", b"second"])


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_hung_shares_the_fate_of_the_next_transaction_in_every_topic(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """The broker forgets a commit of which it told us that it was done: we go on, and the next commit gets through, or does not."""

    def dies(place: str) -> None:
        if place == "commit.acknowledged" and not goes_on:
            raise ConnectionError(place)

    async def story() -> Numbers:
        one = partition(kafka, Numbers())
        await one.open()
        await one.commit(1, 0, step(b"first"))  # it told the output something, as the one that is forgotten does
        for topic in (STATE, OUTPUT):  # a commit is done before its markers are written
            await asyncio.to_thread(wait, lambda topic=topic: committed(kafka, topic) == [b"first"], 10)
        await hang(one._producer, b"hung")
        with monkeypatch.context() as patched:
            patched.setattr("streams.partition.failpoint", dies)
            if goes_on:
                await one.commit(3, 0, Step({b"l": b"silent"}, []))
            else:
                with pytest.raises(ConnectionError):
                    await one.commit(3, 0, Step({b"l": b"silent"}, []))
        await one.close()
        again = partition(kafka, machine := Numbers())
        await again.open()
        await again.commit(4, 0, step(b"last"))
        await again.close()
        return machine

    machine = asyncio.run(story())
    assert machine.state.get(b"l") == (b"silent" if goes_on else None)
    hung = [b"hung"] if goes_on else []
    assert committed(kafka, OUTPUT) == [b"first", *hung, b"last"]
    assert committed(kafka, STATE) == [b"first", *hung, *([b"silent"] if goes_on else []), b"last"]


def test_a_former_owner_is_fenced_before_it_can_commit(kafka: Kafka) -> None:
    async def story() -> None:
        zombie, owner = partition(kafka, Numbers()), partition(kafka, Numbers())
        await zombie.open()
        await owner.open()
        with pytest.raises(Exception, match=r"(?i)fenced|epoch"):
            await zombie.commit(1, 0, step(b"zombie"))
        await owner.commit(1, 0, step(b"owner"))
        await zombie.close()
        await owner.close()

    asyncio.run(story())
    assert (committed(kafka, STATE), committed(kafka, OUTPUT)) == ([b"owner"], [b"owner"])
