"""The readers: they own partitions by a Kafka consumer group, hand batches to the agents, and write what comes back.

Paced by the fetch: it answers when 64 KiB have come or the pace is over, so there is no sleep and no other linger, but for impressions
alone. Where nothing has come for a while, it answers as soon as anything does (streams/consumer.py).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from aiokafka import AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    ProducerFenced,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from serving.failpoint import failpoint
from streams import topics
from streams.consumer import SESSION_S, Paced
from streams.fold import FoldError, Log, Output, Step
from streams.kafka import Kafka, discard
from streams.partition import MAX_BATCH, Machine, Partition, dead_letter
from streams.standing import Incompatible

SHOWN_WAIT_S = 0.1  # impressions alone wait so long for others: nobody waits for them, and each commit of the fold costs the broker 2 ms
BATCH = 1000  # records of one batch, at most
BEAT_S = 1.0  # an idle partition still says how fresh it is
FAULTY = 0.01  # share of a minute's records that may make the fold raise
TRIES = 5  # a partition is opened again without a commit between, before the worker gives up
# Trying again cannot help with these.
NEVER = (
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    Incompatible,
)
AWAY = (TimeoutError, KafkaError, AssertionError)  # aiokafka asserts that it knows a node; without a broker it does not
REBUILD = "raise retention.ms of the timeline, delete the topic online-state.v1 and run `headrace topics --create`"
SKIP = "what it removed is lost; raise retention.ms of the inputs and reset the group `ingest` with kafka-consumer-groups.sh to go on"


@dataclass
class Batch:
    """Work for an agent: it sets `done`, to a result or an error."""

    records: Sequence[Any]
    machine: Machine | None = None
    skip: frozenset[int] = frozenset()
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def stop_now(log: Any, text: str) -> None:
    """End the process with the reason: the supervisor starts it again, a person reads why."""
    log.error("STOP %s", text)
    os._exit(1)


class Follower(faust.Service, ConsumerRebalanceListener):  # type: ignore[misc] # faust and aiokafka carry no types
    """Folds the partitions of `topic` that the group gives it; `machine(partition)` makes the state of one. `outputs`: topics of one
    partition that its steps write to.

    `dense`: the topic is not written by transactions, so that a missing offset is a lost record.
    """

    def __init__(
        self,
        kafka: Kafka,
        name: str,
        worker: str,
        topic: str,
        state_topic: str,
        pace_ms: int,
        outputs: Sequence[str],
        machine: Callable[[int], Machine],
        channel: Any,
        dense: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kafka, self.name_, self.topic, self.state_topic = kafka, name, topic, state_topic
        self.outputs, self.machine, self.channel, self.dense = outputs, machine, channel, dense
        self.parts: dict[TopicPartition, Partition] = {}
        self.tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self.open: set[int] = set()
        self._turn = asyncio.Lock()  # of reading a state back
        self.assigned = False  # the group has spoken, be it with nothing
        self._faults: deque[float] = deque()
        self._folded: deque[tuple[float, int]] = deque()
        self._worker, self._pace = worker, pace_ms

    @property
    def is_ready(self) -> bool:
        """Are all partitions that the group gave us open?"""
        return self.assigned and len(self.open) == len(self.tasks)

    def work(self) -> dict[TopicPartition, int]:
        """As `watchdog.Watched` says: records of its state restored, per partition."""
        return {tp: self.parts[tp].restored for tp in self.tasks}

    async def on_start(self) -> None:
        self.consumer = Paced(self.kafka, self.name_, self._worker, self._pace)
        await self.consumer.start()
        self.consumer.subscribe([self.kafka.prefix + self.topic], listener=self)

    async def on_stop(self) -> None:
        await self.on_partitions_revoked(())
        await self.consumer.stop()
        for part in self.parts.values():
            await part.close()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        for tp, task in self.tasks.items():
            async with self.parts[tp].busy:  # a batch in flight is committed first
                task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        self.tasks = {}
        self.open.clear()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        for tp in assigned:  # before the first await: nothing may be fetched from the group's offset
            self.consumer.seek(tp, 0)
            self.consumer.pause(tp)
        for tp in set(self.parts) - set(assigned):
            await self.parts.pop(tp).close()
        for tp in assigned:
            if tp not in self.parts:  # state that stays here is kept: only its tail is read again
                machine = self.machine(tp.partition)
                self.parts[tp] = Partition(self.kafka, self.name_, self.state_topic, tp.partition, machine, self.outputs, self._turn)
            self.tasks[tp] = asyncio.create_task(self._follow(tp, self.parts[tp]))
        self.assigned = True

    async def _follow(self, tp: TopicPartition, partition: Partition) -> None:
        while True:
            try:
                self.consumer.pause(tp)
                await partition.open()
                position = partition.machine.next
                if position == 0:  # nothing folded yet: from the first record that is there, which need not be 0
                    position = (await self.consumer.beginning_offsets([tp]))[tp]
                self.consumer.seek(tp, position)
                self.consumer.resume(tp)
                self.open.add(tp.partition)
                partition.tries += 1
                self.log.info("OPEN %s at %s", tp, position)
                failpoint("follow.open")
                await self._fold(tp, partition, position)
            except NEVER as error:
                stop_now(self.log, f"{tp}: {remedy(error, REBUILD)}")
            except AWAY as error:
                self.open.discard(tp.partition)
                if partition.tries > TRIES:
                    stop_now(self.log, f"{tp}: opened {partition.tries} times without a commit, at last {error!r}")
                partition.forget()  # the outcome is unknown, or a newer owner is there
                self.log.warning("REOPEN %s %r", tp, error)
                # Fenced: wait one session, in which a zombie learns of its rebalance and this task is cancelled.
                await asyncio.sleep(SESSION_S if isinstance(error, ProducerFenced) else 1)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a gap in the timeline, or a fault of ours
                self.log.exception("follow %s", tp)
                stop_now(self.log, f"{tp}: {error!r}")

    async def _fold(self, tp: TopicPartition, partition: Partition, expected: int) -> None:
        beaten = 0.0
        while True:
            records = (await self.consumer.getmany(tp, timeout_ms=500, max_records=BATCH)).get(tp, [])
            now = time.time()
            if not records and now - beaten < BEAT_S:
                continue
            async with partition.busy:  # a revoke waits until the batch is committed
                logs = [Log(r.offset, r.timestamp, r.key, r.value or b"") for r in records]
                if logs and (logs[0].offset < expected or (self.dense and logs[-1].offset + 1 - expected != len(logs))):
                    raise RuntimeError(f"gap in {tp}: expected {expected}, got {logs[0].offset}..{logs[-1].offset}")
                step = await self._step(tp, partition, logs)
                expected = logs[-1].offset + 1 if logs else expected
                as_of = int(now * 1000) if len(logs) < BATCH else logs[-1].timestamp
                failpoint("follow.commit")
                await partition.commit(expected, as_of, step)
                beaten = now

    async def _step(self, tp: TopicPartition, partition: Partition, logs: Sequence[Log]) -> Step:
        """What the batch changes. A record that makes the fold raise goes to the dead letters, its neighbours count once."""
        skip: set[int] = set()
        letters: list[Output] = []
        while True:
            batch = Batch(logs, partition.machine, frozenset(skip))
            await self.channel.put(batch)
            try:
                step: Step = await batch.done
            except FoldError as error:
                self._fault(tp, len(logs))
                self.log.warning("FOLD %s: %r", error, error.__cause__)
                skip.add(error.offset)
                bad = next(log for log in logs if log.offset == error.offset)
                letters.append(
                    dead_letter(tp.topic, topics.dead_letters(self.topic), tp.partition, bad, "fold_error", repr(error.__cause__))
                )
                partition.forget()
                await partition.open()
                continue
            step.outputs += letters
            self._folded.append((time.monotonic(), len(logs)))
            return step

    def _fault(self, tp: TopicPartition, batch: int) -> None:
        now = time.monotonic()
        self._faults.append(now)
        while self._faults and self._faults[0] < now - 60:
            self._faults.popleft()
        while self._folded and self._folded[0][0] < now - 60:
            self._folded.popleft()
        folded = sum(n for _, n in self._folded) + batch
        if len(self._faults) > max(10, FAULTY * folded):
            share = f"{len(self._faults)} of {folded} records of the last minute made the fold raise"
            stop_now(self.log, f"{tp}: {share}; see {topics.dead_letters(self.topic)}")


def remedy(error: Exception, overtaken: str = "") -> str:
    """What a person has to do; `overtaken`: where retention has removed what we had not read yet."""
    if isinstance(error, OffsetOutOfRangeError):
        return f"retention has overtaken our position ({error}): {overtaken}"
    if isinstance(error, (Incompatible, topics.WrongTopic)):
        return str(error)
    return f"not authorised ({error!r}): grant this principal read, write and TransactionalId write on our prefix"


class Ingester(faust.Service, ConsumerRebalanceListener):  # type: ignore[misc] # faust and aiokafka carry no types
    """Reads the inputs and writes the timeline and the dead letters: idempotent producer, at least once, in order.

    The group's offset is committed once a second; what a crash repeats, the fold's fence drops.
    """

    def __init__(self, kafka: Kafka, worker: str, channel: Any, pace_ms: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kafka, self.channel, self._worker, self._pace = kafka, channel, worker, pace_ms
        self._numbers = {kafka.prefix + name: number for number, name in enumerate(topics.READ)}
        self.is_ready = False
        self._task: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._written: dict[TopicPartition, int] = {}  # next offsets not yet told to the group
        self._mine: Sequence[TopicPartition] = ()

    def work(self) -> dict[TopicPartition, int]:
        """As `watchdog.Watched` says: there is nothing to restore."""
        return dict.fromkeys(self._mine, 0)

    async def on_start(self) -> None:
        self.consumer = Paced(self.kafka, "ingest", self._worker, self._pace)
        await self.consumer.start()
        self.consumer.subscribe(list(self._numbers), listener=self)

    async def on_stop(self) -> None:
        await self.on_partitions_revoked(())
        await self.consumer.stop()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if self._task is not None:
            async with self._busy:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def on_partitions_assigned(self, assigned: Any) -> None:
        for tp in assigned:
            self.consumer.seek(tp, 0)
            self.consumer.pause(tp)
        self._mine = tuple(assigned)
        if assigned:
            self._task = asyncio.create_task(self._run(list(assigned)))
        else:
            self.is_ready = True

    async def _run(self, assigned: list[TopicPartition]) -> None:
        while True:
            producer = AIOKafkaProducer(
                **self.kafka.aiokafka(),
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=MAX_BATCH,
                max_request_size=2 * MAX_BATCH,
                request_timeout_ms=9_000,
            )
            try:
                await producer.start()
                for tp in assigned:
                    position = await self.consumer.committed(tp)
                    if position is None:
                        position = (await self.consumer.beginning_offsets([tp]))[tp]
                    self.consumer.seek(tp, position)
                    self.consumer.resume(tp)
                self._written = {}
                self.is_ready = True
                await self._copy(producer)
            except NEVER as error:
                stop_now(self.log, f"ingest: {remedy(error, SKIP)}")
            except AWAY as error:
                self.is_ready = False
                self.log.warning("REOPEN ingest %r", error)  # never past a batch that may not have been written
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.log.exception("ingest")
                stop_now(self.log, f"ingest: {error!r}")
            finally:
                await asyncio.shield(discard(producer))

    async def _copy(self, producer: AIOKafkaProducer) -> None:
        committed = began = time.monotonic()
        fetched: dict[TopicPartition, list[Any]] = {}
        while True:
            left = began + SHOWN_WAIT_S - time.monotonic() if fetched else SHOWN_WAIT_S
            more = await self.consumer.getmany(timeout_ms=max(0, round(left * 1000)), max_records=4 * BATCH)
            if not fetched:
                began = time.monotonic()
            for tp, records in more.items():
                fetched.setdefault(tp, []).extend(records)
            async with self._busy:
                if fetched and not (self._may_wait(fetched) and time.monotonic() - began < SHOWN_WAIT_S):
                    batch = Batch([(self._numbers[tp.topic], r) for tp, records in fetched.items() for r in records])
                    await self.channel.put(batch)
                    await asyncio.wait_for(self._write(producer, await batch.done), 30)
                    self._written.update({tp: records[-1].offset + 1 for tp, records in fetched.items()})
                    fetched = {}
                if self._written and time.monotonic() - committed >= 1:
                    failpoint("ingest.offsets")
                    await self.consumer.commit(self._written)
                    failpoint("ingest.offsets_written")
                    self._written, committed = {}, time.monotonic()

    def _may_wait(self, fetched: dict[TopicPartition, list[Any]]) -> bool:
        return {tp.topic for tp in fetched} == {self.kafka.prefix + topics.RECOMMENDATIONS} and sum(map(len, fetched.values())) < BATCH

    async def _write(
        self, producer: AIOKafkaProducer, outputs: Sequence[tuple[str, int, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]]
    ) -> None:
        """Write (topic, partition, key, value, headers) and wait until all is acknowledged."""
        batches: dict[tuple[str, int], Any] = {}
        sent = []
        for topic, partition, key, value, headers in outputs:
            place = (self.kafka.prefix + topic, partition)
            batch = batches.get(place) or batches.setdefault(place, producer.create_batch())
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                failpoint("ingest.full")
                sent.append(await producer.send_batch(batch, place[0], partition=partition))
                batches[place] = batch = producer.create_batch()
                if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                    raise ValueError(f"a record of {len(value or b'')} bytes for {topic} fits no batch of {MAX_BATCH}")
        for (topic, partition), batch in batches.items():
            failpoint("ingest.send")
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        failpoint("ingest.sent")
        await asyncio.gather(*sent)
        failpoint("ingest.acknowledged")
