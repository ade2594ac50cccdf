"""The product without its processes: the same fold, the same state, the same lists, one record after the other.

A record is encoded, folded, and what the fold would commit is loaded into the view that answers: what Kafka and Triton carry otherwise.
"""

from __future__ import annotations

import numpy as np

from infra.replay import Row
from learners.online import Online
from serving.guard import Guard
from serving.recommend import Answer, Ask, Scored, View, answer
from serving.repeats import Repeats
from streams.fold import Fold, Log
from streams.recommender import impression
from streams.standing import Standing
from streams.timeline import Interacted, Record, Shown, Source, encode

REFRESH = 25  # events between two renewals of what is the same for everybody


class Product:
    """One partition. Clocks are event times in ms; every record is its own batch."""

    def __init__(self, seed: int) -> None:
        self.fold, self.view = Fold(0, 1), View(Online(1, 1))
        self._rng = np.random.default_rng(seed)
        self._offset, self._asked = 0, 0
        self._state: dict[bytes, bytes | None] = {}  # as the state topic has it

    def _commit(self, record: Record, at: float) -> None:
        step = self.fold.fold([Log(self._offset, int(at * 1000), None, encode(record))])
        self._offset += 1
        self._state.update(step.touched)
        for key, value in step.touched.items():
            self.view.online.load(0, key, value)
        self.view.positions["0"] = self._offset
        self.view.online.popularity.clock[0], self.view.watermark = self.fold.online.popularity.clock[0], self.fold.standing.watermark

    def learn(self, row: Row) -> None:
        """One interaction, as the timeline has it."""
        self._commit(Interacted(Source(0, 0, self._offset, int(row.at * 1000)), row.user, row.item, "view", row.at), row.at)
        if self._offset % REFRESH == 0:
            self.refresh()

    def frozen(self) -> View:
        """A view of the state as it is now, which learns no more."""
        view = View(Online(1, 1))
        for key, value in self._state.items():
            view.online.load(0, key, value)
        self._refresh(view)
        return view

    def refresh(self) -> None:
        """What the position record and the ranker's record carry, and the lists that are the same for everybody."""
        self._refresh(self.view)

    def _refresh(self, view: View) -> None:
        standing = Standing.load(self.fold.position(0, 0)[1])
        view.online.popularity.clock[0] = standing.clock
        view.guards[0], view.repeats[0] = Guard(standing.guard, standing.judged), Repeats(*standing.repeats)
        view.watermark = standing.watermark
        if self.fold.ranker.slates:
            view.weights[0] = self.fold.ranker.weights()
        view.refresh()

    def ask(self, user: str, k: int, deep: Scored | None = None) -> Answer:
        return answer(self.view, Ask(user, k), deep or [], 0.0, self._rng)

    def show(self, user: str, made: Answer, at: float, version: int = 0) -> None:
        """The answer was shown: its impression goes to the fold, which judges it by the user's next choice."""
        self._asked += 1
        shown = impression(made, f"a{self._asked}", user, at, made.seen, version)
        self._commit(Shown(Source(3, 0, self._asked, int(at * 1000)), shown), at)
