"""Event to list, through real Kafka and real Triton."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import tritonclient.grpc as triton

from streams import topics
from streams.history import History
from tests.integration.conftest import Running, interaction, until

pytestmark = pytest.mark.stack


def test_two_items_that_others_begin_to_click_together_are_in_the_list_of_the_next_within_a_second(stack: Running) -> None:
    for n in range(40):  # a catalogue in which neither is popular
        stack.click(f"crowd-{n % 8}", f"filler-{n}")
    for n in range(20):
        stack.click(f"pair-{n}", "left-shoe")
        stack.click(f"pair-{n}", "right-shoe")
    began = time.monotonic()
    stack.click("pair-21st", "left-shoe")
    until(lambda: "right-shoe" in stack.ask("pair-21st").items, timeout=1.0)
    assert time.monotonic() - began < 1.0


def test_an_answer_keeps_its_contract(stack: Running) -> None:
    stack.click("contract", "filler-1")
    answer = until(lambda: (a := stack.ask("contract", 5)).items and a)
    assert len(answer.items) == len(set(answer.items)) == 5 == len(answer.scores) == len(answer.propensities) == len(answer.reasons)
    assert all(0 < p <= 1 for p in answer.propensities) and answer.id and not answer.degraded
    assert 0 <= answer.state_age_ms < 5000
    assert stack.ask("contract", 5).id != answer.id


def test_exclusions_hidden_items_and_categories_hold(stack: Running) -> None:
    for n in range(6):
        stack.click(f"c-{n}", "red-hat")
        stack.click(f"c-{n}", "blue-hat")
    stack.send(topics.ITEMS, {"item": "red-hat", "categories": ["hats", "red"], "title": "Red hat"}, "red-hat")
    stack.send(topics.ITEMS, {"item": "blue-hat", "categories": ["hats"]}, "blue-hat")
    everything = {"k": 100, "recent": ["red-hat"]}
    until(lambda: set(stack.ask("", categories=["hats"], k=100).items) == {"red-hat", "blue-hat"})
    assert stack.ask("", categories=["red"], k=100).items == ["red-hat"]
    until(lambda: "blue-hat" in stack.ask("", **everything).items)  # the catalogue comes by another way than the clicks
    assert "blue-hat" not in stack.ask("", exclude=["blue-hat"], **everything).items
    stack.send(topics.ITEMS, {"item": "blue-hat", "hidden": True}, "blue-hat")
    until(lambda: "blue-hat" not in stack.ask("", **everything).items)
    stack.send(topics.ITEMS, {"item": "blue-hat", "hidden": False}, "blue-hat")
    until(lambda: "blue-hat" in stack.ask("", **everything).items)
    stack.producer.send(stack.kafka.prefix + topics.ITEMS, key=b"blue-hat", value=None).get(10)
    until(lambda: "blue-hat" not in stack.ask("", **everything).items)


def test_optional_inputs_may_be_absent_and_a_wrong_one_is_an_error_that_says_so(stack: Running) -> None:
    def infer(k: int) -> int:
        user, number = triton.InferInput("user_id", [1, 1], "BYTES"), triton.InferInput("k", [1, 1], "INT32")
        user.set_data_from_numpy(np.array([[b"nobody yet"]], object))
        number.set_data_from_numpy(np.array([[k]], np.int32))
        with triton.InferenceServerClient(stack.triton) as client:
            return client.infer("recommend", [user, number]).as_numpy("item_id").shape[1]

    def infer_two() -> None:
        user, number = triton.InferInput("user_id", [2, 1], "BYTES"), triton.InferInput("k", [2, 1], "INT32")
        user.set_data_from_numpy(np.array([[b"one"], [b"two"]], object))
        number.set_data_from_numpy(np.array([[3], [3]], np.int32))
        with triton.InferenceServerClient(stack.triton) as client:
            client.infer("recommend", [user, number])

    with pytest.raises(triton.InferenceServerException, match="ask for one user a request"):
        infer_two()
    assert infer(3) == 3
    with pytest.raises(triton.InferenceServerException, match="k is 0; it must be from 1 to 100"):
        infer(0)


def test_an_erased_user_starts_anew(stack: Running) -> None:
    for n in range(3):
        stack.click("forget-me", f"filler-{n}")
    until(lambda: any("covisited" in r or "after" in r or "neighbours" in r for r in stack.ask("forget-me", 100).reasons))
    stack.send(topics.ERASURES, {"user": "forget-me", "at": interaction("x", "y")["at"]}, "forget-me")
    until(lambda: not any("covisited" in r or "after" in r or "neighbours" in r for r in stack.ask("forget-me", 100).reasons))
    history = History(stack.kafka)  # what the trainer learns from
    assert "forget-me" not in {e.user for e in history.read()}
    history.close()


def test_impressions_are_on_the_bus_with_the_answers_id(stack: Running) -> None:
    from infra.control import read

    def logged(id: str) -> list[bytes]:
        return [r.value for r in read(stack.kafka, topics.RECOMMENDATIONS) if id.encode() in (r.value or b"")]

    for k, most in ((10, 6_000), (100, 17_000)):
        answer = stack.ask("logged", k)
        (impression,) = until(lambda id=answer.id: logged(id), 5, 0.2)
        assert len(impression) <= most
        assert set(answer.items) == set(json.loads(impression)["shown"])
