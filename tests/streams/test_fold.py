"""The fold: one effect per record, and a state that a restart finds again to the last bit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from learners.online import Memory
from streams import canary, topics
from streams.events import Metric
from streams.fold import REPORTED, Fold, FoldError, Log, Step, shape
from streams.standing import POSITION, Incompatible, Standing
from streams.timeline import Erased, Reacted, Record, Shown, Source

Build = Callable[..., Any]
GOLDEN = Path(__file__).parent.parent / "golden"


def store(fold: Fold, step: Step, state: dict[bytes, bytes], next_offset: int) -> None:
    """What the commit does with a step."""
    for key, value in step.touched.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
    key, value = fold.position(next_offset, as_of=0)
    state[key] = value


def restored(state: dict[bytes, bytes]) -> Fold:
    fold = Fold(0, 2)
    for key, value in state.items():
        fold.load(key, value)
    return fold


def story(interacted: Build, impression: Build, n: int = 400) -> list[Record]:
    """Interactions, answers, feedback and an erasure, in one order."""
    rng, records = random.Random(3), []
    seen: dict[str, int] = {}
    for offset in range(n):
        user, item = f"u{rng.randrange(12)}", f"i{rng.randrange(30)}"
        records.append(interacted(offset, user, item, id=f"e{offset}" if offset % 3 else None))
        seen[user] = seen.get(user, 0) + 1
        if offset % 4 == 0:
            items = [f"i{k}" for k in rng.sample(range(30), 12)]
            source = Source(3, 0, offset, offset * 100)
            records.append(Shown(source, impression(f"r{offset}", user, items, seen[user] - offset % 2)))
            if offset % 8 == 0:
                records.append(Reacted(Source(1, 0, offset, offset * 100 + 1), f"r{offset}", user, items[0], "click", 1.0))
        if offset == n // 2:
            records.append(Erased(Source(2, 0, 0, offset * 100), "u1", 1.0))
            seen["u1"] = 0
    return records


@pytest.mark.parametrize("seed", range(5))
def test_any_cut_into_batches_with_any_restart_gives_the_same_state_and_outputs(
    seed: int, interacted: Build, impression: Build, logs: Build
) -> None:
    records = logs(*story(interacted, impression))
    whole, expected = Fold(0, 2), dict[bytes, bytes]()
    step = whole.fold(records)
    store(whole, step, expected, len(records))
    rng, fold, state, at = random.Random(seed), Fold(0, 2), dict[bytes, bytes](), 0
    outputs = []
    while at < len(records):
        end = min(at + rng.randrange(1, 60), len(records))
        part = fold.fold(records[at:end])
        outputs += part.outputs
        store(fold, part, state, end)
        at = end
        if rng.random() < 0.4:
            fold = restored(state)
    assert state == expected
    assert outputs == step.outputs
    assert whole.standing.counts["judged"] > 50
    assert whole.ranker.slates > 10
    assert len(outputs) > 10


def test_what_ingest_wrote_twice_is_dropped_by_the_fence(interacted: Build, logs: Build) -> None:
    fold = Fold(0, 2)
    first = [interacted(n, "u", f"i{n}") for n in range(5)]
    fold.fold(logs(*first, *first[2:], interacted(5, "u", "i5")))
    assert fold.standing.counts == {"folded": 6, "interactions": 6, "refolded": 3}
    assert fold.online.profiles.recent("u") == [f"i{n}" for n in range(6)]


def test_a_producers_repeats_end_at_the_window_of_ids_also_after_a_restart(interacted: Build, logs: Build) -> None:
    fold, state = Fold(0, 2), dict[bytes, bytes]()
    store(fold, fold.fold(logs(interacted(0, "u", "i", id="a"), interacted(1, "u", "i", id="a"), interacted(2, "u", "i"))), state, 3)
    again = restored(state)
    again.fold(logs(interacted(3, "u", "j", id="a"), interacted(4, "u", "j", id="b"), start=3))
    assert again.standing.counts["duplicates"] == 2
    assert again.standing.counts["interactions"] == 3


def test_an_answer_is_judged_by_the_choice_after_those_it_knew_in_either_order(interacted: Build, impression: Build, logs: Build) -> None:
    shown = Shown(Source(3, 0, 0, 50), impression("r", "u", ["x", "y", "z"], seen=1))
    for order in ([interacted(0, "u", "a"), shown, interacted(1, "u", "y")], [interacted(0, "u", "a"), interacted(1, "u", "y"), shown]):
        fold = Fold(0, 2)
        fold.fold(logs(*order))
        assert fold.standing.counts["judged"] == 1
        block = fold.ledgers["u"].block
        assert block is not None
        assert block.hits[0] == 1
        assert block.hits[-1] == 1
        assert block.ndcgs[0] == pytest.approx(0.6309, abs=1e-3)


def test_what_an_answer_logged_is_written_once_and_gone_with_the_verdict(interacted: Build, impression: Build, logs: Build) -> None:
    def shown(n: int) -> Shown:
        return Shown(Source(3, 0, n, 50 + n), impression(f"r{n}", "u", ["x", "y", "z"], seen=1))

    def written(*records: Record, start: int) -> dict[str, bool]:
        """Keys of what answers logged in this step: whether it was written, or removed."""
        touched = fold.fold(logs(*records, start=start)).touched
        return {key.decode(): value is not None for key, value in touched.items() if key.startswith("l·".encode())}

    fold = Fold(0, 2)
    assert written(interacted(0, "u", "a"), shown(0), start=0) == {"l·0·u": True}
    assert written(shown(1), start=2) == {"l·1·u": True}
    assert written(shown(2), shown(3), shown(4), start=3) == {"l·0·u": False, "l·2·u": True, "l·3·u": True, "l·4·u": True}  # four may wait
    assert written(Reacted(Source(1, 0, 0, 60), "r2", "u", "x", "click", 1.0), start=6) == {"l·2·u": False}
    assert written(interacted(1, "u", "y"), start=7) == {"l·1·u": False, "l·3·u": False, "l·4·u": False}
    assert (fold.logged, fold.standing.counts["judged"], fold.standing.counts["unjudged"]) == ({}, 4, 1)


def test_a_burst_is_reported_though_nothing_comes_after_it(interacted: Build, logs: Build) -> None:
    records = logs(*(interacted(n, f"u{n % 9}", f"i{n % 7}", appended=5_000) for n in range(2 * REPORTED + 50)))
    fold, found = Fold(0, 2), list[dict[str, int]]()
    for start, end in ((0, 700), (700, 1_700), (1_700, len(records))):
        for output in fold.fold(records[start:end]).outputs:
            metric = json.loads(output.value)
            if metric["signal"] == "stream/0":
                found.append({**metric["counts"], "at": metric["positions"]["0"]})
    assert [each.get("interactions", 0) for each in found] == [0, REPORTED, 2 * REPORTED]
    assert [each["at"] for each in found] == [0, REPORTED, 2 * REPORTED]


def test_feedback_that_comes_before_its_answer_waits_and_then_judges_it(interacted: Build, impression: Build, logs: Build) -> None:
    early = Reacted(Source(1, 0, 0, 10), "r", "u", "x", "click", 1.0)
    fold = Fold(0, 2)
    fold.fold(logs(early, Shown(Source(3, 0, 0, 20), impression("r", "u", ["x", "y"], seen=0))))
    assert fold.standing.counts["attributed"] == 1
    assert fold.standing.counts["judged"] == 1
    late = Reacted(Source(1, 0, 1, 700_000), "other", "u", "x", "click", 1.0)
    fold.fold(logs(Reacted(Source(1, 0, 2, 10), "lost", "u", "x", "click", 1.0), late, start=2))
    fold.fold(logs(Reacted(Source(1, 0, 3, 1_400_000), "another", "u", "x", "click", 1.0), start=4))
    assert fold.standing.counts["unattributed"] >= 1


def test_an_erased_user_is_nowhere_in_the_state(interacted: Build, impression: Build, logs: Build) -> None:
    fold, state = Fold(0, 2), dict[bytes, bytes]()
    records = [interacted(n, "erase-me", f"i{n}") for n in range(4)] + [interacted(9, "stays", "i1")]
    records.append(Shown(Source(3, 0, 0, 50), impression("r", "erase-me", ["x", "y"], seen=4)))
    store(fold, fold.fold(logs(*records)), state, 6)
    assert any(b"erase-me" in key + value for key, value in state.items())
    step = fold.fold(logs(Erased(Source(2, 0, 0, 99), "erase-me", 1.0), start=6))
    store(fold, step, state, 7)
    assert not any(b"erase-me" in key + value for key, value in state.items())
    assert restored(state).online.profiles.get("stays") is not None


def test_quality_leaves_as_metrics_once_a_second(interacted: Build, impression: Build, logs: Build) -> None:
    fold, records = Fold(0, 2), [interacted(n, "u", f"i{n}", appended=10) for n in range(12)]
    records += [Shown(Source(3, 0, n, 500 + n), impression(f"r{n}", "u", [f"i{n + 1}", "y", "z"], seen=n + 1)) for n in range(10)]
    first = fold.fold(logs(*records))
    assert {o.topic for o in first.outputs} <= {topics.METRICS}
    step = fold.fold(logs(interacted(12, "u", "i1", appended=1500), start=22))
    metrics = {m.signal: m for m in (Metric.model_validate_json(o.value) for o in step.outputs)}
    assert metrics["deep"].version == 1
    assert metrics["deep"].n == 1
    assert metrics["deep"].hits == [1.0]
    assert metrics["deep"].counts == {"asks": 10}
    assert metrics["stream/0"].counts["judged"] == 10
    assert not fold.fold(logs(interacted(13, "u", "i1", appended=1600), start=23)).outputs


def test_a_canary_is_judged_by_all_answers_of_its_users_also_by_those_it_had_no_list_for(
    interacted: Build, impression: Build, logs: Build
) -> None:
    answers = [("ann", 6, 6, False), ("bob", 7, 7, False), ("eve", 0, 7, True), ("joe", 0, 7, False)]
    fold, chosen = Fold(0, 2), {"ann": "y", "bob": "other", "eve": "x", "joe": "y"}
    fold.fold(logs(*(Shown(Source(3, 0, n, 10), impression(f"r{n}", user, ["x", "y"], 0, *of)) for n, (user, *of) in enumerate(answers))))
    fold.fold(logs(*(interacted(n, user, item, appended=20) for n, (user, item) in enumerate(chosen.items())), start=4))
    outputs = fold.fold(logs(interacted(20, "u", "x", appended=1_500), start=8)).outputs
    judged = dict(found for o in outputs if (found := canary.judged_in(o.value))[1])
    assert judged.keys() == {6, 7}
    assert [(j.ndcg, j.recall) for j in judged[6]] == [(0.6309, 1.0)]
    assert [(j.ndcg, j.recall, j.degraded) for j in judged[7]] == [(0.0, 0.0, 0), (1.0, 0.0, 1), (0.6309, 0.0, 0)]
    assert len({j.user for j in judged[6] + judged[7]}) == 4


def test_a_record_that_makes_the_fold_raise_is_named_and_can_be_left_out(interacted: Build, logs: Build) -> None:
    records = [*logs(interacted(0, "u", "i")), Log(1, 0, b"", b"\x93nonsense"), *logs(interacted(1, "u", "j"), start=2)]
    fold = Fold(0, 2)
    with pytest.raises(FoldError) as error:
        fold.fold(records)
    assert error.value.offset == 1
    fold.reset()
    fold.fold(records, skip={1})
    assert fold.standing.counts == {"folded": 2, "interactions": 2, "fold_errors": 1}


def test_a_state_of_other_settings_is_refused_with_the_remedy() -> None:
    with pytest.raises(Incompatible, match="headrace topics --create"):
        Fold(0, 3).load(POSITION, Standing(shape=shape(2, Memory())).dump())


def test_so_is_one_whose_records_cannot_be_read_though_its_position_comes_last() -> None:
    ledger_of_format_8 = msgspec.msgpack.encode([[["r", 1, 0, b"packed", False, 0]], [], [], None, 0])
    with pytest.raises(Incompatible, match=r"another format \(a·u: .*online-state.v1"):
        Fold(0, 2).load("a·u".encode(), ledger_of_format_8)


def test_the_shape_of_the_state_has_not_changed_unnoticed() -> None:
    """Whoever changes it must rebuild deployed states: bump streams.standing.FORMAT where the records change, too."""
    assert shape(4, Memory()) == json.loads((GOLDEN / "shape.json").read_text())["4"]
