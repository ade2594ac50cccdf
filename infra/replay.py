"""Replays a file of interactions as live traffic: sends each one, asks for a list now and then, answers with feedback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.interactions import Row
from learners.items import Items
from learners.popularity import HALF_LIVES, Popularity
from serving.client import AsyncClient
from streams import topics
from streams.events import Feedback, Interaction, to_bytes, utc
from streams.ingest import BACKFILL
from streams.kafka import Kafka, discard

IN_FLIGHT = 200  # events and asks under way at once
ENDING_S = 0.5  # what is flushed by then is; Ctrl-C does not wait for a broker that is gone


@dataclass
class Tally:
    """What the replay has seen so far. `asked` holds (time, hit of the list, hit of decayed popularity)."""

    sent: int = 0
    asked: list[tuple[float, bool, bool]] = field(default_factory=list)
    feedback: int = 0
    failed: int = 0
    unsent: int = 0
    degraded: int = 0
    versions: dict[int, int] = field(default_factory=dict)
    at: float = 0.0  # event time of the last row sent, Unix s

    def hit_rates(self, since: float, until: float = float("inf")) -> tuple[float, float, int]:
        """(of the lists, of decayed popularity, asks) between two times."""
        part = [(a, b) for at, a, b in self.asked if since <= at < until]
        return (sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part), len(part)) if part else (0.0, 0.0, 0)


class Replay:
    """Sends `rows` at `events_s`, before some of them asks for the user's list, `asks_s` times a second.

    `tastes(index, row)` may change what a user chooses: the demo plants its change with it. Interactions carry ids, so
    that a repeated send is one event. One user's events and asks keep their order; users run side by side.
    """

    def __init__(
        self,
        kafka: Kafka,
        triton: str,
        events_s: float,
        asks_s: float,
        tastes: Callable[[int, Row], str] = lambda index, row: row.item,
        tag: str = "replay",
    ) -> None:
        self.kafka, self.tally = kafka, Tally()
        self._client = AsyncClient(triton)
        self._speed, self._share = events_s, asks_s / events_s if events_s else 0.0
        self._tastes, self._tag = tastes, tag
        self._last: dict[str, asyncio.Task[None]] = {}  # of each user, for their order
        self._open: set[asyncio.Task[None]] = set()
        self._items = Items()
        self._popularity = Popularity(self._items)
        self._had: dict[str, set[str]] = {}
        self._top: list[str] = []
        self._rng = np.random.default_rng(7)

    async def run(self, source: Sequence[Row]) -> None:
        """Until the rows are sent; cancel it to stop earlier."""
        producer = AIOKafkaProducer(**self.kafka.aiokafka(), enable_idempotence=True, linger_ms=2, request_timeout_ms=30_000)
        await producer.start()
        began = time.monotonic()
        try:
            for index, row in enumerate(source):
                due = began + index / self._speed
                if due - time.monotonic() > 0.002:
                    await asyncio.sleep(due - time.monotonic())
                asks = self._rng.random() < self._share
                row = row._replace(item=self._tastes(index, row))
                task = asyncio.create_task(self._one(producer, index, row, asks, self._last.get(row.user)))
                self._last[row.user] = task
                self._open.add(task)
                task.add_done_callback(self._open.discard)
                if len(self._open) > IN_FLIGHT:  # the pace waits for the slowest
                    await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*self._open)
            await producer.flush()
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await discard(producer, ENDING_S)

    async def close(self) -> None:
        await self._client.close()

    async def _one(self, producer: AIOKafkaProducer, index: int, row: Row, asks: bool, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        try:
            await self._send(producer, index, row, asks)
        except KafkaError:  # the bus has been away for longer than the producer waits
            self.tally.unsent += 1

    async def _send(self, producer: AIOKafkaProducer, index: int, row: Row, asks: bool) -> None:
        if asks:
            await self._ask(producer, row)
        event = interaction(row, f"{self._tag}-{index}")
        await producer.send(self.kafka.prefix + topics.INTERACTIONS, key=row.user.encode(), value=to_bytes(event))
        self.tally.sent += 1
        self.tally.at = row.at
        self._learn(row)

    async def _ask(self, producer: AIOKafkaProducer, row: Row) -> None:
        try:
            answer = await self._client.recommend(row.user)
        except Exception:  # a server that is down: the user goes on without a list
            self.tally.failed += 1
            return
        hit = row.item in answer.items
        had = self._had.get(row.user, set())
        popular = [item for item in self._top if item not in had][:10]
        self.tally.asked.append((time.time(), hit, row.item in popular))
        self.tally.degraded += answer.degraded
        self.tally.versions[answer.model_version] = self.tally.versions.get(answer.model_version, 0) + 1
        if hit and answer.id:
            feedback = Feedback(
                id=f"{answer.id}-click", recommendation_id=answer.id, user=row.user, item=row.item, kind="click", at=utc(row.at)
            )
            await producer.send(self.kafka.prefix + topics.FEEDBACK, key=row.user.encode(), value=to_bytes(feedback))
            self.tally.feedback += 1

    def _learn(self, row: Row) -> None:
        """The baseline beside the lists: popularity with a half-life of 500 events, what the user had left out."""
        self._popularity.learn_one(self._items.learn(row.item), row.at)
        self._had.setdefault(row.user, set()).add(row.item)
        if self.tally.sent % 25 == 0:
            scores = self._popularity.scores()[:, HALF_LIVES.index(500)]
            self._top = [self._items.names[r] for r in np.argsort(-scores, kind="stable")[:300]]


def interaction(row: Row, id: str) -> Interaction:
    """The row as an event."""
    return Interaction(id=id, user=row.user, item=row.item, kind="view" if row.value is None else "rating", value=row.value, at=utc(row.at))


async def backfill(kafka: Kafka, source: Sequence[Row], tag: str, progress: Callable[[int, int], None]) -> None:
    """Send past events at full speed, marked as history: no asks, no signals, no training by volume."""
    producer = AIOKafkaProducer(**kafka.aiokafka(), enable_idempotence=True, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    topic = kafka.prefix + topics.INTERACTIONS
    count = len(await producer.partitions_for(topic))
    try:
        batches = {p: producer.create_batch() for p in range(count)}
        for number, row in enumerate(source, 1):
            key, value = row.user.encode(), to_bytes(interaction(row, f"{tag}-{number - 1}"))
            p = crc32(key) % count
            if batches[p].append(key=key, value=value, timestamp=None, headers=[(BACKFILL, b"1")]) is None:
                await producer.send_batch(batches[p], topic, partition=p)
                batches[p] = producer.create_batch()
                batches[p].append(key=key, value=value, timestamp=None, headers=[(BACKFILL, b"1")])
            if number % 5000 == 0:
                progress(number, len(source))
                await asyncio.sleep(0)
        for p, batch in batches.items():
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=p))
        await producer.flush()
        progress(len(source), len(source))
    finally:
        await discard(producer, ENDING_S)


def titles(file: Path) -> dict[str, tuple[str, list[str]]]:
    """Item -> (title, categories) of a RecBole `.item` file beside the data; empty where there is none."""
    beside = file.with_suffix(".item")
    if not beside.exists():
        return {}
    found = {}
    for line in beside.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) >= 4 and cells[0]:
            found[cells[0]] = (f"{cells[1]} ({cells[2]})", [c for c in cells[3].split() if c])
    return found
