"""What happens on the bus, as a picture that is always up to date: the screen, `watch --json` and the demo read it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from serving.release import Releases
from streams import topics
from streams.events import ANSWERS, PUBLIC, DriftAlert, Event, Metric, Release, RetrainingRequest
from streams.kafka import Kafka

WATCHED = (topics.METRICS, topics.DRIFT_ALERTS, topics.RETRAINING_REQUESTS, topics.RELEASES)
RECENT_S = 30.0  # qualities are means over the blocks of so many seconds


class Quality(NamedTuple):
    """Means over session blocks: hit rate @10, NDCG@10, recall of the whole list; and how many blocks."""

    hit10: float
    ndcg10: float
    recall: float
    blocks: int

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in self._asdict().items()}


@dataclass
class Picture:
    """The bus so far. `blocks` holds (append time s, metric) of the last minutes."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # stream/<partition> -> totals
    blocks: deque[tuple[float, Metric]] = field(default_factory=lambda: deque(maxlen=20_000))
    judged: dict[str, int] = field(default_factory=dict)  # signal@version -> blocks ever
    alerts: list[DriftAlert] = field(default_factory=list)
    requests: list[RetrainingRequest] = field(default_factory=list)
    records: list[Release] = field(default_factory=list)
    appended: dict[str, float] = field(default_factory=dict)  # id -> append time (s) of alerts, requests, releases
    releases: Releases = field(default_factory=Releases)
    training: tuple[int, int, int] | None = None  # version, step, steps

    def total(self, what: str) -> int:
        return sum(counts.get(what, 0) for counts in self.counts.values())

    def quality(self, signal: str, since: float, until: float = float("inf"), version: int | None = None) -> Quality:
        """The quality of a signal between two append times, in s."""
        chosen = [m for at, m in self.blocks if m.signal == signal and since <= at < until and (version is None or m.version == version)]
        n = sum(m.n for m in chosen)
        if not n:
            return Quality(0.0, 0.0, 0.0, 0)
        hit, ndcg, recall = (sum(sum(values(m)) for m in chosen) / n for values in (_hits, _ndcgs, _recalls))
        return Quality(hit, ndcg, recall, n)

    def take(self, topic: str, event: Event, appended: float) -> None:
        if isinstance(event, Metric):
            if event.signal.startswith("stream/"):
                self.counts[event.signal] = event.counts
            elif event.signal == "training":
                self.training = event.version, event.counts["step"], event.counts["steps"]
            elif event.signal != ANSWERS:  # these are blocks
                self.blocks.append((appended, event))
                name = f"{event.signal}@{event.version}"
                self.judged[name] = self.judged.get(name, 0) + event.n
            return
        if isinstance(event, DriftAlert):
            self.alerts.append(event)
        elif isinstance(event, RetrainingRequest):
            self.requests.append(event)
        elif isinstance(event, Release):
            ignored = event.apply_to(self.releases)
            if ignored is None:
                self.records.append(event)
        self.appended[event.id] = appended  # type: ignore[attr-defined] # these three have ids


class Watcher:
    """Tails the four topics from their beginning into a `Picture`; `on_event(topic, event, append time)` hears of each record."""

    def __init__(self, kafka: Kafka, on_event: Callable[[str, Event, float], None] = lambda topic, event, appended: None) -> None:
        self.picture = Picture()
        self.caught_up = asyncio.Event()  # with what was there at the start
        self._kafka, self._on_event = kafka, on_event
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            **self._kafka.aiokafka(), group_id=None, isolation_level="read_committed", auto_offset_reset="earliest", fetch_max_wait_ms=100
        )
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        places = [TopicPartition(self._kafka.prefix + name, 0) for name in WATCHED]
        self._consumer.assign(places)
        self._ends = await self._consumer.end_offsets(places)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        names = {self._kafka.prefix + name: name for name in WATCHED}
        while True:
            for place, records in (await self._consumer.getmany(timeout_ms=200)).items():
                name = names[place.topic]
                for record in records:
                    try:
                        event: Any = PUBLIC[name].model_validate_json(record.value or b"")
                    except ValidationError:
                        continue  # a hand-made record; whoever owns the topic has said so in the dead letters
                    self.picture.take(name, event, record.timestamp / 1000)
                    self._on_event(name, event, record.timestamp / 1000)
            if not self.caught_up.is_set() and not await self._behind():
                self.caught_up.set()

    async def _behind(self) -> bool:
        return any([await self._consumer.position(place) < end for place, end in self._ends.items()])

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._consumer.stop()


