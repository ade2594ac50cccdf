"""Histories: the cut by time, windows that hold nothing of the gate, questions as they were on the day."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learners.choices import gap
from learners.histories import ENOUGH, ITEMS, LENGTH, PAUSES, Event, Split, questions, split, training_windows, within
from learners.training import Training

CONFIG = Training(window=400, gate_share=0.2, gate_windows=30)


def log(users: list[int]) -> list[Event]:
    """Event number n is of `users[n]`, in partition user % 2, and chooses an item of its own: i<n>, row n + 1."""
    offsets = [0, 0]
    events = []
    for n, user in enumerate(users):
        events.append(Event(1000 + n, user % 2, offsets[user % 2], f"u{user}", f"i{n}", float(n * n)))
        offsets[user % 2] += 1
    return events


def rows(events: list[Event]) -> dict[str, int]:
    return {e.item: n for n, e in enumerate(events, 1)}


logs = st.lists(st.integers(0, 4), max_size=260).map(log)


@example(log([0] * 200), False, 100)
@given(logs, st.booleans(), st.integers(1, 300))
def test_a_split_keeps_every_event_once_and_in_time_order(events: list[Event], first: bool, window: int) -> None:
    part = split(events, replace(CONFIG, window=window), {}, first)
    assert [*part.before, *part.train, *part.gate] == events
    assert len(part.before) == (0 if first else max(0, len(events) - window - min(int(min(window, len(events)) * 0.2), 120)))
    if events:
        assert len(part.gate) == max(1, min(int((len(events) if first else min(len(events), window)) * 0.2), 120))


def test_trainings_a_window_apart_learn_every_event_once_as_new() -> None:
    """What one training leaves to the gate is the first that the next one learns."""
    events = log([n % 3 for n in range(2_000)])
    learned = [e.item for n in (500, 900, 1_300, 1_700) for e in split(events[:n], CONFIG, {}, False).train]
    assert learned == [f"i{n}" for n in range(20, 1_620)]


@given(logs, st.integers(0, 260))
def test_a_change_point_with_too_little_after_it_changes_nothing(events: list[Event], offset: int) -> None:
    assert split(events, CONFIG, {"0": offset, "1": offset}, False) == split(events, CONFIG, {}, False)


@pytest.mark.parametrize("first", [True, False])
def test_with_enough_after_it_the_change_point_is_where_learning_begins(first: bool) -> None:
    events = log([n % 3 for n in range(4 * ENOUGH)])
    config = replace(CONFIG, window=3 * ENOUGH)
    mark = {"0": 1400, "1": 700}
    part = split(events, config, mark, first)
    learned = [*part.train, *part.gate]
    assert all(e.offset >= mark[str(e.partition)] for e in learned)
    assert not any(e.offset >= mark[str(e.partition)] for e in part.before)
    assert len(learned) > ENOUGH


def test_a_change_point_older_than_the_window_leaves_the_window() -> None:
    events = log([n % 2 for n in range(3 * ENOUGH)])
    part = split(events, replace(CONFIG, window=500), {"0": 10, "1": 10}, False)
    assert len(part.before) == len(events) - 500 - 100


def test_a_partition_the_change_point_does_not_name_is_not_after_it() -> None:
    events = log([n % 2 for n in range(2 * ENOUGH + 400)])
    part = split(events, replace(CONFIG, window=10_000), {"0": 100}, False)
    assert part.before == events[:200]
    assert split(events, replace(CONFIG, window=10_000), {"7": 0}, False).before == []


@example(log([0] * 230 + [1] * 51), 200, 0)
@given(logs, st.integers(1, 300), st.integers(0, 200))
def test_every_choice_of_the_training_part_that_has_a_past_is_a_target_once(events: list[Event], window: int, replay: int) -> None:
    part, row = split(events, replace(CONFIG, window=window), {}, False), rows(events)
    made = training_windows(part, row, replay, np.random.default_rng(1))
    last: dict[str, int] = {}
    before: dict[int, int] = {}  # row of a choice -> row of the same user's choice before it
    for e in [*part.before, *part.train]:
        if e.user in last:
            before[row[e.item]] = last[e.user]
        last[e.user] = row[e.item]
    counted = made.weights > 0
    targets = made.targets[counted].tolist()
    assert len(set(targets)) == len(targets)
    fresh = {row[e.item] for e in part.train} & before.keys()
    assert fresh <= set(targets) <= before.keys()
    assert made.histories[:, ITEMS][counted].tolist() == [before[t] for t in targets]
    assert len(set(targets) - fresh) < replay + LENGTH if replay else set(targets) == fresh


@given(logs, st.integers(1, 300))
def test_windows_hold_nothing_of_the_gate_and_are_padded_on_the_left(events: list[Event], window: int) -> None:
    part, row = split(events, replace(CONFIG, window=window), {}, False), rows(events)
    made = training_windows(part, row, 10_000, np.random.default_rng(1))
    known = {row[e.item] for e in [*part.before, *part.train]} | {0}
    assert made.histories[:, ITEMS].shape == made.targets.shape == made.weights.shape == (len(made.targets), LENGTH)
    assert set(made.histories[:, ITEMS].ravel().tolist()) | set(made.targets.ravel().tolist()) <= known
    assert ((made.histories[:, ITEMS] == 0) == (made.targets == 0)).all()
    assert (np.diff((made.histories[:, ITEMS] > 0).astype(int), axis=1) >= 0).all()
    assert not made.weights[made.targets == 0].any()
    assert (made.weights > 0).any(1).all()


def test_replay_brings_older_choices_back_up_to_its_bound() -> None:
    events = log([n % 40 for n in range(4000)])
    part, row = Split(events[:3500], events[3500:3900], events[3900:]), rows(events)

    def replayed(replay: int) -> int:
        made = training_windows(part, row, replay, np.random.default_rng(3))
        return int((made.targets[made.weights > 0] <= 3500).sum())

    assert replayed(0) == 0
    assert 500 <= replayed(500) < 500 + LENGTH
    assert replayed(1_000_000) > replayed(500)


@given(logs, st.integers(1, 300), st.integers(0, 60))
def test_questions_ask_for_the_choices_of_the_gate_with_the_history_before_each(events: list[Event], window: int, n: int) -> None:
    part, row = split(events, replace(CONFIG, window=window), {}, False), rows(events)
    found = questions(part, row, n, np.random.default_rng(1))
    past: dict[str, list[int]] = {}
    wanted = {}
    for e in events:
        if e in part.gate and e.user in past:
            wanted[row[e.item]] = past[e.user][:]
        past.setdefault(e.user, []).append(row[e.item])
    assert len(found.answers) == min(n, len(wanted))
    assert found.answers.tolist() == sorted(found.answers.tolist())
    for items, answer, length in zip(found.histories[:, ITEMS], found.answers.tolist(), found.lengths.tolist(), strict=True):
        assert items[items > 0].tolist() == wanted[answer][-LENGTH:]
        assert not items[: LENGTH - len(wanted[answer])].any()
        assert length == len(wanted[answer])


def test_items_outside_the_vocabulary_are_no_history_and_as_answers_row_0() -> None:
    events = [Event(n, 0, n, "u", item, float(n)) for n, item in enumerate(["a", "new", "b", "new", "a"])]
    found = questions(Split([], events[:3], events[3:]), {"a": 1, "b": 2}, 9, np.random.default_rng(1))
    assert found.answers.tolist() == [0, 1]
    assert found.histories[:, ITEMS, -3:].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found.lengths.tolist() == [3, 4]


def test_popularity_counts_what_came_before_the_gate() -> None:
    events = [Event(n, 0, n, "u", item, float(n)) for n, item in enumerate("aabab")]
    found = questions(Split(events[:2], events[2:3], events[3:]), {"a": 1, "b": 2}, 9, np.random.default_rng(1))
    assert found.popularity.tolist() == [2, 1]


@pytest.mark.parametrize(("again", "n", "once"), [(0, 800, True), (0, 700, False), (10, 800, False), (3, 800, True)])
def test_a_stream_that_never_brings_an_item_back_is_known_as_such(again: int, n: int, once: bool) -> None:
    events = [Event(k, 0, k, f"u{k % 20}", f"i{k // 20}", float(k)) for k in range(n)]
    for k in range(again):
        events[400 + k] = events[400 + k]._replace(item=f"i{k // 20 + 2}")
    found = questions(Split([], events, [Event(n, 0, n, "u0", "i0", 0.0)]), {"i0": 1}, 9, np.random.default_rng(1))
    assert found.once is once


@given(logs)
def test_each_choice_of_a_history_says_how_long_it_was_until_the_next(events: list[Event]) -> None:
    part, row = split(events, CONFIG, {}, False), rows(events)
    at = {row[e.item]: e.at for e in events}
    made, asked = training_windows(part, row, 10_000, np.random.default_rng(1)), questions(part, row, 9, np.random.default_rng(1))
    for read, nexts in ((made.histories, made.targets), (asked.histories, np.c_[asked.histories[:, ITEMS, 1:], asked.answers])):
        wanted = [
            [gap(at[b] - at[a]) + 1 if a else 0 for a, b in zip(*pair, strict=True)]
            for pair in zip(read[:, ITEMS].tolist(), nexts.tolist(), strict=True)
        ]
        assert read[:, PAUSES].tolist() == wanted


def test_where_nobody_knows_the_times_pauses_are_0() -> None:
    events = [Event(n, 0, n, "u", item, float("nan")) for n, item in enumerate("abcd")]
    row = {item: n for n, item in enumerate("abcd", 1)}
    assert not training_windows(Split([], events, []), row, 0, np.random.default_rng(1)).histories[:, PAUSES].any()


def test_a_model_that_came_before_an_item_reads_padding_in_its_place() -> None:
    read = np.array([[[1, 5, 4], [7, 8, 9]]])
    assert within(read, 5).tolist() == [[[1, 0, 4], [7, 0, 9]]]
