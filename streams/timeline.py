"""The timeline's records: every valid fact about a user, compact, stamped with where it came from.

Internal (msgpack arrays, ~1 µs to decode); a new field goes at the end with a default. `Shown` is at the same time the
public impression log `recommendations.v1`, there as JSON.
"""

from __future__ import annotations

import base64
import zlib
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

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
    `ranks` base64 of zlib of uint8[len(candidates), n_sources], 255 = not in that source's list (order: `serving.features`).
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
    """Ranks, most of which are absent, as base64 text of zlib, row-major: a third of the size."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(ranks).tobytes(), 1)).decode()


def unpack_ranks(text: str, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Array [rows, columns] of what `pack_ranks` gave; ValueError where it is none of that size, however large it would become."""
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(base64.b64decode(text, validate=True), rows * columns + 1)
    except zlib.error as error:
        raise ValueError(f"not zlib: {error}") from None
    if len(whole) != rows * columns or not stream.eof:
        raise ValueError(f"not {rows} rows of {columns}")
    return np.frombuffer(whole, np.uint8).reshape(rows, columns)
