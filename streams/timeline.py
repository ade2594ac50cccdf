"""The timeline's records: every valid fact about a user, compact, stamped with where it came from.

Internal (msgpack arrays, ~1 µs to decode); a new field goes at the end with a default. `Shown` is at the same time the
public impression log `recommendations.v1`, there as JSON.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from learners import ranks as by_source

MOST = 1_000  # entries of a list in an impression
ShortText = Annotated[str, Meta(max_length=256)]
ShortTexts = Annotated[list[ShortText], Meta(max_length=MOST)]
Whole = Annotated[int, Meta(ge=0, le=1 << 53)]  # exact in every JSON reader


class Source(msgspec.Struct, array_like=True, frozen=True):
    """Where a record was read: number of the input in `topics.INPUTS`, partition, offset, broker's append time (ms)."""

    topic: int
    partition: int
    offset: int
    appended: int


class Interacted(msgspec.Struct, array_like=True, frozen=True, tag="i"):
    """A user did something with an item. `at` in Unix seconds."""

    source: Source
    user: str
    item: str
    kind: str
    at: float
    value: float | None = None
    id: str | None = None
    session: str | None = None
    backfill: bool = False  # sent as history: it must not trigger a training by volume


class Reacted(msgspec.Struct, array_like=True, frozen=True, tag="f"):
    """A reaction to one recommendation."""

    source: Source
    recommendation_id: str
    user: str
    item: str
    kind: str
    at: float
    value: float | None = None
    id: str | None = None


class Erased(msgspec.Struct, array_like=True, frozen=True, tag="e"):
    """Forget this user."""

    source: Source
    user: str
    at: float


class Moved(msgspec.Struct, array_like=True, frozen=True, tag="m"):
    """The timeline was written anew, for another number of partitions: of each input ("input/partition"), what is not above
    these offsets stands before this record, stamped with other partitions than it came from (infra/repartition.py).
    """

    source: Source
    fences: dict[str, int]


class Impression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`recommendations.v1`, key user: one answer, with all that is needed to learn from it and to judge another policy.

    `shown` k item ids in order, `propensities` of each position, `sample` item ids drawn uniformly from the candidates
    not shown; `features` base64 of float16[len(shown) + len(sample), n_features]; `candidates` ids, best first, and
    `ranks` base64 of `learners.ranks`: which source (order: `serving.features`) named it at which rank, counting from 0.
    `seen` = how many of the user's interactions the answer knew; `positions` {timeline partition: next offset} of the
    state it rests on; `version` whose list is among the ranks (0: none); `assigned`: the user's, list or not, and its arm (live or
    canary); `probe` = asked by us, never shown; `context` of the ranker (`serving.features.GAPS`); `refreshed`: positions of what is
    the same for everybody, popularity above all.
    """

    id: ShortText
    user: ShortText
    at: float
    shown: ShortTexts
    propensities: Annotated[list[float], Meta(max_length=MOST)]
    sample: ShortTexts
    features: str
    candidates: ShortTexts
    ranks: str
    seen: Whole
    positions: dict[ShortText, Whole]
    version: Whole = 0
    arm: Literal["live", "canary"] = "live"
    degraded: bool = False
    probe: bool = False
    context: Whole = 0
    refreshed: dict[ShortText, Whole] = {}
    assigned: Whole = 0


class Shown(msgspec.Struct, array_like=True, frozen=True, tag="s"):
    """An impression on the timeline."""

    source: Source
    impression: Impression


Fact = Interacted | Reacted | Erased | Shown
Record = Fact | Moved


def user_of(fact: Fact) -> str:
    """Whom the fact is about."""
    return fact.impression.user if isinstance(fact, Shown) else fact.user


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
encode = _encoder.encode
decode = _decoder.decode


def pack(array: npt.NDArray[Any]) -> str:
    """The array's bytes as base64 text, row-major."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpack(text: str, dtype: Any, columns: int) -> npt.NDArray[Any]:
    """Array [rows, columns] of `pack`ed text; ValueError where the size does not fit."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype).reshape(-1, columns)


def pack_ranks(ranks: npt.NDArray[np.uint8]) -> str:
    """uint8[rows, sources], `learners.ranks`, as base64 text."""
    return base64.b64encode(by_source.packed(ranks)).decode()


def unpack_ranks(text: str, rows: int) -> npt.NDArray[np.uint8]:
    """uint8[rows, sources] of what `pack_ranks` gave; ValueError where it is not of so many rows."""
    return by_source.unpacked(base64.b64decode(text, validate=True), rows)
