"""What the Triton model `recommend` does: answers from the replica, with the deep model's lists, and logs impressions."""

from __future__ import annotations

import copy
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from learners.online import Online
from learners.profiles import RECENT
from serving.bundle import folder_of
from serving.recommend import Answer, Ask, Scored, View, answer, consider
from serving.release import Releases
from serving.vocabulary import Vocabulary
from streams import topics
from streams.kafka import Kafka
from streams.replica import Replica
from streams.timeline import Impression, pack, pack_ranks

log = logging.getLogger("headrace.recommend")
STALE_MS = 5_000  # older state makes an answer degraded
BREAK_S = 2.0  # a dead `sequence` costs a second a call: after an error it is left alone for so long
IMPRESSION_BYTES = 6_000

Arm = Literal["live", "canary"]
Sequence_ = Callable[[int, npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Request:
    user: str
    k: int
    recent: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    probe: bool = False


@dataclass(frozen=True)
class Response:
    """What a client sees; `as_of` Unix ms of the state, 0 where none has been heard of."""

    items: list[str]
    scores: npt.NDArray[np.float32]
    propensities: npt.NDArray[np.float32]
    reasons: list[str]
    id: str
    version: int
    as_of: int
    degraded: bool


class Recommender:
    """Answers batches of requests. One per process, called from one thread; the replica runs beside it."""

    def __init__(self, kafka: Kafka, repository: str, temperature: float, boot_s: float, trusted: str = "") -> None:
        self._repository, self._temperature, self._trusted = Path(repository), temperature, trusted
        self._vocabularies: dict[int, Vocabulary] = {}
        self._releases = Releases()  # what answers go by: the replica's fold as it was when its vocabularies were last looked for
        self._loading = threading.Lock()
        self._load_again = 0.0  # when a vocabulary that is not here is looked for again, monotonic s
        self._broken_until = 0.0
        self._rng = np.random.default_rng()
        self._run, self._answers = uuid.uuid4().hex[:12], 0
        self._encode = msgspec.json.Encoder().encode
        self._topic = kafka.prefix + topics.RECOMMENDATIONS
        self._bus_down = False
        self.dropped = 0
        self._producer = Producer(
            kafka.confluent()
            | {
                "linger.ms": 10,
                "queue.buffering.max.messages": 5000,
                "queue.buffering.max.kbytes": 32768,
                "message.timeout.ms": 5000,
                "acks": "all",
                "topic.metadata.propagation.max.ms": 100,
                "error_cb": self._on_error,
            }
        )
        self.replica = Replica(kafka, self._on_release)
        self.replica.start()
        consider(View(Online()), Ask(""), Scored())  # compiles the loops, or loads them, while the replica catches up
        if not self.replica.caught_up.wait(boot_s):
            log.warning("not caught up after %s s; answering with what there is", boot_s)

    def close(self) -> None:
        self._producer.flush(2)
        self.replica.close()

    # --- releases ----------------------------------------------------------------------------------------------------
    def _on_release(self, releases: Releases) -> None:
        """Have the vocabularies of the versions that may be asked for in memory, and only then let answers ask for them."""
        with self._loading:
            for version in {releases.live, releases.canary} - {0} - self._vocabularies.keys():
                try:
                    folder = folder_of(self._repository, version)
                    self._vocabularies[version] = Vocabulary.load(folder, releases.hashes.get(version), self._trusted, version)
                except (OSError, ValueError, TypeError) as error:  # whoever named it, it is not here (yet), or not the one named
                    self._load_again = time.monotonic() + BREAK_S
                    log.warning("vocabulary of version %s: %s", version, error)
            if releases.live in self._vocabularies:
                self.replica.view.fallback = self._vocabularies[releases.live].popular
            for version in self._vocabularies.keys() - set(releases.loaded(4)) - {releases.live, releases.canary}:
                del self._vocabularies[version]
            self._releases = copy.copy(releases)

    # --- answers -----------------------------------------------------------------------------------------------------
    def answer(self, requests: Sequence[Request], sequence: Sequence_) -> list[Response]:
        """One response per request. `sequence(version, histories[B, 2, LENGTH])` calls the deep model, RuntimeError if it cannot."""
        if 0 < self._load_again < time.monotonic():
            self._load_again = 0.0
            self._on_release(self.replica.releases)
        arms = [self._releases.version_for(r.user) for r in requests]
        histories = [self._history(r) for r in requests]
        deep = self._deep(arms, histories, sequence)
        heard = min(self.replica.as_of.values())
        stale = not heard or time.time() * 1000 - heard > STALE_MS
        out = []
        for request, (version, arm), lists in zip(requests, arms, deep, strict=True):
            ask = Ask(request.user, request.k, request.recent, frozenset(request.exclude), frozenset(request.categories))
            with self.replica.lock:
                made = answer(self.replica.view, ask, lists or Scored(), self._temperature, self._rng)
            served = version if lists is not None else 0
            degraded = stale or (version > 0 and lists is None)
            # Where the deep model had nothing to say (a new user), the impression says nothing about the model.
            id = self._log(request, made, served if lists and lists.items else 0, version, arm, degraded)
            out.append(Response(made.items, made.scores, made.propensities, made.reasons, id, served, heard, degraded))
        self._producer.poll(0)
        return out

    def _history(self, request: Request) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
        """The items that the deep model reads, oldest first, and the pause after each; those of a session that came without times are
        not known.
        """
        view = self.replica.view
        if request.recent:
            return request.recent, np.zeros(len(request.recent), np.int64)
        profile = view.online.profiles.get(request.user)
        if profile is None:
            return (), np.empty(0, np.int64)
        names, chosen = view.online.items.names, profile.chosen[-RECENT:]
        return [names[row] if row >= 0 else "" for row in chosen.tolist()], profile.pauses(view.watermark)[-RECENT:]

    def _deep(
        self, arms: Sequence[tuple[int, Arm]], histories: Sequence[tuple[Sequence[str], npt.NDArray[np.int64]]], sequence: Sequence_
    ) -> list[Scored | None]:
        """The deep model's list for each request, one call per version; None where its version cannot answer."""
        out: list[Scored | None] = [None] * len(arms)
        for version in {v for v, _ in arms} - {0}:
            rows = [i for i, (v, _) in enumerate(arms) if v == version]
            vocabulary = self._vocabularies.get(version)
            if vocabulary is None or time.monotonic() < self._broken_until:
                continue
            known = [vocabulary.encode(*histories[i]) for i in rows]
            for i in rows:
                out[i] = Scored()  # nothing of this history is in its vocabulary: a new user, not a failure
            asked = [(i, k) for i, k in zip(rows, known, strict=True) if k.any()]
            if not asked:
                continue
            try:
                items, scores = sequence(version, np.stack([k for _, k in asked]))
            except RuntimeError as error:
                self._broken_until = time.monotonic() + BREAK_S
                log.warning("sequence %s: %s", version, str(error)[:300])
                for i in rows:
                    out[i] = None
                continue
            for (i, _), named, values in zip(asked, items, scores, strict=True):
                out[i] = Scored(*vocabulary.decode(named, values))
        return out

    # --- impressions -------------------------------------------------------------------------------------------------
    def _log(self, request: Request, made: Answer, version: int, assigned: int, arm: Arm, degraded: bool) -> str:
        """Send the impression; returns the recommendation's id, '' where the bus is down and nobody will hear of it."""
        self._answers += 1
        id = f"{self._run}-{self._answers:x}"
        seen = made.seen if not request.recent else 1 << 40  # a session of its own is judged by its feedback only
        at = self.replica.view.watermark or time.time()
        logged = impression(made, id, request.user, at, seen, version, assigned, arm, degraded, request.probe)
        try:
            self._producer.produce(self._topic, self._encode(logged), key=request.user.encode(), on_delivery=self._delivered)
        except BufferError:
            self.dropped += 1
            return ""
        return "" if self._bus_down else id

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.dropped += 1
        self._bus_down = error is not None

    def _on_error(self, error: Any) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._bus_down = True


def impression(
    made: Answer, id: str, user: str, at: float, seen: int, version: int, assigned: int,
    arm: Arm = "live", degraded: bool = False, probe: bool = False,
) -> Impression:  # fmt: skip
    """What is logged of an answer, within `IMPRESSION_BYTES`: of the candidates the best ones that fit."""
    room = IMPRESSION_BYTES - 800 - 2.67 * made.features.size  # bytes; a candidate's ranks take 6 at most, zipped
    n = len(made.candidates)
    if sum(map(len, made.candidates)) + 9 * n >= (most := max(room, IMPRESSION_BYTES / 3)):
        n = int(np.searchsorted(np.cumsum([len(c) + 9.0 for c in made.candidates]), most))
    return Impression(
        id=id,
        user=user,
        at=at,
        shown=made.items,
        propensities=[round(p, 6) for p in made.propensities.tolist()],
        sample=made.sample,
        features=pack(made.features.astype("<f2")),
        candidates=made.candidates[:n],
        ranks=pack_ranks(made.ranks[:n]),
        seen=seen,
        positions=made.positions,
        refreshed=made.refreshed,
        version=version,
        arm=arm,
        degraded=degraded,
        probe=probe,
        context=made.context,
        assigned=assigned,
    )
