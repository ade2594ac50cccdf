"""The demo story: a cold start, a first deep model, tastes that change, and the release that the change causes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from aiokafka import AIOKafkaProducer

from infra import control
from infra.interactions import Row, rows
from infra.replay import ENDING_S, Replay, titles
from infra.stack import Stack
from infra.watch import Watcher, words
from serving.client import AsyncClient
from serving.features import SOURCES
from streams import topics
from streams.events import DriftAlert, Event, Interaction, Item, Metric, to_bytes, utc
from streams.kafka import discard


@dataclass(frozen=True)
class Plan:
    """The story's dials. `planted_at`: event from which tastes change, for a `share` of the users, once the detector is
    armed; `armed_for_s`: how long an undisturbed story keeps the detector armed before it ends."""

    events_s: float = 250.0
    asks_s: float = 60.0
    planted_at: int = 29_000
    share: float = 0.75
    drift: bool = True
    armed_for_s: float = 90.0
    until: str = "forever"  # or "promoted": end once the release that the drift caused is live
    after_s: float = 30.0  # how long the story goes on after that, to see what the release is worth
    deadline_s: float = 340.0
    seed: int = 7


PROBED = 50  # length of a probe's list: while popularity leads, what a single click adds comes after the first ten


@dataclass
class Freshness:
    """Milliseconds from a producer's acknowledgement to the first list that knows of the event."""

    quiet: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    lost: int = 0

    def summary(self) -> dict[str, Any]:
        return {"quiet": _percentiles(self.quiet), "training": _percentiles(self.training), "lost": self.lost}


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    p50, p99 = np.percentile(values, [50, 99])
    return {"n": len(values), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


class Story:
    """Runs the story on a started stack; `say` gets a line for each thing that happens."""

    def __init__(self, stack: Stack, data: Path, plan: Plan, say: Callable[[str], None]) -> None:
        self.stack, self.plan, self.say = stack, plan, say
        self.data = data
        self.kafka, self.triton = stack.settings.kafka, stack.settings.triton.url
        self.watcher = Watcher(self.kafka, self._told)
        self.picture = self.watcher.picture
        self.freshness = Freshness()
        self.sent = 0  # events of ours, beside the replay's
        self.replay = Replay(self.kafka, self.triton, plan.events_s, plan.asks_s, self._tastes)
        self.began = time.time()
        self.planted: float | None = None
        self.planted_index: int | None = None
        self.armed: float | None = None
        self.times: dict[str, float] = {}
        self.chain: dict[str, Any] = {}
        self._swap: dict[str, str] = {}
        self._seen: dict[str, None] = {}
        self.done = asyncio.Event()
        self.ended = False  # the data

    # --- the planted change ------------------------------------------------------------------------------------------
    def _tastes(self, index: int, row: Row) -> str:
        self._seen.setdefault(row.item)
        if self.planted is None and self.plan.drift and self.armed is not None and index >= self.plan.planted_at:
            items = sorted(self._seen)
            shuffled = items[:]
            random.Random(self.plan.seed).shuffle(shuffled)
            self._swap = dict(zip(items, shuffled, strict=True))
            self.planted, self.planted_index = time.time(), index
            self.say(f"PLANTED at event {index}: {self.plan.share:.0%} of the users now choose other items than before; nobody is told")
        if self.planted is not None and crc32(row.user.encode()) % 1000 < self.plan.share * 1000:
            return self._swap.get(row.item, row.item)
        return row.item

    # --- what happens ------------------------------------------------------------------------------------------------
    def _told(self, topic: str, event: Event, appended: float) -> None:
        if not isinstance(event, Metric):
            self.say(words(event))
        if isinstance(event, DriftAlert) and event.status == "drift":
            self.say(f"waiting for {self.stack.settings.policy.after_change} records of the time after the change to learn from")
        self._follow_chain()

    def _follow_chain(self) -> None:
        """Once tastes have changed: which alert, which request it caused, and how far that request has come."""
        if self.planted is None:
            return
        at = self.picture.appended
        if "alert" not in self.chain:
            alert = next((a for a in self.picture.alerts if a.status == "drift" and at[a.id] > self.planted), None)
            if alert is None:
                return
            self.chain["alert"], self.times["alerted"] = alert.id, at[alert.id]
        if "request" not in self.chain:
            request = next((r for r in self.picture.requests if r.cause == self.chain["alert"]), None)
            if request is None:
                return
            self.chain["request"], self.times["requested"] = request.id, at[request.id]
        stages = {r.stage: r for r in self.picture.records if r.request == self.chain["request"]}
        names = {
            "requested": "training",
            "candidate": "judged",
            "refused": "refused",
            "canary": "canaried",
            "live": "live",
            "rolled_back": "rolled_back",
        }
        for stage, record in stages.items():
            self.times.setdefault(names[stage], at[record.id])
            self.chain[stage], self.chain["version"] = record.id, record.version
            if stage in ("candidate", "refused") and record.gates:
                self.times["trained"] = self.times["training"] + record.gates["total_s"]
                self.chain["gates"] = record.gates

    @property
    def is_training(self) -> bool:
        stages = self.picture.releases.stages
        return any(stage == "requested" for stage in stages.values())

    @property
    def next(self) -> str:
        """What the story waits for just now."""
        picture, policy = self.picture, self.stack.settings.policy
        live, canary = picture.releases.live, picture.releases.canary
        learned = picture.total("interactions")
        if self.ended:
            return "the data is at its end; ask, watch, send events of your own"
        if canary:
            return f"version {canary} is live once {self.stack.settings.rollout.judged} of its answers are judged"
        if self.is_training:
            return "the gate judges what is being trained"
        if not live:
            return f"the first training, at {policy.volume_first} events ({min(learned / policy.volume_first, 1):.0%})"
        if self.armed is None:
            seen = picture.judged.get(f"deep@{live}", 0)
            return f"the drift detector learns what is usual: {seen} of {policy.warm_up} sessions"
        if not self.plan.drift:
            return "nothing: no change is planted, no alert may come"
        if self.planted is None:
            return f"tastes change at event {self.plan.planted_at}"
        if "live" in self.times:
            return "the story is told; ask, watch, send events of your own: the system goes on"
        if "alerted" not in self.times:
            return "the detector has to notice"
        return f"training, once {policy.after_change} records show the new tastes"

    # --- run ---------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until the plan says so, or the data ends."""
        source = await asyncio.to_thread(rows, self.data, self.plan.seed)
        await self.watcher.start()
        await self._announce_items()
        tasks = [asyncio.create_task(t) for t in (self.replay.run(source), self._measure_freshness(), self._judge())]
        try:
            over = asyncio.create_task(self.done.wait())
            finished, _ = await asyncio.wait([tasks[0], over], return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
            if self.plan.until == "forever" and self.plan.drift:
                self.ended = True
                self.say("the data is at its end; the system goes on until Ctrl-C")
                await asyncio.Event().wait()
        finally:
            for task in (*tasks, over):
                task.cancel()
            await asyncio.gather(*tasks, over, self.watcher.stop(), self.replay.close(), return_exceptions=True)

    async def _announce_items(self) -> None:
        """The catalogue, where the data has one beside it: titles for people, categories for the ranker."""
        catalogue = titles(self.data)
        producer = AIOKafkaProducer(**self.kafka.aiokafka(), enable_idempotence=True, linger_ms=20)
        await producer.start()
        try:
            for item, (title, categories) in catalogue.items():
                event = Item(item=item, title=title, categories=categories or None, published_at=utc(0))
                await producer.send(self.kafka.prefix + topics.ITEMS, key=item.encode(), value=to_bytes(event))
            await producer.flush()
        finally:
            await discard(producer, ENDING_S)

    def _tell_effect(self, now: float) -> None:
        """What the change cost and what the release brought back, in hit rates of the lists that were asked for."""
        assert self.planted is not None
        live, rates = self.times["live"], self.replay.tally.hit_rates
        parts = {"before the change": (self.planted - 30, self.planted), "after it": (self.planted, live), "since": (live, now)}
        shares = [
            f"{name} {rates(since, until)[0]:.1%} (popularity {rates(since, until)[1]:.1%})" for name, (since, until) in parts.items()
        ]
        self.say(f"EFFECT: the lists held the next choice {', '.join(shares)}")

    async def _judge(self) -> None:
        """Watch for the moments that the story turns on."""
        told = False
        while True:
            await asyncio.sleep(0.2)
            now, live = time.time(), self.picture.releases.live
            warm = self.stack.settings.policy.warm_up
            if live and self.armed is None and self.picture.judged.get(f"deep@{live}", 0) >= warm:
                self.armed = now
                self.say(f"ARMED: the drift detector has seen {warm} sessions with version {live} and knows what is usual")
            if "live" in self.times and not told and now - self.times["live"] > self.plan.after_s:
                told = True
                self._tell_effect(now)
            if self.plan.until == "forever" and self.plan.drift:
                continue
            if "live" in self.times and now - self.times["live"] > self.plan.after_s:
                self.done.set()
            if not self.plan.drift and self.armed is not None and now - self.armed > self.plan.armed_for_s:
                self.done.set()
            if now - self.began > self.plan.deadline_s:
                self.say(f"the deadline of {self.plan.deadline_s:.0f} s is over")
                self.done.set()

    async def _measure_freshness(self) -> None:
        """New users click once; how long until their list knows it? Asked through Triton, again and again."""
        producer = AIOKafkaProducer(**self.kafka.aiokafka(), enable_idempotence=True, linger_ms=0)
        client = AsyncClient(self.triton)
        await producer.start()
        number = 0
        try:
            while True:
                await asyncio.sleep(0.6)
                if self.replay.tally.sent < 500:
                    continue
                user, item = f"freshness-{number}", list(self._seen)[number % 200]
                number += 1
                try:
                    await client.recommend(user, PROBED, probe=True)
                    event = Interaction(id=user, user=user, item=item, kind="view", at=utc(self.replay.tally.at))
                    await producer.send_and_wait(self.kafka.prefix + topics.INTERACTIONS, key=user.encode(), value=to_bytes(event))
                    self.sent += 1
                    acknowledged, training = time.perf_counter(), self.is_training
                    while not (await client.recommend(user, PROBED, probe=True)).is_personal:
                        if time.perf_counter() - acknowledged > 10:
                            self.freshness.lost += 1
                            break
                        await asyncio.sleep(0.003)
                    else:
                        ms = (time.perf_counter() - acknowledged) * 1000
                        (self.freshness.training if training or self.is_training else self.freshness.quiet).append(ms)
                except Exception as error:  # a killed server: the measurement goes on with the next one
                    self.freshness.lost += 1
                    self.say(f"freshness: {str(error)[:100]}")
                    await asyncio.sleep(1)
        finally:
            await discard(producer, ENDING_S)
            await client.close()

    # --- report ------------------------------------------------------------------------------------------------------
    async def report(self, setup_s: float | None) -> dict[str, Any]:
        """The one document that says what happened. Waits until nothing is on its way any more."""
        accounts = await asyncio.to_thread(self._settled)
        tally, planted = self.replay.tally, self.planted
        live_at = self.times.get("live")
        end = time.time()
        rates = {
            "all": tally.hit_rates(0, end),
            "before_change": tally.hit_rates((planted or end) - 30, planted or end),
            "after_change": tally.hit_rates(planted, live_at or end) if planted else (0.0, 0.0, 0),
            "after_release": tally.hit_rates(live_at, end) if live_at else (0.0, 0.0, 0),
        }

        def quality(since: float | None, until: float | None, version: int | None = None) -> dict[str, float]:
            return self.picture.quality("deep", end if since is None else since, until or end, version).rounded()

        before = self.chain.get("gates", {}).get("warm_start")
        deep = {
            "before_change": quality((planted or end) - 30, planted),
            "after_change": quality(planted, live_at, before),
            "after_release": quality(live_at, end, self.chain.get("version")),
        }
        first = next((r for r in self.picture.records if r.stage == "live"), None)
        return {
            "promoted": "live" in self.times,
            "setup_s": setup_s,
            "started_s": self.stack.times,
            "story_s": round(end - self.began, 1),
            "first_live_s": round(self.picture.appended[first.id] - self.began, 1) if first else None,
            "armed_s": round(self.armed - self.began, 1) if self.armed else None,
            "freshness": self.freshness.summary(),
            "planted": {"event": self.planted_index, "at_s": round(planted - self.began, 1)} if planted else None,
            "after_planted_s": {name: round(at - planted, 1) for name, at in self.times.items()} if planted else {},
            "chain": self.chain,
            "drift_alerts": sum(a.status == "drift" for a in self.picture.alerts),
            "hit_rate": {name: {"lists": round(a, 4), "popularity": round(b, 4), "asks": n} for name, (a, b, n) in rates.items()},
            "deep_source": deep,
            "sources_before_change": {
                signal: found.rounded()
                for signal in (*SOURCES, "served")
                if (found := self.picture.quality(signal, (planted or end) - 30, planted or end)).blocks
            },
            "releases": [
                {"version": r.version, "stage": r.stage, "request": r.request, "at_s": round(self.picture.appended[r.id] - self.began, 1)}
                for r in self.picture.records
            ],
            "asks": {
                "answered": len(tally.asked),
                "failed": tally.failed,
                "unsent": tally.unsent,
                "degraded": tally.degraded,
                "feedback": tally.feedback,
                "by_version": tally.versions,
            },
            "records": accounts,
            "restarts": self.stack.supervisor.restarts,
        }

    def _settled(self) -> dict[str, Any]:
        """Records in against records folded, dead letters and duplicates, once the state stands still."""
        deadline, before = time.monotonic() + 20, -1
        while True:
            standings = control.standings(self.kafka)
            folded = {
                what: sum(s.counts.get(what, 0) for s in standings.values()) for what in ("folded", "duplicates", "interactions", "judged")
            }
            inputs = sum(control.records_in(self.kafka, name) for name in topics.INPUTS)
            letters = sum(1 for letter in control.letters(self.kafka) if letter["topic"] in topics.INPUTS)
            balanced = inputs == folded["folded"] + folded["duplicates"] + letters
            if (balanced and inputs == before) or time.monotonic() > deadline:
                return {"in": inputs, **folded, "dead_letters": letters, "balanced": balanced}
            before = inputs
            time.sleep(0.5)


def dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2)
