"""What users did: a seeded stream of events, some sent twice, with a ledger of what the broker has acknowledged."""

from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
from confluent_kafka import Producer

from learners.ranks import ABSENT
from serving.features import FEATURES, SOURCES
from streams import topics
from streams.kafka import Kafka
from streams.timeline import pack, pack_ranks

USERS, ITEMS = 800, 2_000
REPEATED, GARBAGE, ASKED = 0.05, 0.002, 0.15  # shares of events: sent once more, unreadable, before which the user asked
BACK = 2_000  # a repeat is of one of the last so many events


class Ledger:
    """Sends `events_s` events a second from a thread, until `stop`. `sent` holds a user's event ids in their order."""

    def __init__(self, kafka: Kafka, seed: int, events_s: float) -> None:
        self.sent: dict[str, list[str]] = {}
        self.acknowledged: set[str] = set()
        self.records = dict.fromkeys(topics.INPUTS, 0)  # acknowledged, of every kind
        self.failed = 0
        self._seed, self._rng, self._speed = seed, random.Random(seed), events_s
        self._features = np.random.default_rng(seed).random((8, len(FEATURES))).astype("<f2")
        self._prefix = kafka.prefix
        self._stop = threading.Event()
        self._producer = Producer(
            kafka.confluent() | {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 300_000, "reconnect.backoff.max.ms": 200}
        )
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def events(self) -> int:
        return len(self.acknowledged)

    def stop(self) -> None:
        """Send no more, and wait until the broker has acknowledged all."""
        self._stop.set()
        self._thread.join(10)
        assert self._producer.flush(60) == 0, "the broker has not acknowledged everything within 60 s"

    def _run(self) -> None:
        rng, recent, began, number = self._rng, list[tuple[str, bytes, str]](), time.monotonic(), 0
        while not self._stop.is_set():
            ahead = began + number / self._speed - time.monotonic()
            self._producer.poll(0)
            if ahead > 0:
                time.sleep(min(ahead, 0.02))
                continue
            number += 1
            if recent and rng.random() < REPEATED:
                self._send(topics.INTERACTIONS, *recent[rng.randrange(len(recent))])
                continue
            if rng.random() < GARBAGE:
                self._send(topics.INTERACTIONS, "nobody", b'{"user": "u', "")
                continue
            user, id = f"u{rng.randrange(USERS)}", f"e{self._seed}-{number}"
            if rng.random() < ASKED:
                self._send(topics.RECOMMENDATIONS, user, self._impression(user, number), "")
            item = f"i{int(rng.paretovariate(0.8)) % ITEMS}"
            event = {"id": id, "user": user, "item": item, "kind": "click", "at": datetime.now(UTC).isoformat()}
            self.sent.setdefault(user, []).append(id)
            recent.append((user, json.dumps(event).encode(), id))
            del recent[:-BACK]
            self._send(topics.INTERACTIONS, *recent[-1])

    def _impression(self, user: str, number: int) -> bytes:
        """An answer, as `recommend` logs it: eight candidates, five of them shown."""
        items = [f"i{self._rng.randrange(40)}" for _ in range(24)]
        items = list(dict.fromkeys(items))[:8]
        ranks = np.full((len(items), len(SOURCES)), ABSENT, np.uint8)
        ranks[:, number % 4] = np.arange(len(items))
        value = {
            "id": f"r{self._seed}-{number}", "user": user, "at": time.time(), "shown": items[:5],
            "propensities": [1.0] * 5, "sample": items[5:],
            "features": pack(self._features[: len(items)]), "candidates": items, "ranks": pack_ranks(ranks),
            "seen": max(0, len(self.sent.get(user, ())) - 1), "positions": {}, "version": number % 2,
        }  # fmt: skip
        return json.dumps(value).encode()

    def _send(self, topic: str, user: str, value: bytes, id: str) -> None:
        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                self.failed += 1
                return
            self.records[topic] += 1
            if id:
                self.acknowledged.add(id)

        while True:
            try:
                self._producer.produce(self._prefix + topic, value, key=user.encode(), on_delivery=delivered)
                return
            except BufferError:  # the broker is away: the users wait
                self._producer.poll(0.1)
