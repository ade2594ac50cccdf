"""The replica: a thread that tails online state, catalogue and releases into a `View`, wherever answers are made.

`poll` then `consume(n, 0)`, never `consume(n, timeout)`: that waits for n or for the whole time-out (40 ms against 8).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from learners.online import Online
from learners.weights import Weights
from serving.features import CONTEXTS, FEATURES, SOURCES
from serving.guard import Guard
from serving.recommend import View
from serving.release import Releases
from serving.repeats import Repeats
from streams import topics
from streams.events import Release
from streams.ingest import item
from streams.kafka import Kafka
from streams.standing import POSITION, Standing

log = logging.getLogger("headrace.replica")
REFRESH_S = 0.25  # between two renewals of the lists that are the same for everybody
RANKER = "w·".encode()
OTHER = "the state is of another version: delete the topic online-state.v1 and run `headrace topics --create`"
CHUNK = 200  # records applied before answers get the interpreter again


class Replica:
    """State of all partitions, merged. A partition's commit is taken over as a whole, under `lock`: an answer made under it rests on
    exactly the positions that it names. `on_release` is called when all releases that there were have been read, and after each new one.
    """

    def __init__(self, kafka: Kafka, on_release: Callable[[], object] = lambda: None) -> None:
        self.kafka = kafka
        self.view = View(Online(kafka.partitions, kafka.partitions))
        self.releases = Releases()
        self.as_of = dict.fromkeys(range(kafka.partitions), 0)  # Unix ms, 0 = nothing heard yet
        self.lock = threading.Lock()
        self.caught_up = threading.Event()
        self.records = 0
        self._on_release = on_release
        self._begun: dict[int, list[tuple[bytes, bytes | None]]] = {}  # of each partition, a commit whose position has not come yet
        self._stop = threading.Event()
        self._names = {kafka.prefix + n: n for n in (topics.ONLINE_STATE, topics.ITEMS, topics.RELEASES)}
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3)

    def _run(self) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(0.0005)  # while catching up, answers still get their turn
        consumer = Consumer(
            self.kafka.confluent()
            | {
                "group.id": f"{self.kafka.prefix}replica",  # never joined: partitions are assigned by hand
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,  # what is new is sent at once; so long it takes to hear that nothing is
                "queued.max.messages.kbytes": 16384,
                "fetch.message.max.bytes": 4 << 20,
                "reconnect.backoff.max.ms": 1000,
                "socket.connection.setup.timeout.ms": 3000,
            }
        )
        try:
            behind = self._assign(consumer)
            refreshed = 0.0
            while not self._stop.is_set():
                try:
                    first = consumer.poll(0.1)
                    batch = [] if first is None else [first, *consumer.consume(CHUNK if not behind else 5 * CHUNK, 0)]
                except KafkaException as error:
                    log.warning("replica: %s", error)
                    time.sleep(0.1)
                    continue
                for message in batch:
                    if not message.error():
                        self._apply(message)
                if behind and not self.caught_up.is_set():
                    behind -= {(m.topic(), m.partition()) for m in batch if m.error() and m.error().code() == KafkaError._PARTITION_EOF}
                    if not behind:
                        self.view.refresh()
                        self.caught_up.set()
                        sys.setswitchinterval(usual)
                        log.info("caught up after %s records", self.records)
                        self._on_release()
                if time.monotonic() - refreshed > REFRESH_S:
                    self.view.refresh()
                    refreshed = time.monotonic()
        except Exception:  # without its thread the model would answer from a frozen state for ever
            log.exception("the replica stopped")
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> set[tuple[str | None, int | None]]:
        """Take all partitions of our topics from their beginning; returns them: each is behind until its end is met."""
        while not self._stop.is_set():
            try:
                places = []
                for name in self._names:
                    found = consumer.list_topics(name, timeout=1).topics[name]
                    if found.error is not None:
                        raise KafkaException(found.error)
                    places += [TopicPartition(name, partition, OFFSET_BEGINNING) for partition in found.partitions]
                consumer.assign(places)
                return {(place.topic, place.partition) for place in places}
            except KafkaException as error:
                log.warning("replica: %s", error)
                self._stop.wait(0.2)
        return set()

    def _apply(self, message: Message) -> None:
        name, partition, key, value = self._names[message.topic() or ""], message.partition() or 0, message.key() or b"", message.value()
        self.records += 1
        if name == topics.ONLINE_STATE and self.caught_up.is_set():
            self._begun.setdefault(partition, []).append((key, value))
            if key == POSITION:  # the last record of a commit
                with self.lock:
                    for one in self._begun.pop(partition):
                        self._try(message, self._state, partition, *one)
        elif name == topics.ONLINE_STATE:
            with self.lock:
                self._try(message, self._state, partition, key, value)
        elif name == topics.ITEMS:
            self._try(message, self._item, key, value, message.timestamp()[1] / 1000)
        else:
            self._try(message, self._release, value or b"")

    @staticmethod
    def _try(message: Message, take: Callable[..., None], *record: Any) -> None:
        try:
            take(*record)
        except Exception as error:  # one record must never stop the tailing of all others
            log.warning("%s[%s] up to %s: ignored: %r", message.topic(), message.partition(), message.offset(), error)

    def _state(self, partition: int, key: bytes, value: bytes | None) -> None:
        view = self.view
        if key == POSITION:
            standing = Standing.load(value or b"")
            if len(standing.guard) != len(SOURCES):
                raise ValueError(OTHER)
            view.online.popularity.clock[partition] = standing.clock
            view.guards[partition] = Guard(standing.guard, standing.judged)
            view.repeats[partition] = Repeats(*standing.repeats)
            view.watermark = max(view.watermark, standing.watermark)
            self.as_of[partition] = standing.as_of
            view.positions[str(partition)] = standing.next
            return
        if not view.online.load(partition, key, value) and key == RANKER and value is not None:
            weights = Weights.load(value)
            if not weights.fits(len(FEATURES), CONTEXTS):
                raise ValueError(OTHER)
            view.weights[partition] = weights

    def _item(self, key: bytes, value: bytes | None, appended: float) -> None:
        if value is None:
            self.view.catalogue.remove(key.decode())
            return
        entry = item(key, value)
        published = entry.published_at.timestamp() if entry.published_at else self.view.watermark or appended
        self.view.catalogue.upsert(entry.item, entry.categories or (), published, entry.hidden)

    def _release(self, value: bytes) -> None:
        release = Release.model_validate_json(value)
        ignored = release.apply_to(self.releases)
        if ignored is not None:
            log.warning("release record %s ignored: %s", release.id, ignored)
        if self.caught_up.is_set():
            self._on_release()
