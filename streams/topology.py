"""The dataflow on one page.

    interactions ┐                              ┌─ online-state ──▶ recommend (Triton)
    feedback     ├─▶ ingest ─▶ timeline ─▶ fold ┤
    erasures     │      │                       └─ metrics ─▶ monitor ─┬─▶ drift-alerts
    recommend-   ┘      └─▶ dead letters                               └─▶ retraining-requests ─▶ trainer
    ations

Agents get batches over channels from our own readers (streams/reader.py): Faust gives the application its life, not
its truth (docs/decisions/001-own-reader.md). No exception leaves an agent; the batch carries it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import faust
from faust.app import BootStrategy

from feedback.policy import Policy
from learners.online import Memory
from streams import topics
from streams.fold import Fold
from streams.ingest import Refused, dead_letter_headers, ingest
from streams.kafka import Kafka
from streams.monitor import Monitor
from streams.prober import Prober
from streams.reader import Batch, Follower, Ingester
from streams.timeline import encode, user_of
from streams.topics import partition_of
from streams.watchdog import Watchdog


class Boot(BootStrategy):  # type: ignore[misc] # faust carries no types
    enable_kafka = False  # its consumer loses events in rebalances; ours does not
    enable_web = False  # it would serve unauthenticated on 0.0.0.0


class App(faust.App):  # type: ignore[misc] # faust carries no types
    BootStrategy = Boot


def topology(kafka: Kafka, triton: str, worker: str, policy: Policy, memory: Memory, fold: type[Fold] = Fold) -> tuple[App, list[Any]]:
    """The worker's application and its readers. `fold`: one that learns something beside, too."""
    app = App(f"{kafka.prefix}worker", broker="kafka://unused", autodiscover=False)
    arriving, folding, watching = app.channel(), app.channel(), app.channel()

    @app.agent(arriving)  # type: ignore[untyped-decorator] # faust carries no types
    async def ingest_agent(batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            _answer(batch, lambda b=batch: [out for number, record in b.records if (out := _timeline_or_letter(kafka, number, record))])

    @app.agent(folding)  # type: ignore[untyped-decorator] # faust carries no types
    async def fold_agent(batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            _answer(batch, lambda b=batch: b.machine.fold(b.records, b.skip))

    @app.agent(watching)  # type: ignore[untyped-decorator] # faust carries no types
    async def monitor_agent(batches: AsyncIterator[Batch]) -> None:
        async for batch in batches:
            _answer(batch, lambda b=batch: b.machine.fold(b.records, b.skip))

    pace = 20 if kafka.partitions <= 4 else 40  # ms; each transaction costs the broker about 2 ms, so many partitions wait a little longer
    ingester = Ingester(kafka, worker, arriving)
    letters = topics.dead_letters
    online = Follower(
        kafka, "fold", worker, topics.TIMELINE, topics.ONLINE_STATE, pace, (topics.METRICS, letters(topics.TIMELINE)),
        lambda p: fold(p, kafka.partitions, memory), folding, dense=True,
    )  # fmt: skip
    monitor = Follower(
        kafka, "monitor", worker, topics.METRICS, topics.MONITOR_STATE, 100,
        (topics.DRIFT_ALERTS, topics.RETRAINING_REQUESTS, letters(topics.METRICS)), lambda p: Monitor(policy), watching, dense=False,
    )  # fmt: skip
    readers: list[Any] = [ingester, online, monitor]
    for service in (*readers, Watchdog(readers), Prober(triton, online)):
        app.service(_started(service))
    return app, readers


def _started(reader: Any) -> Any:
    """Faust wants a class it can instantiate; ours needs its arguments first."""

    class Reader(faust.Service):  # type: ignore[misc] # faust carries no types
        async def on_start(self) -> None:
            await self.add_runtime_dependency(reader)

    return Reader


def _answer(batch: Batch, work: Any) -> None:
    try:
        result = work()
    except Exception as error:
        if not batch.done.done():
            batch.done.set_exception(error)
    else:
        if not batch.done.done():  # cancelled by a rebalance
            batch.done.set_result(result)


def _timeline_or_letter(kafka: Kafka, number: int, record: Any) -> tuple[str, int, bytes | None, bytes | None, Any] | None:
    """(topic, partition, key, value, headers) that one input record becomes; None where it becomes nothing (streams/ingest.py)."""
    name = topics.READ[number]
    try:
        fact = ingest(number, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)
    except Refused as refused:
        headers = dead_letter_headers(record.headers, refused.reason, refused.detail, record.topic, record.partition, record.offset)
        return topics.dead_letters(name), 0, record.key, record.value, headers
    if fact is None:
        return None
    user = user_of(fact)
    return topics.TIMELINE, partition_of(user, kafka.partitions), user.encode(), encode(fact), []
