"""The public events: golden files that never change, and schemas that say what is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from streams.events import PUBLIC, to_bytes
from streams.schemas import TOPICS, schema
from streams.timeline import Impression

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("topic", sorted(PUBLIC))
def test_the_golden_event_of_every_version_is_still_read_and_written_the_same(topic: str) -> None:
    golden = json.loads((GOLDEN / f"{topic}.json").read_text())
    event = PUBLIC[topic].model_validate_json(json.dumps(golden))
    assert json.loads(to_bytes(event)) == golden


def test_the_golden_impression_is_still_read_and_written_the_same() -> None:
    golden = json.loads((GOLDEN / "recommendations.v1.json").read_text())
    impression = msgspec.json.decode(json.dumps(golden), type=Impression)
    assert json.loads(msgspec.json.encode(impression)) == golden


@pytest.mark.parametrize("topic", TOPICS)
def test_the_schema_names_what_the_golden_event_holds_and_refuses_the_rest(topic: str) -> None:
    golden = json.loads((GOLDEN / f"{topic}.json").read_text())
    document = schema(topic)
    assert golden.keys() <= document["properties"].keys()
    assert document["additionalProperties"] is False
    assert document["$schema"].endswith("2020-12/schema")
