"""The product without its processes: the same fold, the same state, the same lists, one record after the other.

A record is encoded, folded, and what the fold would commit is loaded into the view that answers: what Kafka and Triton carry otherwise.
"""

from __future__ import annotations

import numpy as np

from infra.interactions import Row
from learners.online import Online
from serving.guard import Guard
from serving.recommend import Answer, Ask, Scored, View, answer
from serving.repeats import Repeats
from streams import topics
from streams.fold import Fold, Log
from streams.recommender import impression
from streams.standing import Standing
from streams.timeline import Interacted, Shown, Source, encode

REFRESH = 25  # events between two renewals of what is the same for everybody


class Copy:
    """A view that takes over what was learned after `start` events and then every so many, or no more."""

    def __init__(self, start: int, every: int | None = None, partitions: int = 1) -> None:
        self.view, self._start, self._every = View(Online(partitions, partitions)), start, every
        self.waiting: dict[tuple[int, bytes], bytes | None] = {}
        self._rng = np.random.default_rng(start)

    def due(self, learned: int) -> bool:
        """Does it take over after so many events?"""
        return learned == self._start or (self._every is not None and learned > self._start and (learned - self._start) % self._every == 0)

    def over(self, learned: int) -> bool:
        """Will it take over no more?"""
        return self._every is None and learned > self._start

    def ask(self, user: str, partition: int, profile: bytes | None, now: float, k: int, deep: Scored) -> Answer:
        """What it answers the user whose `profile` it is told as it is `now`, and forgets again: all else is as it was taken over."""
        profiles, self.view.watermark = self.view.online.profiles, now
        own = profiles.dump(user, partition)
        profiles.load(partition, user, profile)
        try:
            return answer(self.view, Ask(user, k), deep, 0.0, self._rng)
        finally:
            profiles.load(partition, user, own)


class Product:
    """Clocks are event times in ms; every record is its own batch, and its offset counts all records."""

    def __init__(self, seed: int, partitions: int = 1) -> None:
        self._folds, self.view = [Fold(p, partitions) for p in range(partitions)], View(Online(partitions, partitions))
        self._rng = np.random.default_rng(seed)
        self._offset, self._asked = 0, 0
        self._learned = 0
        self.copies: list[Copy] = []

    def _partition(self, user: str) -> int:
        return topics.partition_of(user, len(self._folds))

    def _commit(self, record: Interacted | Shown, user: str, at: float) -> None:
        partition = self._partition(user)
        fold, online = self._folds[partition], self.view.online
        step = fold.fold([Log(self._offset, int(at * 1000), None, encode(record))])
        self._offset += 1
        for copy in self.copies:
            if not copy.over(self._learned):
                copy.waiting.update({(partition, key): value for key, value in step.touched.items()})
        for key, value in step.touched.items():
            online.load(partition, key, value)
        self.view.positions[str(partition)] = self._offset
        online.popularity.clock[partition] = fold.online.popularity.clock[0]
        self.view.watermark = max(self.view.watermark, fold.standing.watermark)

    def learn(self, row: Row) -> None:
        """One interaction, as the timeline has it."""
        self._commit(Interacted(Source(0, 0, self._offset, int(row.at * 1000)), row.user, row.item, "view", row.at), row.user, row.at)
        if self._offset % REFRESH == 0:
            self._refresh(self.view)
        self._learned += 1
        for copy in self.copies:
            if copy.due(self._learned):
                self._take(copy)

    def _take(self, copy: Copy) -> None:
        for (partition, key), value in copy.waiting.items():
            copy.view.online.load(partition, key, value)
        copy.waiting = {}
        self._refresh(copy.view)

    def _refresh(self, view: View) -> None:
        """What the position records and the rankers' records carry, and the lists that are the same for everybody."""
        for partition, fold in enumerate(self._folds):
            standing = Standing.load(fold.position(0, 0)[1])
            view.online.popularity.clock[partition] = standing.clock
            view.guards[partition], view.repeats[partition] = Guard(standing.guard, standing.judged), Repeats(*standing.repeats)
            view.watermark = max(view.watermark, standing.watermark)
            if fold.ranker.slates:
                view.weights[partition] = fold.ranker.weights()
        view.refresh()

    def ask(self, user: str, k: int, deep: Scored | None = None) -> Answer:
        return answer(self.view, Ask(user, k), deep or Scored(), 0.0, self._rng)

    def ask_copy(self, copy: Copy, user: str, k: int, deep: Scored | None = None) -> Answer:
        """The same of one of its copies, with the user's own history as it is."""
        partition = self._partition(user)
        profile = self._folds[partition].online.profiles.dump(user)
        return copy.ask(user, partition, profile, self.view.watermark, k, deep or Scored())

    def show(self, user: str, made: Answer, at: float, version: int = 0) -> None:
        """The answer was shown: its impression goes to the fold, which judges it by the user's next choice."""
        self._asked += 1
        shown = impression(made, f"a{self._asked}", user, at, made.seen, version, version)
        self._commit(Shown(Source(3, 0, self._asked, int(at * 1000)), shown), user, at)
