"""Attribution: which answers wait, which are due, what a choice says about one and what is learned from it."""

import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.attribution import (
    EARLY,
    JUDGED,
    PENDING,
    WAIT_MS,
    Block,
    Early,
    Ledger,
    Logged,
    Pending,
    is_positive,
    pack,
    slate,
    unpack,
    verdict,
)  # fmt: skip
from learners.ranks import packed, unpacked

SOURCES, FEATURES = 3, 2


def waiting(id: str = "r", seen: int = 5, place: int = 0) -> Pending:
    return Pending(id, seen, 1, place)


def logged(shown: list[str] | None = None, sample: list[str] | None = None, values: np.ndarray | None = None) -> Logged:
    """Shows a, b, c and logs s, t of the unshown; candidates are these and d … k; item number n has feature n."""
    shown, sample = shown if shown is not None else ["a", "b", "c"], sample if sample is not None else ["s", "t"]
    candidates = [*shown, *sample, *"defghijk"]
    if values is None:
        values = np.arange(len(shown) + len(sample))[:, None] * np.ones(FEATURES)
    ranks = packed(np.arange(len(candidates) * SOURCES, dtype=np.uint8).reshape(-1, SOURCES))
    return Logged(shown, sample, values.astype(np.float16).tobytes(), candidates, ranks)


def test_an_answer_is_taken_once() -> None:
    ledger = Ledger(pending=[waiting("r1"), waiting("r2"), waiting("r3")])
    taken = ledger.take("r2")
    assert taken is not None
    assert taken.id == "r2"
    assert ledger.take("r2") is None
    assert [p.id for p in ledger.pending] == ["r1", "r3"]


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(0, 9))
def test_due_are_the_answers_that_knew_no_more_than_what_came_before_the_choice(seen: list[int], now: int) -> None:
    ledger = Ledger(pending=[waiting(str(n), s) for n, s in enumerate(seen)])
    assert [p.id for p in ledger.due(now)] == [str(n) for n, s in enumerate(seen) if s <= now]
    assert [p.id for p in ledger.pending] == [str(n) for n, s in enumerate(seen) if s > now]
    assert ledger.due(now) == []


@given(st.lists(st.integers(0, 2 * WAIT_MS), max_size=100).map(sorted), st.integers(0, 3 * WAIT_MS))
def test_reactions_wait_for_their_time_and_only_so_many(appended: list[int], now: int) -> None:
    ledger = Ledger(early=[Early("r", str(n), True, at) for n, at in enumerate(appended)])
    kept = [n for n, at in enumerate(appended) if at >= now - WAIT_MS][-EARLY:]
    assert ledger.expired(now) == len(appended) - len(kept)
    assert [e.item for e in ledger.early] == [str(n) for n in kept]
    assert ledger.expired(now) == 0


def test_a_reaction_waits_to_the_last_millisecond() -> None:
    ledger = Ledger(early=[Early("r", "i", True, 1000)])
    assert ledger.expired(1000 + WAIT_MS) == 0
    assert ledger.expired(1001 + WAIT_MS) == 1


def test_the_latest_judged_answers_are_remembered() -> None:
    ledger = Ledger()
    for n in range(50):
        ledger.remember(f"r{n}")
        assert len(ledger.judged) == min(n + 1, JUDGED)
    assert ledger.judged == [f"r{n}" for n in range(50 - JUDGED, 50)]


def test_two_fresh_ledgers_share_nothing() -> None:
    Ledger().pending.append(waiting())
    Ledger().early.append(Early("r", "i", True, 0))
    assert (Ledger().pending, Ledger().early, Ledger().judged) == ([], [], [])


def test_a_ledger_survives_the_state_topic() -> None:
    ledger = Ledger([waiting()], [Early("r", "i", False, 3)], ["r0"], Block(1, 2, [1, 0], [0.5, 0.0], [2, 1], 9))
    record = msgspec.msgpack.encode(ledger)
    assert msgspec.msgpack.decode(record, type=Ledger) == ledger
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(record, type=Ledger)) == record


def test_so_does_what_an_answer_logged() -> None:
    assert unpack(pack(logged())) == logged()


@given(st.lists(st.booleans(), max_size=30))
def test_no_two_waiting_answers_share_a_place(comes: list[bool]) -> None:
    ledger = Ledger()
    for n, come in enumerate(comes):
        if come:
            ledger.pending.append(waiting(str(n), place=ledger.free()))
        if ledger.pending and (not come or len(ledger.pending) > PENDING):
            ledger.pending.pop(0)
        places = [pending.place for pending in ledger.pending]
        assert len(set(places)) == len(places) and max(places, default=0) <= PENDING


@pytest.mark.parametrize(
    ("kind", "positive"), [("click", True), ("like", True), ("purchase", True), ("dislike", False), ("dismiss", False)]
)
def test_only_dislikes_and_dismissals_are_worth_nothing(kind: str, positive: bool) -> None:
    assert is_positive(kind) is positive


def test_a_verdict_has_each_sources_rank_of_the_item_and_last_its_place_as_shown() -> None:
    assert verdict(logged(), "a", SOURCES).tolist() == [0, 1, 2, 0]
    assert verdict(logged(), "c", SOURCES).tolist() == [6, 7, 8, 2]
    assert verdict(logged(), "t", SOURCES).tolist() == [12, 13, 14, 255]
    assert verdict(logged(), "elsewhere", SOURCES).tolist() == [255] * 4
    assert verdict(logged(), "c", SOURCES + 2).tolist() == [6, 7, 8, 255, 255, 2]  # by a server that knew two sources less


def test_so_does_one_by_a_server_that_zipped_its_ranks() -> None:
    zipped = zlib.compress(unpacked(logged().ranks, len(logged().candidates)).tobytes(), 1)
    old = msgspec.structs.replace(logged(), ranks=zipped)
    assert [verdict(old, item, SOURCES).tolist() for item in "act"] == [verdict(logged(), item, SOURCES).tolist() for item in "act"]


def test_a_place_beyond_a_byte_is_not_absence() -> None:
    long = Logged([f"i{n}" for n in range(300)], [], b"", [], b"")
    assert verdict(long, "i299", SOURCES).tolist() == [255, 255, 255, 254]


@pytest.mark.parametrize(("item", "row"), [("a", 0), ("c", 2), ("s", 3)])
def test_an_item_is_learned_against_all_that_was_logged(item: str, row: int) -> None:
    """Shown or in the sample of the unshown. Rows are a, b, c = 0, 1, 2 and s, t = 3, 4."""
    found = slate(logged(), item, FEATURES)
    assert found is not None
    rows, chosen = found
    assert (rows.dtype, rows.tolist(), chosen) == (np.float32, [[n] * FEATURES for n in range(5)], row)


@pytest.mark.parametrize("item", ["d", "elsewhere"])
def test_an_item_whose_features_were_not_logged_teaches_nothing(item: str) -> None:
    assert slate(logged(), item, FEATURES) is None


def test_a_slate_of_one_or_of_values_that_are_no_numbers_teaches_nothing() -> None:
    assert slate(logged(shown=["a"], sample=[]), "a", FEATURES) is None
    values = np.ones((5, FEATURES))
    values[4, 1] = np.nan
    assert slate(logged(values=values), "a", FEATURES) is None
    assert slate(logged(), "a", FEATURES + 1) is None, "a server of another version has other features"


def test_an_answer_without_a_sample_is_learned_from_what_it_showed() -> None:
    found = slate(logged(sample=[], values=np.ones((3, FEATURES))), "a", FEATURES)
    assert found is not None and (found[0].shape, found[1]) == ((3, FEATURES), 0)
