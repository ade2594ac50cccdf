"""The trainer's memory: each interaction once, answers that were drawn, and nothing of who is to be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from serving.off_policy import Drawn
from streams.history import History
from streams.kafka import Kafka
from streams.timeline import Erased, Shown, Source, encode

Build = Callable[..., Any]


def test_drawn_answers_are_remembered_by_user_and_what_they_knew_others_are_not(interacted: Build, impression: Build) -> None:
    history = History(Kafka("127.0.0.1:9", partitions=1))
    drawn = msgspec.structs.replace(impression("r1", "ann", ["x", "y", "z"], seen=1), propensities=[0.5, 0.6])
    best = impression("r2", "bob", ["x", "y"], seen=1)
    probe = msgspec.structs.replace(drawn, id="r3", user="eve", probe=True)
    facts = [interacted(0, "ann", "a"), interacted(0, "ann", "a"), interacted(1, "bob", "b")]
    facts += [Shown(Source(3, 0, n, 10), shown) for n, shown in enumerate((drawn, best, probe))]
    for offset, fact in enumerate(facts):
        history._take(0, offset, encode(fact))
    assert [(e.user, e.item) for e in history._events] == [("ann", "a"), ("bob", "b")]
    assert history.drawn == {("ann", 1): Drawn("x", 0.5, ["x", "y", "z"])}
    history._take(0, 9, encode(Erased(Source(2, 0, 0, 99), "ann", 1.0)))
    assert [e.user for e in history._events] == ["bob"] and history.drawn == {}
    history.close()
