"""Ingest: what is valid becomes one record, what is not is refused with its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import topics
from streams.events import MAX_BYTES, Interaction
from streams.ingest import BACKFILL, FUTURE_MS, Refused, _plain, dead_letter_headers, ingest
from streams.timeline import Erased, Interacted, Reacted
from tests.chaos.test_hostile import mutated
from tests.streams.conftest import event

NOW = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
INTERACTIONS, FEEDBACK, ERASURES = (topics.INPUTS.index(t) for t in (topics.INTERACTIONS, topics.FEEDBACK, topics.ERASURES))


def read(value: bytes | None, key: bytes | None = b"u", topic: int = INTERACTIONS, headers: tuple[tuple[str, bytes], ...] = ()) -> object:
    return ingest(topic, 3, 17, NOW, key, value, headers)


def test_valid_events_carry_where_they_came_from() -> None:
    record = read(event(id="e1", value=2.5, session="s", extra={"own": [1]}))
    assert isinstance(record, Interacted)
    assert (record.source.topic, record.source.partition, record.source.offset, record.source.appended) == (0, 3, 17, NOW)
    assert (record.user, record.item, record.kind, record.value, record.id, record.session) == ("u", "i", "view", 2.5, "e1", "s")
    assert record.at * 1000 == NOW
    assert not record.backfill


def test_the_key_may_be_missing_but_not_contradict() -> None:
    assert read(event(), key=None)
    assert read(event(), key=b"")
    with pytest.raises(Refused, match="key_contradicts"):
        read(event(), key=b"somebody else")


def test_feedback_and_erasures() -> None:
    value = json.dumps({"recommendation_id": "r", "user": "u", "item": "i", "kind": "dismiss", "at": "2026-01-01T00:00:00Z"}).encode()
    assert isinstance(read(value, topic=FEEDBACK), Reacted)
    assert isinstance(read(json.dumps({"user": "u", "at": "2026-01-01T00:00:00Z"}).encode(), topic=ERASURES), Erased)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"user": "u", "item"', "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[1]", "invalid"),
        (b"[" * 100_000, "too_large"),
        (b"[" * 60_000, "not_json"),
        (None, "empty"),
        (b"", "not_json"),
        (event(item=7), "invalid"),
        (event(value="3"), "invalid"),
        (event(kind="wiev"), "invalid"),
        (event(at="2026-01-01T00:00:00"), "invalid"),
        (event(at="yesterday"), "invalid"),
        (event(value=float("nan")), "invalid"),
        (event(value=1e999), "invalid"),
        (event(itme="i"), "unknown_name"),
        (event(item=""), "invalid"),
        (event(item=" i"), "invalid"),
        (event(item="a\x00b"), "invalid"),
        (event(item="i\n"), "invalid"),
        (event(user="x" * 10_000), "invalid"),
        (event(extra={"blob": "x" * 1_000_000}), "too_large"),
        (b'{"user": "u", "kind": "view", "at": "2026-01-01T00:00:00Z"}', "missing_name"),
        (event(item="\ud800"), "not_json"),
    ],
)
def test_bad_input_is_refused_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read(value, key=None)
    assert refused.value.reason == reason
    assert refused.value.detail


def test_a_time_in_the_future_is_refused_and_a_little_skew_is_not() -> None:
    def at(ms: int) -> bytes:
        return event(at=datetime.fromtimestamp((NOW + ms) / 1000, UTC).isoformat())

    assert read(at(FUTURE_MS))
    with pytest.raises(Refused, match="future"):
        read(at(FUTURE_MS + 1000))


def test_cloudevents_binary_mode_names_the_event_and_its_time() -> None:
    bare = json.dumps({"user": "u", "item": "i", "kind": "view"}).encode()
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"/shop"), ("ce_time", b"2026-01-01T00:00:00Z"))
    record = read(bare, headers=headers)
    assert isinstance(record, Interacted)
    assert record.id == "shop/7"
    assert record.at * 1000 == NOW
    with pytest.raises(Refused, match="cloudevents"):
        read(bare, headers=(("ce_specversion", b"0.3"), ("ce_id", b"7")))


def test_backfill_is_marked() -> None:
    record = read(event(), headers=((BACKFILL, b"1"),))
    assert isinstance(record, Interacted)
    assert record.backfill


def test_dead_letters_keep_their_headers_and_gain_the_reason() -> None:
    headers = dict(
        dead_letter_headers([("trace", b"1"), ("headrace.error.reason", b"old"), ("headrace.error.tries", b"2")], "future", "x", "t", 1, 2)
    )
    assert headers["trace"] == b"1"
    assert headers["headrace.error.reason"] == b"future"
    assert headers["headrace.error.tries"] == b"2"


@given(st.binary(max_size=400) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_no_bytes_get_past_ingest_with_anything_but_a_record_or_a_reason(value: bytes) -> None:
    for topic in range(len(topics.INPUTS)):
        assert outcome(value, topic)
    assert len(value) <= MAX_BYTES


def outcome(value: bytes, topic: int) -> str:
    try:
        read(value, key=None, topic=topic)
    except Refused as refused:
        return refused.reason
    return "read"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1 << 64},
        {"version": -1},
        {"seen": 1 << 70},
        {"at": 1e999},
        {"id": "x" * 300},
        {"arm": "leg"},
        {"features": "AAAA"},
        {"ranks": ""},
        {"ranks": "AA=="},
        {"ranks": "AAAA"},
        {"ranks": "no base64"},
        {"more": 1},
    ],
)
def test_an_impression_that_no_server_of_ours_made_is_refused(change: dict[str, object]) -> None:
    golden = json.loads((Path(__file__).parent.parent / "golden" / "recommendations.v1.json").read_text())
    recommendations = topics.INPUTS.index(topics.RECOMMENDATIONS)
    assert read(json.dumps(golden).encode(), key=b"ann", topic=recommendations)
    with pytest.raises(Refused) as refused:
        read(json.dumps({**golden, **change}).encode(), key=b"ann", topic=recommendations)
    assert refused.value.reason == "invalid"


def agrees(value: bytes) -> bool:
    """Was it taken at once? Then the model says the same of it."""
    plain = _plain(value)
    if plain is not None:
        event = Interaction.model_validate_json(value)
        for name in ("id", "user", "item", "kind", "value", "session", "extra"):
            assert getattr(plain, name) == getattr(event, name)
        assert abs((plain.at - event.at).total_seconds()) <= 1e-6
    return plain is not None


def test_what_is_taken_at_once_is_what_its_model_takes_too() -> None:
    rng = Random(4)
    taken = sum(agrees(mutated(rng, topics.INTERACTIONS, n)[0]) for n in range(4_000))
    assert 1_000 < taken < 3_000


@given(
    st.fixed_dictionaries({}, optional={name: st.text(max_size=4) for name in ("id", "user", "item", "session", "kind")}),
    st.text(max_size=30),
)
def test_what_is_taken_at_once_has_ids_that_its_model_takes_too(ids: dict[str, str], at: str) -> None:
    agrees(event(**ids))
    agrees(event(**ids, at=at))