_hits, _ndcgs, _recalls = attrgetter("hits"), attrgetter("ndcgs"), attrgetter("recalls")


def recent(picture: Picture, signal: str, version: int | None = None) -> Quality:
    """The quality of a signal over the last `RECENT_S`."""
    return picture.quality(signal, time.time() - RECENT_S, version=version)


CAUSES = {
    "tastes_changed": "tastes have changed, the online sources feel it too",
    "model_outdated": "the model has aged, the online sources still find what is next",
    "recovered": "it finds as much as before",
}
REASONS = {"drift": "because of the drift alert", "volume": "enough new events", "schedule": "it is time", "manual": "somebody asked"}


def words(event: Event) -> str:
    """An alert, a request or a release record as a line for people."""
    if isinstance(event, DriftAlert):
        name = {"warning": "WARNING", "drift": "DRIFT", "cleared": "CLEARED"}[event.status]
        found = f"the deep model's list held {event.before:.0%} of the next choices, now {event.now:.0%}"
        return f"{name} version {event.version}: {found}; {CAUSES.get(event.cause, event.cause)}"
    if isinstance(event, RetrainingRequest):
        return f"REQUEST to train: {REASONS[event.reason]}{f' {event.cause}' if event.cause else ''}"
    if not isinstance(event, Release):
        raise TypeError(type(event))
    gates, version = event.gates or {}, f"version {event.version}"
    if event.stage == "requested":
        return f"TRAINING of {version} begins ({event.reason or 'no reason given'})"
    if event.stage == "candidate":
        live = f"against {gates['live_ndcg10']:.4f} of the live one and" if gates.get("live_ndcg10") is not None else "against"
        found = f"NDCG@10 {gates['ndcg10']:.4f} {live} {gates['popular_ndcg10']:.4f} of popularity" if "ndcg10" in gates else "no figures"
        return f"GATE passed by {version}: {found}, on {gates.get('questions', '?')} choices it was not trained on"
    if event.stage == "refused":
        return f"REFUSED {version}: {event.reason}"
    if event.stage in ("shadow", "canary"):
        return f"{event.stage.upper()} {version} answers {event.share or 0:.0%} of the users"
    judged = ""
    if gates.get("judged") is not None:
        harm = "no evidence of harm" if event.stage == "live" else "evidence of harm"
        judged = f": {gates['judged']} of its canary answers judged beside {gates.get('live_judged', '?')} of the live one's, {harm}"
    why = f" ({event.reason})" if event.reason else ""
    return f"{'LIVE' if event.stage == 'live' else 'ROLLED BACK'} {version}{judged}{why}"


def quality_line(picture: Picture) -> str:
    """How good the lists are just now, and how much has been learned, in one line."""
    parts = [f"learned {picture.total('interactions')} events"]
    for name, signal in (("lists", "served"), ("popularity", "popular_500"), ("deep model", "deep")):
        found = recent(picture, signal, picture.releases.live if signal == "deep" else None)
        if found.blocks:
            parts.append(f"{name} {found.ndcg10:.3f}")
    if len(parts) > 1:
        parts[1] = f"NDCG@10 of the last {RECENT_S:.0f} s: {parts[1]}"
    return ", ".join(parts)
