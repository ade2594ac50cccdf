"""The trainer's memory of the timeline: the newest interactions and drawn answers, erased users left out, and where it stands."""

from __future__ import annotations

import logging
from collections import deque

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from learners.histories import Event
from learners.profiles import SESSION_GAP
from serving.off_policy import Drawn
from streams import topics
from streams.kafka import Kafka
from streams.once import FRESH, Once
from streams.timeline import Erased, Interacted, Shown, decode

log = logging.getLogger("headrace.history")
KEPT = 1_000_000  # interactions
DRAWN = 5_000  # answers that were drawn at random, with their candidates about 10 kB each


class History:
    """Tails the timeline from its beginning (or, later, from where it stopped)."""

    def __init__(self, kafka: Kafka) -> None:
        self._topic = kafka.prefix + topics.TIMELINE
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._once = [Once() for _ in range(kafka.partitions)]
        self._places = [TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in range(kafka.partitions)]
        self.drawn: dict[tuple[str, int], Drawn] = {}  # (user, how many choices were known) -> the answer
        self._counted: dict[str, tuple[int, float]] = {}  # user -> choices so far, time of the last
        self.start: dict[int, int] = {}
        self.end: dict[int, int] = {}
        self._consumer = Consumer(
            kafka.confluent()
            | {
                "group.id": f"{kafka.prefix}history",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        self._assigned = False

    def read(self) -> list[Event]:
        """Everything up to now, in broker order; each record once, as in the fold."""
        if not self._assigned:
            self._consumer.assign(self._places)
            self._assigned = True
        behind = {}
        for place in self._places:
            low, high = self._consumer.get_watermark_offsets(place, timeout=10)
            self.start.setdefault(place.partition, low)
            if self.end.get(place.partition, low) < high:
                behind[place.partition] = high
        while behind:
            for message in self._consumer.consume(2000, 0.5):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    continue
                partition, offset = message.partition() or 0, message.offset() or 0
                self.end[partition] = offset + 1
                if behind.get(partition, 1 << 62) <= offset + 1:
                    del behind[partition]
                self._take(partition, offset, message.value() or b"")
        return sorted(self._events, key=lambda e: (e.appended, e.partition, e.offset))

    def _take(self, partition: int, offset: int, value: bytes) -> None:
        try:
            record = decode(value)
        except msgspec.DecodeError as error:  # the fold has put it into the dead letters
            log.warning("timeline %s@%s left out: %s", partition, offset, error)
            return
        if self._once[partition].verdict(record) != FRESH:
            return
        if isinstance(record, Erased):
            self._events = deque((e for e in self._events if e.user != record.user), maxlen=KEPT)
            self._counted.pop(record.user, None)
            self.drawn = {key: answer for key, answer in self.drawn.items() if key[0] != record.user}
        elif isinstance(record, Interacted):
            n, last = self._counted.get(record.user, (0, record.at))
            late = record.at < last - SESSION_GAP  # as in the fold (`learners.profiles`): it is none of the sequence
            if not late:
                self._counted[record.user] = n + 1, max(last, record.at)
            choice = -1 if late else n
            self._events.append(Event(record.source.appended, partition, offset, record.user, record.item, record.at, choice))
        elif isinstance(record, Shown):
            shown = record.impression
            if shown.propensities and shown.shown and 0 < shown.propensities[0] <= 1 and min(shown.propensities) < 1 and not shown.probe:
                self.drawn[shown.user, shown.seen] = Drawn(shown.shown[0], shown.propensities[0], shown.candidates)
                if len(self.drawn) > DRAWN:
                    del self.drawn[next(iter(self.drawn))]

    def lineage(self) -> dict[str, dict[str, list[int]]]:
        """{topic: {partition: [from, to)}} of what `read` last returned."""
        return {topics.TIMELINE: {str(p): [self.start.get(p, 0), end] for p, end in sorted(self.end.items())}}

    def close(self) -> None:
        self._consumer.close()
