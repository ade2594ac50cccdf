"""Ingest: raw bytes of an input topic -> one timeline record, or the reason why it is a dead letter. Stateless, pure.

Every check is here, so that the fold and everything after it may trust what it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from pydantic import ValidationError

from streams import timeline, topics
from streams.events import MAX_BYTES, Erasure, Feedback, Interaction, Item, Kind
from streams.timeline import Erased, Impression, Interacted, Reacted, Shown, Source

FUTURE_MS = 300_000  # an `at` later than the broker's append time plus this is refused
BACKFILL = "headrace.backfill"  # header of an interaction that is history
_MODELS: dict[str, type[Interaction] | type[Feedback] | type[Erasure]] = {
    topics.INTERACTIONS: Interaction,
    topics.FEEDBACK: Feedback,
    topics.ERASURES: Erasure,
}
_impression = msgspec.json.Decoder(Impression)


class _Plain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An `Interaction` by its types; what its model checks besides is in `_plain`."""

    user: str
    item: str
    kind: Kind
    at: Annotated[datetime, Meta(tz=True)]
    id: str | None = None
    value: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None
    session: str | None = None
    extra: dict[str, Any] | None = None


_decode_plain = msgspec.json.Decoder(_Plain).decode


class Refused(ValueError):
    """The record is a dead letter. `reason` is a short stable word, the text says what exactly."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


Headers = Sequence[tuple[str, bytes | None]]


def ingest(
    topic: int, partition: int, offset: int, appended: int, key: bytes | None, value: bytes | None, headers: Headers
) -> timeline.Fact | None:
    """The timeline record of one input record; None where there is nothing to learn (the catalogue, anonymous asks).

    `topic` is the input's number in `topics.READ`, `appended` the broker's append time in ms. Raises `Refused`.
    """
    name = topics.READ[topic]
    if value is None and name == topics.ITEMS:
        return None
    if value is None:
        raise Refused("empty", "the value is null; only items.v1 knows tombstones")
    if len(value) > MAX_BYTES:
        raise Refused("too_large", f"{len(value)} bytes, at most {MAX_BYTES}")
    source = Source(topic, partition, offset, appended)
    if name == topics.RECOMMENDATIONS:
        return _shown(source, key, value)
    if name == topics.ITEMS:
        item(key, value)
        return None
    named = dict(headers) if headers else {}
    envelope = {k: (v or b"").decode("utf-8", "replace") for k, v in named.items() if k.startswith("ce_")} if named else {}
    event = (_plain(value) if name == topics.INTERACTIONS and not envelope else None) or _event(name, value, envelope)
    at = event.at.timestamp()
    if at * 1000 > appended + FUTURE_MS:
        raise Refused("future", f"at {event.at.isoformat()} is more than {FUTURE_MS // 60_000} minutes after it was appended")
    _check_key(key, event.user)
    if isinstance(event, (_Plain, Interaction)):
        return Interacted(
            source,
            event.user,
            event.item,
            event.kind,
            at,
            event.value,
            event.id,
            event.session,
            backfill=BACKFILL in named,
        )
    if isinstance(event, Feedback):
        return Reacted(source, event.recommendation_id, event.user, event.item, event.kind, at, event.value, event.id)
    return Erased(source, event.user, at)


def _plain(value: bytes) -> _Plain | None:
    """The interaction where it is one beyond doubt, at a third of the price; None leaves the verdict to its model."""
    try:
        plain = _decode_plain(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    for id in (plain.user, plain.item, plain.id, plain.session):
        if id is not None and not (id.isprintable() and 0 < len(id) <= 256 and id[0] != " " != id[-1]):
            return None
    return plain


def _event(name: str, value: bytes, envelope: dict[str, str]) -> Interaction | Feedback | Erasure:
    try:
        if not envelope:
            return _MODELS[name].model_validate_json(value)
        if envelope.get("ce_specversion") != "1.0":
            raise Refused("cloudevents", f"ce_specversion {envelope.get('ce_specversion')!r}, only 1.0 is known")
        data = json.loads(value)
        if isinstance(data, dict):  # CloudEvents binary mode: the envelope names the event and its time
            if "ce_id" in envelope and data.get("id") is None:
                data["id"] = f"{envelope.get('ce_source', '')}/{envelope['ce_id']}".lstrip("/")
            if "ce_time" in envelope:
                data.setdefault("at", envelope["ce_time"])
        return _MODELS[name].model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise _refused(error) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("not_json", str(error)[:300]) from None


def item(key: bytes | None, value: bytes) -> Item:
    """The catalogue entry of a record of `items.v1`. Raises `Refused`."""
    try:
        entry = Item.model_validate_json(value)
    except ValidationError as error:
        raise _refused(error) from None
    if key != entry.item.encode():
        raise Refused("key_contradicts", f"key {(key or b'')[:64]!r} is not the item {entry.item[:64]!r}")
    return entry


def _refused(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "value"
    reason = {"json_invalid": "not_json", "extra_forbidden": "unknown_name", "missing": "missing_name"}.get(first["type"], "invalid")
    return Refused(reason, f"{where}: {first['msg']}"[:300])


def _check_key(key: bytes | None, user: str) -> None:
    if key and key != user.encode():
        raise Refused("key_contradicts", f"key {key[:64]!r} is not the user {user[:64]!r}")


def _shown(source: Source, key: bytes | None, value: bytes) -> Shown | None:
    try:
        impression = _impression.decode(value)
        if not isfinite(impression.at):
            raise ValueError("at is not finite")
        rows = len(impression.shown) + len(impression.sample)
        if len(timeline.unpack(impression.features, "<f2", 1)) % max(rows, 1):  # a server of another version has other features
            raise ValueError(f"features: not {rows} rows")
        timeline.unpack_ranks(impression.ranks, len(impression.candidates))
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused("invalid", str(error)[:300]) from None
    if not impression.user:
        return None
    _check_key(key, impression.user)
    return Shown(source, impression)


def dead_letter_headers(
    headers: Iterable[tuple[str, bytes | None]], reason: str, detail: str, topic: str, partition: int, offset: int
) -> list[tuple[str, bytes]]:
    """The record's own headers, then why and where it was refused; how often it was retried is counted by `dlq retry`."""
    why: dict[str, Any] = {"reason": reason, "detail": detail, "topic": topic, "partition": partition, "offset": offset}
    ours = [(f"headrace.error.{name}", str(what).encode()) for name, what in why.items()]
    kept = [(k, v or b"") for k, v in headers if not k.startswith("headrace.error.") or k == "headrace.error.tries"]
    return kept + ours
