"""JSON Schema (draft 2020-12) of every public topic's values, made from the types that validate them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from streams import topics
from streams.events import PUBLIC
from streams.timeline import Impression

TOPICS = sorted([*PUBLIC, topics.RECOMMENDATIONS])


def schema(topic: str) -> dict[str, Any]:
    """The schema of the values of `topic`."""
    if topic == topics.RECOMMENDATIONS:
        document = msgspec.json.schema(Impression, ref_template="#/$defs/{name}")
        document = {**document, **document["$defs"]["Impression"]}
        del document["$ref"], document["$defs"]
    else:
        document = PUBLIC[topic].model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"headrace/{topic}.json", **document}


def text(topic: str) -> str:
    return json.dumps(schema(topic), indent=2, sort_keys=True) + "\n"
