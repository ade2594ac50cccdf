"""One partition's commit: state, position and outputs in one Kafka transaction; the compacted topic is the store.

Taking a partition means, in this order: start its transactional producer (which aborts what the former owner left open
and refuses whatever it sends from now on), read the compacted state to its end, see that a record of our own lands right
there, go on from the position found.
Memory is ahead of the log only inside a batch: after any failure the state is forgotten and the producer thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka import Message

from serving.failpoint import failpoint, failpoint_in
from streams import compacted
from streams.fold import Log, Output, Step
from streams.kafka import Kafka, discard

# own time-out of a commit < the client's request < the broker's transaction: EndTxn is never re-sent under a live batch
COMMIT_S, REQUEST_MS, TRANSACTION_MS = 8, 9_000, 10_000
MAX_BATCH = 4 << 20


class Machine(Protocol):
    """A deterministic fold of one partition."""

    def reset(self) -> None: ...
    def load(self, key: bytes, value: bytes | None) -> None: ...
    def fold(self, records: Sequence[Log], skip: Collection[int] = ()) -> Step: ...
    def position(self, next_offset: int, as_of: int) -> tuple[bytes, bytes]: ...
    @property
    def next(self) -> int: ...


class Partition:
    """A machine, the partition of the state topic it lives in, and the producer that fences it."""

    def __init__(
        self, kafka: Kafka, name: str, state_topic: str, number: int, machine: Machine, outputs: Sequence[str], turn: asyncio.Lock
    ) -> None:
        self.machine, self.busy, self._outputs, self._turn = machine, asyncio.Lock(), outputs, turn
        self._kafka, self._id = kafka, f"{kafka.prefix}{name}-{number}"
        self._log = TopicPartition(kafka.prefix + state_topic, number)
        self._producer: AIOKafkaProducer | None = None
        self._read_to = 0
        self._told: set[TopicPartition] = set()  # partitions of outputs that the last transaction wrote to
        self.restored = 0  # records of the state topic read so far
        self.tries = 0  # times it was opened since its last commit

    def forget(self) -> None:
        """Memory may be ahead of the log: drop it. `open` reads it back."""
        self.machine.reset()
        self._read_to = 0

    async def open(self) -> None:
        """Fence whoever owned the partition, then read its committed state to the end."""
        await self.close()
        self._told = set()
        self._producer = AIOKafkaProducer(
            **self._kafka.aiokafka(),
            transactional_id=self._id,
            transaction_timeout_ms=TRANSACTION_MS,
            request_timeout_ms=REQUEST_MS,
            max_batch_size=MAX_BATCH,
            max_request_size=2 * MAX_BATCH,
            linger_ms=0,
        )
        await self._producer.start()
        failpoint("open.fenced")
        end, high = await self._read()
        failpoint("open.read")
        while (ours := await asyncio.wait_for(self._barrier(end, high), COMMIT_S)) > end:
            while end <= ours:  # what hung is aborted; if it hid something, that is read now
                end, high = await self._read()

    async def _read(self) -> tuple[int, int]:
        """Take over what is committed and was not read yet; returns the offset at which it ends, and the log's end."""
        return await compacted.read(self._kafka, (self._log.topic, self._log.partition, self._read_to), self._turn, self._take)

    async def _barrier(self, end: int, high: int) -> int:
        """Append a record in a transaction that is aborted; returns its offset, which is `end` where all was read.

        Else something of ours hangs before it: a decided transaction whose markers the coordinator left out, because it found the
        partition without a leader (Kafka 4.x while a broker starts). Our next commit would let it through in every topic, beside
        what we fold again; so it is aborted, in every topic. In the outputs first: what hangs in the state is the only trace of it.
        """
        producer, hangs = self._producer, high > end
        assert producer is not None
        await producer.begin_transaction()
        failpoint("open.barrier")
        if hangs:
            await self._mark_outputs(producer)
        first = await (await producer.send(self._log.topic, partition=self._log.partition, key=b"barrier", value=b""))
        failpoint("open.barrier_sent")
        if first.offset > end and not hangs:  # the log's end as it is read may lag behind what is appended
            await self._mark_outputs(producer)
        await producer.abort_transaction()
        failpoint("open.barrier_aborted")
        return int(first.offset)

    async def _mark_outputs(self, producer: AIOKafkaProducer) -> None:
        for topic in self._outputs:
            failpoint("open.barrier_outputs")
            await (await producer.send(self._kafka.prefix + topic, partition=0, key=b"barrier", value=b""))

    def _take(self, messages: list[Message]) -> None:
        load = self.machine.load
        for message in messages:
            load(message.key(), message.value())
        self.restored += len(messages)
        self._read_to = messages[-1].offset() + 1

    async def commit(self, next_offset: int, as_of: int, step: Step) -> None:
        """Make the step's state, the position and the outputs visible, together or not at all."""
        await asyncio.wait_for(self._commit(next_offset, as_of, step), COMMIT_S)
        self.tries = 0

    async def _commit(self, next_offset: int, as_of: int, step: Step) -> None:
        producer = self._producer
        assert producer is not None, "commit before open"
        failpoint("commit.begin")
        await producer.begin_transaction()
        sent: list[asyncio.Future[object]] = []
        batches = _batches(self._log, self._kafka.prefix, step, self.machine.position(next_offset, as_of))
        told, before = {TopicPartition(topic, partition) for topic, partition, _ in batches[1:]}, self._told
        # Were the last transaction's markers left out (see `_barrier`), then this one's end it, in all of its topics alike.
        for place in (self._log, *told, *before):
            producer._txn_manager.maybe_add_partition_to_txn(place)
        self._told = told
        for topic, partition, records in batches:
            batch = producer.create_batch()
            for k, v, headers in records:
                if batch.append(key=k, value=v, timestamp=None, headers=headers) is None:
                    failpoint("commit.full")
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    if batch.append(key=k, value=v, timestamp=None, headers=headers) is None:
                        raise ValueError(f"a record of {len(v or b'')} bytes for {topic} fits no batch of {MAX_BATCH}")
            failpoint("commit.send")
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        failpoint("commit.sent")
        await asyncio.gather(*sent)  # all acknowledged before EndTxn is asked for
        failpoint("commit.acknowledged")
        failpoint_in(0.001, "commit.ending_1ms")  # somewhere between the request to end the transaction and the broker's word
        failpoint_in(0.003, "commit.ending_3ms")
        await producer.commit_transaction()
        failpoint("commit.ended")
        self._read_to = max(self._read_to, sent[0].result().offset)  # type: ignore[attr-defined] # aiokafka: RecordMetadata

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard(producer)


_Record = tuple[bytes, bytes | None, list[tuple[str, bytes]]]


def _batches(log: TopicPartition, prefix: str, step: Step, position: tuple[bytes, bytes]) -> list[tuple[str, int, list[_Record]]]:
    """The step's records by (topic, partition), the state first; outputs all go to topics of one partition."""
    state: list[_Record] = [(k, v, []) for k, v in step.touched.items()]
    groups: dict[str, list[_Record]] = {}
    for output in step.outputs:
        groups.setdefault(prefix + output.topic, []).append((output.key, output.value, list(output.headers)))
    state.append((*position, []))
    return [(log.topic, log.partition, state), *((topic, 0, records) for topic, records in groups.items())]


def dead_letter(topic: str, letters: str, partition: int, log: Log, reason: str, detail: str) -> Output:
    """`log`, untouched, for the dead letters of `topic`."""
    why = {"reason": reason, "detail": detail[:300], "topic": topic, "partition": partition, "offset": log.offset}
    headers = [(f"headrace.error.{k}", str(v).encode()) for k, v in why.items()]
    return Output(letters, log.key or b"", log.value, headers)
