"""What the Triton model `recommend` does: answers from the replica and the deep models that are released, and logs impressions."""

from __future__ import annotations

import copy
import gc
import logging
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from learners.compiled import compiled
from learners.histories import ITEMS
from learners.online import Online
from learners.ranks import ABSENT
from serving.bundle import LOADING, digest, folder_of
from serving.deep import Deep
from serving.recommend import Answer, Ask, Scored, View, answer
from serving.release import Releases
from serving.vocabulary import encoded, histories_of
from streams import topics
from streams.kafka import Kafka
from streams.replica import Replica
from streams.timeline import Impression, pack, pack_ranks

log = logging.getLogger("headrace.recommend")
STALE_MS = 5_000  # older state makes an answer degraded
BREAK_S = 2.0  # for so long a model that failed, or is not there, is left alone
IMPRESSION_BYTES = 6_000

Arm = Literal["live", "canary"]


@dataclass(frozen=True)
class Request:
    user: str
    k: int
    recent: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    probe: bool = False
    version: int = 0  # of the model, where it is not the user's


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

    def __init__(self, kafka: Kafka, repository: str, temperature: float, boot_s: float, trusted: str = "", keep: int = 3) -> None:
        self._repository, self._temperature, self._trusted, self._keep = Path(repository), temperature, trusted, keep
        self._models: dict[int, Deep] = {}  # changed by the loader, as a whole
        self._releases = Releases()  # what answers go by: the replica's fold as it was when its models were last looked for
        self._loader = ThreadPoolExecutor(1, "loader")
        self._asked: tuple[int, str, Future[None]] | None = None  # the version that somebody asks for before it is named, and its hash
        self._next: Future[None] | None = None  # look at the releases
        self._load_again = 0.0  # when a model that is not here is looked for again, monotonic s
        self._broken: dict[int, float] = {}  # versions that failed, and until when they are left alone
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
        self.replica = Replica(kafka, self._follow_later)
        self.replica.start()
        rehearse()  # while the replica catches up
        if not self.replica.caught_up.wait(boot_s):
            log.warning("not caught up after %s s; answering with what there is", boot_s)
        self._follow_later().result()
        gc.collect()
        gc.freeze()  # what is here now stays; to look through it all again (150,000 objects, most of the imports') took 100 ms of an answer

    def close(self) -> None:
        self._producer.poll(0)  # hears whether there is a bus to flush to
        self._producer.flush(0 if self._bus_down else 2)
        self.replica.close()
        self._loader.shutdown(cancel_futures=True)

    # --- releases ----------------------------------------------------------------------------------------------------
    def _follow_later(self) -> Future[None]:
        """Soon, by the loader; one that is waiting for its turn will see what we have seen."""
        if self._next is None or self._next.running() or self._next.done():
            self._next = self._loader.submit(self._follow)
        return self._next

    def _follow(self) -> None:
        """Have the models of the versions that may be asked for in memory, and only then let answers ask for them; then those that may come
        back.
        """
        releases = copy.copy(self.replica.releases)
        wanted = {releases.live, releases.canary} - {0}
        if not all([self._have(version, releases) for version in wanted]):
            self._load_again = time.monotonic() + BREAK_S
        if releases.live in self._models:
            self.replica.view.fallback = self._models[releases.live].vocabulary.popular
        self._releases = releases
        kept = set(releases.loaded(self._keep)) | wanted
        for version in kept - wanted:
            self._have(version, releases)
        asked = self._asked
        kept |= {asked[0]} if asked else set()
        self._models = {version: model for version, model in self._models.items() if version in kept}

    def _have(self, version: int, releases: Releases) -> bool:
        sha256, model = releases.hashes.get(version), self._models.get(version)
        if model is not None and sha256 in (None, model.vocabulary.sha256):
            return True
        try:
            self._prepare(version, sha256)
        except Exception as error:  # whoever named it, it is not here (yet), not the one named, or nothing that can be loaded
            self._models = {v: m for v, m in self._models.items() if v != version}
            log.warning("version %s: %r", version, error)
            return False
        return True

    def _prepare(self, version: int, sha256: str | None) -> None:
        items = self.replica.view.online.items
        loaded = Deep.load(folder_of(self._repository, version), sha256, self._trusted, version, items)
        loaded.places()  # the first time it looks every item up
        self._models = {**self._models, version: loaded}

    def missing(self, version: int) -> str | None:
        """Why that version cannot answer, else None: it is not in the repository as it should be, or is being loaded as we speak."""
        try:
            there = digest(folder_of(self._repository, version))
        except OSError as error:
            return f"version {version}: {error}"
        model = self._models.get(version)
        if model is not None and model.vocabulary.sha256 == there:
            return None
        if self._asked is None or self._asked[:2] != (version, there):
            self._asked = version, there, self._loader.submit(self._prepare, version, there)
        if not self._asked[2].done():
            return f"version {version} {LOADING}"
        why, self._asked = self._asked[2].exception(), None  # none where another bundle has taken the place of what was loaded meanwhile
        return f"version {version}: {why}" if why else f"version {version} {LOADING}"

    # --- answers -----------------------------------------------------------------------------------------------------
    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """One response per request."""
        if 0 < self._load_again < time.monotonic():
            self._load_again = 0.0
            self._follow_later()
        releases, models = self._releases, self._models  # together: what comes or goes meanwhile is the next batch's
        arms: list[tuple[int, Arm]] = [(r.version, "live") if r.version else releases.version_for(r.user) for r in requests]
        deep = self._deep(models, [version for version, _ in arms], requests)
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
            id = "" if request.version else self._log(request, made, served if lists and lists.items else 0, version, arm, degraded)
            out.append(Response(made.items, made.scores, made.propensities, made.reasons, id, served, heard, degraded))
        self._producer.poll(0)
        return out

    def _histories(self, model: Deep, requests: Sequence[Request]) -> npt.NDArray[np.int64]:
        """What the model reads of each (`learners.histories`)."""
        view = self.replica.view
        with self.replica.lock:
            users = ["" if request.recent else request.user for request in requests]
            out = histories_of(view.online, users, view.watermark, model.places()[1])
        for place, request in enumerate(requests):
            if request.recent:
                out[place] = encoded(model.vocabulary.named(request.recent))
        return out

    def _deep(self, models: dict[int, Deep], versions: Sequence[int], requests: Sequence[Request]) -> list[Scored | None]:
        """The deep model's list for each request, one call per version; None where its version cannot answer."""
        out: list[Scored | None] = [None] * len(versions)
        for version in set(versions) - {0}:
            rows = [i for i, v in enumerate(versions) if v == version]
            model = models.get(version)
            if model is None or time.monotonic() < self._broken.get(version, 0.0):
                continue
            histories = self._histories(model, [requests[i] for i in rows])
            for i in rows:
                out[i] = Scored()  # nothing of this history is in its vocabulary: a new user, not a failure
            some = np.flatnonzero(histories[:, ITEMS].any(1))
            if not len(some):
                continue
            try:
                lists = model.rank(histories[some])
            except RuntimeError as error:
                self._broken[version] = time.monotonic() + BREAK_S
                log.warning("version %s: %s", version, str(error)[:300])
                for i in rows:
                    out[i] = None
                continue
            for place, found in zip(some.tolist(), lists, strict=True):
                out[rows[place]] = found
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


