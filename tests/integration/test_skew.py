"""No skew: what was served is what a replay of the timeline to the positions that it names computes, feature for feature."""

from __future__ import annotations

import contextlib
import threading
import time
from random import Random

import msgspec
import numpy as np
import pytest

from infra import control, state
from learners.online import Online
from learners.ranks import ABSENT
from serving.features import DEEP, FEATURES
from serving.recommend import Ask, Scored, View, consider
from streams import topics
from streams.fold import Fold, Log
from streams.ingest import Refused
from streams.replica import Replica
from streams.timeline import Impression, unpack, unpack_ranks
from tests.integration.conftest import Running, until

pytestmark = pytest.mark.stack

ASKS = 1_000


class Replayed:
    """A view that is folded from the timeline, up to given positions; nothing of it was ever on the state topic."""

    def __init__(self, stack: Running) -> None:
        shards = stack.kafka.partitions
        self._replica = Replica(stack.kafka)
        self.view = self._replica.view = View(Online(shards, shards))
        self._folds = [Fold(p, shards) for p in range(shards)]
        self._logs = [state.timeline(stack.kafka, p) for p in range(shards)]
        self._ahead = [next(logs, None) for logs in self._logs]
        for record in control.read(stack.kafka, topics.ITEMS):
            with contextlib.suppress(Refused):  # other tests have said things about items that no server believes
                self._replica._item(record.key, record.value, record.timestamp / 1000)

    def to(self, positions: dict[str, int]) -> None:
        for partition, fold in enumerate(self._folds):
            there, logs = positions.get(str(partition), 0), list[Log]()
            while (log := self._ahead[partition]) is not None and log.offset < there:
                logs.append(log)
                self._ahead[partition] = next(self._logs[partition], None)
            for start in range(0, len(logs), 50):
                touched = fold.fold(logs[start : start + 50]).touched
                for key, value in (*touched.items(), fold.position(there, 0)):
                    self._replica._state(partition, key, value)


def test_features_of_served_impressions_are_those_of_a_replay_to_their_positions(stack: Running) -> None:
    rng, stopped = Random(5), threading.Event()
    users, items = [f"skew-{n}" for n in range(60)], [f"thing-{n}" for n in range(150)]

    def traffic() -> None:
        mine = Random(6)
        while not stopped.is_set():
            stack.click(mine.choice(users), items[min(int(mine.expovariate(0.03)), len(items) - 1)])
            stopped.wait(0.005)  # too few for a first model to be trained meanwhile

    clicks = threading.Thread(target=traffic)
    clicks.start()
    try:
        asked = set[str]()
        for _ in range(ASKS):
            asked.add(stack.ask(rng.choice(users), 10).id)
            time.sleep(0.005)  # so that the state goes on between them
    finally:
        stopped.set()
        clicks.join()
    served: list[Impression] = []

    def logged() -> bool:
        records = [msgspec.json.decode(record.value, type=Impression) for record in control.read(stack.kafka, topics.RECOMMENDATIONS)]
        served[:] = [made for made in records if made.id in asked]
        return len(served) == len(asked) == ASKS

    until(logged, timeout=20, pause=0.5)
    served.sort(key=lambda made: int(made.id.split("-")[1], 16))
    replayed, refreshed, worst, distinct = Replayed(stack), None, 0.0, set()
    for made in served:
        if made.refreshed != refreshed:
            replayed.to(made.refreshed)
            replayed.view.refresh()
            refreshed = made.refreshed
        replayed.to(made.positions)
        found = consider(replayed.view, Ask(made.user, len(made.shown)), Scored())
        assert (unpack_ranks(made.ranks, len(made.candidates))[:, DEEP] == ABSENT).all(), "the replay has no deep model"
        place = {item: at for at, item in enumerate(found.items)}
        there = unpack(made.features, "<f2", len(FEATURES)).astype(float)
        here = found.features[[place[item] for item in (*made.shown, *made.sample)]].astype(float)
        worst = max(worst, float(np.abs(there - here).max(initial=0.0)))
        assert set(made.candidates) <= place.keys()
        assert (made.seen, made.context) == (found.seen, found.context)
        distinct.add(tuple(made.positions.values()))
    assert len(distinct) > 20
    assert worst <= 1e-6


def test_while_an_answer_is_made_no_state_is_taken_over_not_even_in_catching_up(stack: Running) -> None:
    user = "skew-caught"
    stack.click(user, "thing-1")
    until(lambda: stack.ask(user).items)
    replica = Replica(stack.kafka)
    try:
        with replica.lock:
            replica.start()
            assert not replica.caught_up.wait(3)
            assert not replica.view.online.profiles and not replica.view.positions
        assert replica.caught_up.wait(20)
        until(lambda: replica.view.online.profiles.head(user))
        assert replica.view.positions
    finally:
        replica.close()
