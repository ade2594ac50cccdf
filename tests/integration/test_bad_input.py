"""Bad input on real Kafka: each a dead letter with its reason, its neighbours folded, a mended one brought back."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from infra import control
from streams import topics
from tests.integration.conftest import Running, interaction, until

pytestmark = pytest.mark.stack

FAR = (datetime.now(UTC) + timedelta(days=365)).isoformat()
BAD: dict[str, tuple[bytes, str | None, str]] = {
    "truncated": (b'{"user": "bad", "item": "half', None, "not_json"),
    "wrong type": (json.dumps(interaction("bad", "x", value="four")).encode(), None, "invalid"),
    "NaN": (json.dumps(interaction("bad", "x", value=float("nan"))).encode(), None, "invalid"),
    "unknown field": (json.dumps(interaction("bad", "x", itme="y")).encode(), None, "unknown_name"),
    "empty id": (json.dumps(interaction("bad", "")).encode(), None, "invalid"),
    "1 MB": (json.dumps(interaction("bad", "x", extra={"blob": "x" * 1_000_000})).encode(), None, "too_large"),
    "key": (json.dumps(interaction("bad", "x")).encode(), "somebody-else", "key_contradicts"),
    "future": (json.dumps({**interaction("bad", "x"), "at": FAR}).encode(), None, "future"),
    "long user": (json.dumps(interaction("u" * 10_000, "x")).encode(), None, "invalid"),
    "control characters": (json.dumps(interaction("bad", "<b>\x1b[31m")).encode(), None, "invalid"),
}


def test_each_is_a_dead_letter_with_its_reason_and_its_neighbours_are_folded(stack: Running) -> None:
    before = {x["id"] for x in control.letters(stack.kafka)}
    for n, (value, key, _) in enumerate(BAD.values()):
        stack.click("neighbour", f"good-{n}")
        stack.send(topics.INTERACTIONS, value, key)
    stack.click("neighbour", "good-last")

    def new() -> list[dict[str, object]]:
        return [x for x in control.letters(stack.kafka) if x["id"] not in before]

    until(lambda: len(new()) >= len(BAD), 10, 0.2)
    letters = {bytes(x["value"]): x for x in new()}  # type: ignore[arg-type, call-overload]
    assert len(letters) == len(BAD)
    for name, (value, _, reason) in BAD.items():
        assert letters[value]["reason"] == reason, name
        assert letters[value]["detail"], name
    profile = until(lambda: (n := folded(stack, "neighbour")) == len(BAD) + 1 and n)
    assert profile == len(BAD) + 1
    for answer in (stack.ask("neighbour", 100), stack.ask("bad", 100)):
        assert "" not in answer.items and "half" not in answer.items and not any("\x1b" in i for i in answer.items)


def test_a_bad_catalogue_entry_is_a_dead_letter_and_is_never_used(stack: Running) -> None:
    stack.send(topics.ITEMS, {"item": "bad-entry", "titel": "x", "hidden": True}, "bad-entry")
    stack.send(topics.ITEMS, {"item": "bad-entry", "hidden": True}, "another-key")
    reasons = until(lambda: len(found := [x["reason"] for x in control.letters(stack.kafka) if x["topic"] == topics.ITEMS]) >= 2 and found)
    assert set(reasons) == {"unknown_name", "key_contradicts"}
    stack.click("entry", "bad-entry")
    until(lambda: "bad-entry" in stack.ask("", 100, recent=["good-0"]).items)


def folded(stack: Running, user: str) -> int:
    """How many choices of `user` the online state holds, by the state topic."""
    from learners.items import Items
    from learners.profiles import Profiles

    profiles = Profiles(Items())
    for record in control.read(stack.kafka, topics.ONLINE_STATE):
        if record.key == f"u·{user}".encode():
            profiles.load(0, user, record.value)
    return profiles.seen(user)


def test_dlq_retry_brings_a_mended_one_back(stack: Running) -> None:
    stack.send(topics.INTERACTIONS, json.dumps(interaction("mended", "x", itme="typo")).encode(), "mended")
    mine = until(lambda: [x for x in control.letters(stack.kafka) if b'"mended"' in x["value"]], 10, 0.2)[0]
    listed = json.loads(stack.run("dlq", "list", "--reason", "unknown_name", "--json").splitlines()[-1])
    assert listed["reason"] == "unknown_name"
    assert "itme" in stack.run("dlq", "show", mine["id"])
    stack.run("dlq", "retry", mine["id"], "--value", json.dumps(interaction("mended", "mended-item")))
    until(lambda: folded(stack, "mended") == 1, 10, 0.2)
    stack.run("dlq", "show", "no/such/letter", code=3)


def test_any_client_and_any_partitioner_make_one_profile(stack: Running) -> None:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is missing: apt-get install -y kcat")
    for n in range(3):
        value = json.dumps(interaction("two-clients", f"kcat-{n}", id=f"kcat-{n}"))
        subprocess.run(
            ["kcat", "-P", "-b", stack.kafka.bootstrap, "-t", stack.kafka.prefix + topics.INTERACTIONS, "-K", "\t"],
            input=f"two-clients\t{value}\n", text=True, check=True, timeout=20,
        )  # fmt: skip
        stack.click("two-clients", f"python-{n}", id=f"python-{n}")
    stack.click("two-clients", "python-2", id="python-2")  # a producer's repeat
    until(lambda: folded(stack, "two-clients") >= 6, 10, 0.2)
    stack.click("two-clients", "end")
    until(lambda: folded(stack, "two-clients") == 7, 10, 0.2)


def test_cloudevents_headers_are_accepted(stack: Running) -> None:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"/shop"),
        ("ce_type", b"click"),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
    ]
    for _ in range(2):  # `ce_id` is the event's id: the second one is a repeat
        stack.send(topics.INTERACTIONS, {"user": "cloud", "item": "x", "kind": "click"}, "cloud", headers=headers)
    stack.click("cloud", "y")
    until(lambda: folded(stack, "cloud") == 2, 10, 0.2)


def test_every_record_is_accounted_for(stack: Running) -> None:
    def balanced() -> bool:
        standings = control.standings(stack.kafka).values()
        done = sum(s.counts.get("folded", 0) + s.counts.get("duplicates", 0) for s in standings)
        letters = sum(x["topic"] in topics.INPUTS for x in control.letters(stack.kafka))
        anonymous = sum(b'"user":""' in (r.value or b"") for r in control.read(stack.kafka, topics.RECOMMENDATIONS))
        return done + letters + anonymous == sum(control.records_in(stack.kafka, name) for name in topics.INPUTS)

    until(balanced, 15, 0.5)
