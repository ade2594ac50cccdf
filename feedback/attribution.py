"""Attribution: which answer a reaction belongs to, and what the user's next choice says about that answer.

An answer is judged once, by the first of two things: positive feedback that names it, or the user's first interaction
after those that the answer knew (`seen`), which does not depend on how records race through the bus.
"""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
import numpy.typing as npt

from learners.ranks import ABSENT, unpacked

PENDING = 4  # answers of one user that wait for a verdict
EARLY = 64  # reactions of one user that wait for their answer's record
WAIT_MS = 600_000  # how long they wait
JUDGED = 16  # answers of one user whose ids are remembered after the verdict

pack = msgspec.msgpack.Encoder().encode
_NEGATIVE = frozenset({"dislike", "dismiss"})


class Logged(msgspec.Struct, array_like=True, frozen=True):
    """What an answer logged: ids, its features (float16 bytes, row-major) and ranks (`learners.ranks`); the ranker's context."""

    shown: list[str]
    sample: list[str]
    features: bytes
    candidates: list[str]
    ranks: bytes
    context: int = 0


unpack = msgspec.msgpack.Decoder(Logged).decode


class Pending(msgspec.Struct, array_like=True, frozen=True):
    """An answer that waits: its id, what it knew, and in which of the user's places its `Logged` is kept, packed."""

    id: str
    seen: int
    version: int
    place: int
    degraded: bool = False  # says nothing about a model: the state was old, or the model out of reach
    assigned: int = 0  # version that the user is given, whether or not it had a list


class Early(msgspec.Struct, array_like=True, frozen=True):
    """A reaction whose answer has not come by yet; `appended` is broker time in ms."""

    recommendation_id: str
    item: str
    positive: bool
    appended: int


class Block(msgspec.Struct, array_like=True):
    """Judged asks of one user's session under one model version: sums of hit@10, NDCG@10 and recall (the item was anywhere
    in the list), per source and as shown."""

    version: int
    n: int
    hits: list[int]
    ndcgs: list[float]
    recalls: list[int]
    touched: int  # broker time of the last one, ms


class Ledger(msgspec.Struct, array_like=True):
    """One user's open accounts."""

    pending: list[Pending] = []
    early: list[Early] = []
    judged: list[str] = []
    block: Block | None = None
    touched: int = 0  # broker time of the last answer or reaction, ms

    def free(self) -> int:
        """The first place that no waiting answer has."""
        return min(set(range(PENDING + 1)) - {pending.place for pending in self.pending})

    def take(self, recommendation_id: str) -> Pending | None:
        """Remove and return the waiting answer with that id."""
        for place, pending in enumerate(self.pending):
            if pending.id == recommendation_id:
                return self.pending.pop(place)
        return None

    def due(self, seen: int) -> list[Pending]:
        """Remove and return the waiting answers that the user's choice number `seen` + 1 gives a verdict on."""
        due = [p for p in self.pending if p.seen <= seen]
        self.pending = [p for p in self.pending if p.seen > seen]
        return due

    def expired(self, now_ms: int) -> int:
        """Drop the reactions that have waited too long; returns how many."""
        kept = [e for e in self.early if e.appended >= now_ms - WAIT_MS][-EARLY:]
        dropped = len(self.early) - len(kept)
        self.early = kept
        return dropped

    def remember(self, recommendation_id: str) -> None:
        self.judged = [*self.judged[1 - JUDGED :], recommendation_id]


def is_positive(kind: str) -> bool:
    """Is a reaction of this kind worth anything?"""
    return kind not in _NEGATIVE


def verdict(logged: Logged, item: str, sources: int) -> npt.NDArray[np.uint8]:
    """uint8[sources + 1]: at which rank each source, and last the list as shown, had `item`; `ABSENT` where it had not.

    A server of an earlier version knew fewer sources, the first of today's.
    """
    ranks = np.full(sources + 1, ABSENT, np.uint8)
    if item in logged.candidates:
        try:
            table = unpacked(logged.ranks, len(logged.candidates))
        except ValueError:  # of a timeline's time before `learners.ranks`; ingest has checked all that came since
            table = np.frombuffer(zlib.decompress(logged.ranks), np.uint8).reshape(len(logged.candidates), -1)
        known = min(table.shape[1], sources)
        ranks[:known] = table[logged.candidates.index(item), :known]
    if item in logged.shown:
        ranks[sources] = min(logged.shown.index(item), ABSENT - 1)
    return ranks


def slate(logged: Logged, item: str, features: int) -> tuple[npt.NDArray[np.float32], int] | None:
    """The slate to learn `item` from, where its features were logged, and are ours: (rows, row of the item), else nothing.

    Rows are the shown items and those sampled from the unshown: half of what the item stands against was thought good, which
    measured better than a uniform draw of all; nor does an item of the sample weigh the inverse of its chance (docs/log.md).
    """
    ids = [*logged.shown, *logged.sample]
    if item not in ids or len(ids) == 1:
        return None
    values = np.frombuffer(logged.features, np.float16).astype(np.float32)
    if len(values) != len(ids) * features or not np.isfinite(values).all():
        return None
    return values.reshape(-1, features), ids.index(item)
