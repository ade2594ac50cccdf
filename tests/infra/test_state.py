"""The state as a file: what is read is what was written, and anything else is refused with its reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from infra.state import Bound, Unfit, digest, load, positions, save
from learners.online import Memory
from streams.fold import Fold, Log
from streams.kafka import Kafka
from streams.standing import POSITION, Standing
from streams.timeline import Interacted, Source, encode

KAFKA = Kafka(partitions=2)


def states(n: int = 40, cut: int = 7, as_of: int = 5) -> dict[int, dict[bytes, bytes]]:
    """Both partitions after `n` choices each, folded in batches of `cut`."""
    found = {}
    for p in range(2):
        fold, state = Fold(p, 2), dict[bytes, bytes]()
        logs = [Log(i, i, b"", encode(Interacted(Source(0, p, i, i), f"u{i % 3}", f"i{i % 5}", "view", float(i)))) for i in range(n)]
        for start in range(0, n, cut):
            state.update({k: v for k, v in fold.fold(logs[start : start + cut]).touched.items() if v is not None})
        key, value = fold.position(n, as_of)
        found[p] = {**state, key: value}
    return found


def test_a_saved_state_is_loaded_equal_with_its_positions(tmp_path: Path) -> None:
    save(states(), tmp_path / "state", KAFKA, Memory())
    header, loaded = load(tmp_path / "state")
    assert loaded == states() and positions(loaded) == header.positions == {0: 40, 1: 40}


def test_the_hash_is_of_the_state_and_not_of_the_clock_or_the_cut() -> None:
    assert digest(states(cut=7, as_of=5)[0]) == digest(states(cut=1, as_of=99)[0]) != digest(states(n=39)[0])


@pytest.mark.parametrize("place", [b"u\xc2\xb7u1", POSITION])
def test_a_change_of_any_record_changes_the_hash(place: bytes) -> None:
    state = states()[0]
    before = digest(state)
    if place == POSITION:
        standing = Standing.load(state[place])
        standing.counts["folded"] += 1
        state[place] = standing.dump()
    else:
        state[place] += b"x"
    assert digest(state) != before


@pytest.mark.parametrize("harm", ["cut", "no gzip", "other", "missing"])
def test_a_file_that_is_not_whole_is_refused(harm: str, tmp_path: Path) -> None:
    file = tmp_path / "state"
    save(states(), file, KAFKA, Memory())
    if harm == "cut":
        with gzip.open(file) as text:
            whole = text.read()
        with gzip.open(file, "wb") as out:
            out.write(whole[: len(whole) // 2])
    elif harm == "no gzip":
        file.write_bytes(b"user,item\n")
    elif harm == "other":
        with gzip.open(file, "wb") as out:
            out.write(b"\0\0\0\1x")
    else:
        file.unlink()
    with pytest.raises(Unfit, match="is no state, or not a whole one"):
        load(file)


def test_a_bound_stops_before_its_offset_or_after_its_time() -> None:
    logs = [Log(n, n * 10, None, b"") for n in range(4)]
    assert [Bound(offsets={0: 2}).holds(0, log) for log in logs] == [True, True, False, False]
    assert not Bound(offsets={0: 2}).holds(1, logs[0])
    assert [Bound(until_ms=20).holds(0, log) for log in logs] == [True, True, True, False]
    assert Bound().holds(7, Log(1 << 40, 1 << 50, None, b""))
