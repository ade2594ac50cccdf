"""Builders of records, as ingest would write them."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from learners.ranks import ABSENT
from serving.features import FEATURES, SOURCES
from streams import timeline
from streams.fold import Log
from streams.timeline import Impression, Interacted, Source


@pytest.fixture
def interacted() -> Callable[..., Interacted]:
    def build(
        offset: int, user: str, item: str, at: float = 0.0, id: str | None = None, partition: int = 0, appended: int | None = None
    ) -> Interacted:
        return Interacted(
            Source(0, partition, offset, offset * 10 if appended is None else appended), user, item, "view", at + offset, id=id
        )

    return build


@pytest.fixture
def impression() -> Callable[..., Impression]:
    """An answer whose candidates are `items`, the first two shown, the rest sampled; if there is a version, `deep` ranks them so."""

    def build(id: str, user: str, items: list[str], seen: int, version: int = 1, assigned: int = 1, degraded: bool = False) -> Impression:
        ranks = np.full((len(items), len(SOURCES)), ABSENT, np.uint8)
        ranks[:, 0] = np.arange(len(items)) if version else ABSENT
        return Impression(
            id=id,
            user=user,
            at=1.0,
            shown=items[:2],
            propensities=[1.0, 1.0],
            sample=items[2:],
            features=timeline.pack(np.random.default_rng(1).random((len(items), len(FEATURES))).astype("<f2")),
            candidates=items,
            ranks=timeline.pack_ranks(ranks),
            seen=seen,
            positions={"0": 0},
            version=version,
            assigned=assigned,
            degraded=degraded,
        )

    return build


@pytest.fixture
def logs() -> Callable[..., list[Log]]:
    """Records as the log holds them, offsets from `start`."""

    def build(*records: timeline.Record, start: int = 0) -> list[Log]:
        return [Log(start + n, r.source.appended, b"", timeline.encode(r)) for n, r in enumerate(records)]

    return build


def event(**changes: object) -> bytes:
    return json.dumps({"user": "u", "item": "i", "kind": "view", "at": "2026-01-01T00:00:00+00:00", **changes}).encode()