def rehearse() -> None:
    """Compile the loops that make lists, or load them."""
    view = View(Online())
    made = answer(view, Ask("", 1), Scored(), 0.0, np.random.default_rng(0))
    impression(made, "", "", 0.0, 0, 0, 0)
    histories_of(view.online, [""], 0.0, np.zeros(1, np.int64))


def impression(
    made: Answer, id: str, user: str, at: float, seen: int, version: int, assigned: int,
    arm: Arm = "live", degraded: bool = False, probe: bool = False,
) -> Impression:  # fmt: skip
    """What is logged of an answer, within `IMPRESSION_BYTES`: of the candidates the best ones that fit."""
    room = max(IMPRESSION_BYTES - 800 - 2.67 * made.features.size, IMPRESSION_BYTES / 3)  # bytes
    n = _fitting(np.fromiter(map(len, made.candidates), np.int64, len(made.candidates)), made.ranks, room)
    return Impression(
        id=id,
        user=user,
        at=at,
        shown=made.items,
        propensities=made.propensities.astype(np.float64).round(6).tolist(),
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


@compiled
def _fitting(lengths: Any, ranks: Any, room: float) -> int:
    """How many candidates have room for their names, of these `lengths`, and for their ranks (`learners.ranks`, as base64)."""
    for candidate in range(len(ranks)):
        room -= 3 + lengths[candidate] + ranks.shape[1] / 6
        for source in range(ranks.shape[1]):
            if ranks[candidate, source] != ABSENT:
                room -= 4 / 3
        if room <= 0:
            return candidate
    return len(ranks)
