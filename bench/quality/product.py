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
from streams.fold import Fold, Log
from streams.recommender import impression
from streams.standing import Standing
from streams.timeline import Interacted, Record, Shown, Source, encode

REFRESH = 25  # events between two renewals of what is the same for everybody


class Copy:
    """A view that takes over what was learned after `start` events and then every so many, or no more."""

    def __init__(self, start: int, every: int | None = None) -> None:
        self.view, self._start, self._every = View(Online(1, 1)), start, every
        self.waiting: dict[bytes, bytes | None] = {}
        self._rng = np.random.default_rng(start)

    def due(self, learned: int) -> bool:
        """Does it take over after so many events?"""
        return learned == self._start or (self._every is not None and learned > self._start and (learned - self._start) % self._every == 0)

    def over(self, learned: int) -> bool:
        """Will it take over no more?"""
        return self._every is None and learned > self._start

    def ask(self, user: str, profile: bytes | None, now: float, k: int, deep: Scored) -> Answer:
        """What it answers the user whose `profile` it is told as it is `now`, and forgets again: all else is as it was taken over."""
        profiles, self.view.watermark = self.view.online.profiles, now
        own = profiles.dump(user)
        profiles.load(0, user, profile)
        try:
            return answer(self.view, Ask(user, k), deep, 0.0, self._rng)
        finally:
            profiles.load(0, user, own)


class Product:
    """One partition. Clocks are event times in ms; every record is its own batch."""

    def __init__(self, seed: int) -> None:
        self.fold, self.view = Fold(0, 1), View(Online(1, 1))
        self._rng = np.random.default_rng(seed)
        self._offset, self._asked = 0, 0
        self._learned = 0
        self.copies: list[Copy] = []

    def _commit(self, record: Record, at: float) -> None:
        step = self.fold.fold([Log(self._offset, int(at * 1000), None, encode(record))])
        self._offset += 1
        for copy in self.copies:
            if not copy.over(self._learned):
                copy.waiting.update(step.touched)
        for key, value in step.touched.items():
            self.view.online.load(0, key, value)
        self.view.positions["0"] = self._offset
        self.view.online.popularity.clock[0], self.view.watermark = self.fold.online.popularity.clock[0], self.fold.standing.watermark

    def learn(self, row: Row) -> None:
        """One interaction, as the timeline has it."""
        self._commit(Interacted(Source(0, 0, self._offset, int(row.at * 1000)), row.user, row.item, "view", row.at), row.at)
        if self._offset % REFRESH == 0:
            self._refresh(self.view)
        self._learned += 1
        for copy in self.copies:
            if copy.due(self._learned):
                self._take(copy)

    def _take(self, copy: Copy) -> None:
        for key, value in copy.waiting.items():
            copy.view.online.load(0, key, value)
        copy.waiting = {}
        self._refresh(copy.view)

    def _refresh(self, view: View) -> None:
        """What the position record and the ranker's record carry, and the lists that are the same for everybody."""
        standing = Standing.load(self.fold.position(0, 0)[1])
        view.online.popularity.clock[0] = standing.clock
        view.guards[0], view.repeats[0] = Guard(standing.guard, standing.judged), Repeats(*standing.repeats)
        view.watermark = standing.watermark
        if self.fold.ranker.slates:
            view.weights[0] = self.fold.ranker.weights()
        view.refresh()

    def ask(self, user: str, k: int, deep: Scored | None = None) -> Answer:
        return answer(self.view, Ask(user, k), deep or Scored(), 0.0, self._rng)

    def ask_copy(self, copy: Copy, user: str, k: int, deep: Scored | None = None) -> Answer:
        """The same of one of its copies, with the user's own history as it is."""
        return copy.ask(user, self.fold.online.profiles.dump(user), self.view.watermark, k, deep or Scored())

    def show(self, user: str, made: Answer, at: float, version: int = 0) -> None:
        """The answer was shown: its impression goes to the fold, which judges it by the user's next choice."""
        self._asked += 1
        shown = impression(made, f"a{self._asked}", user, at, made.seen, version, version)
        self._commit(Shown(Source(3, 0, self._asked, int(at * 1000)), shown), at)
