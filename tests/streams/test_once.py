"""Once: the fence, the window of ids, a timeline that was written anew."""

from hypothesis import given
from hypothesis import strategies as st

from streams.once import CHUNK, FRESH, REFOLDED, REPEATED, WINDOW, Once
from streams.timeline import Erased, Interacted, Moved, Source


def record(offset: int, id: str | None = None, partition: int = 0) -> Interacted:
    return Interacted(Source(0, partition, offset, offset), "u", "i", "view", 1.0, id=id)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=60))
def test_of_each_input_partition_only_what_is_above_counts(places: list[tuple[int, int]]) -> None:
    once, highest = Once(), dict[int, int]()
    for partition, offset in places:
        assert once.verdict(record(offset, partition=partition)) == (FRESH if offset > highest.get(partition, -1) else REFOLDED)
        highest[partition] = max(offset, highest.get(partition, -1))
    assert once.fences == {f"0/{partition}": offset for partition, offset in highest.items()}


def test_an_id_counts_once_within_the_window_and_again_beyond_it() -> None:
    once = Once()
    assert [once.verdict(record(n, "a")) for n in range(2)] == [FRESH, REPEATED]
    for n in range(2, WINDOW):
        once.verdict(record(n, str(n)))
    assert once.verdict(record(WINDOW, "a")) == REPEATED
    for n in range(WINDOW, WINDOW + 2 * CHUNK):
        once.verdict(record(n + 1, str(n)))
    assert once.verdict(record(2 * WINDOW, "a")) == FRESH


def test_what_changed_makes_an_equal_window_again() -> None:
    once, again = Once(), Once()
    for n in range(1000):
        once.verdict(record(n, str(n)))
    chunks = dict(once.changes())
    assert dict(once.changes()) == {} and sum(len(value) for value in chunks.values()) == 8 * 1000
    for chunk, value in chunks.items():
        again.load(chunk, value)
    again.ids = once.ids
    assert [again.verdict(record(n, str(n))) for n in (0, 999, 1000)] == [REPEATED, REPEATED, FRESH]
    again.load(0, None)
    assert again.verdict(record(2000, "0")) == FRESH


def test_a_moved_timeline_goes_on_from_the_fences_of_the_real_inputs() -> None:
    once = Once()
    once.verdict(record(7, partition=1_000_000))
    once.verdict(Moved(Source(5, 0, 0, 9), {"0/0": 7, "0/1": 3}))
    assert once.fences == {"0/0": 7, "0/1": 3}
    assert [once.verdict(record(n, partition=p)) for n, p in ((7, 0), (8, 0), (3, 1), (4, 1))] == [REFOLDED, FRESH, REFOLDED, FRESH]
    assert once.verdict(Erased(Source(2, 0, 0, 9), "u", 1.0)) == FRESH
