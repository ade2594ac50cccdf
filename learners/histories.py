"""Histories: the interactions a training may learn from, and the windows that are cut from them. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learners.choices import gaps
from learners.training import Training

LENGTH = 50  # choices of a history; left-padded with 0
ITEMS, PAUSES = 0, 1  # what a history holds of each choice: the item's row, and how long it was until the next one, or until now


class Event(NamedTuple):
    """One interaction: when it came (broker ms), where it lies in the log, who, what, and when (Unix s, nan where nobody knows); which of
    the user's choices it is, from 0, -1 where nobody counts, or it came too late to be one.
    """

    appended: int
    partition: int
    offset: int
    user: str
    item: str
    at: float
    choice: int = -1


def pauses(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How a history names times between choices: `learners.choices.gaps`, counting from 1; nan is 0."""
    return np.where(np.isnan(seconds), 0, gaps(np.nan_to_num(seconds)) + 1)


def within(histories: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """The same, items from row number `rows` on as padding: for a model that came before them."""
    return np.where((histories[:, ITEMS] < rows)[:, None], histories, 0)


@dataclass(frozen=True)
class Windows:
    """int64 `histories` [n, 2, LENGTH] and `targets` [n, LENGTH], left-padded with 0; `weights` [n, LENGTH] > 0 where a target counts."""

    histories: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Questions:
    """What a gate asks: histories int64 [n, 2, LENGTH], the item that came next int64 [n] (0: not in the vocabulary),
    the length of each user's whole history [n], how popular each answer was in training [n], and
    (user, which of their choices it is) of each.
    """

    histories: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    popularity: npt.NDArray[np.int64]
    once: bool  # this stream never brings an item back: what the history holds is no answer
    choices: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Split:
    """Events [a, b) to learn, [b, end) for the gate; `before` came earlier and may be replayed."""

    before: Sequence[Event]
    train: Sequence[Event]
    gate: Sequence[Event]


def split(events: Sequence[Event], config: Training, change_point: dict[str, int], first: bool) -> Split:
    """Cut `events`, in broker order, by time. A first training learns all; a fine-tune the newest window before the gate's
    share, after the change point where at least `ENOUGH` of it lie after that."""
    held = min(int((len(events) if first else min(len(events), config.window)) * config.gate_share), 4 * config.gate_windows)
    start = 0 if first else max(0, len(events) - config.window - held)
    after = [i for i, e in enumerate(events) if e.offset >= change_point.get(str(e.partition), 1 << 62)] if change_point else []
    if len(after) >= ENOUGH:
        start = max(start, after[0])
    held = max(1, min(held, int((len(events) - start) * config.gate_share)))
    return Split(events[:start], events[start : len(events) - held], events[len(events) - held :])


ENOUGH = 1_000  # events after the change point that a fine-tune needs to stay behind it


def training_windows(part: Split, row: dict[str, int], replay: int, rng: np.random.Generator, length: int = LENGTH) -> Windows:
    """Windows of `length` whose targets lie in `part.train`, and older ones with about `replay` targets (the last
    window is taken whole), so that it does not forget."""
    events, numbers = [*part.before, *part.train], dict[str, int]()
    users = np.fromiter((numbers.setdefault(event.user, len(numbers)) for event in events), np.int64, len(events))
    rows = np.fromiter((row[event.item] for event in events), np.int64, len(events))
    at = np.fromiter((event.at for event in events), np.float64, len(events))
    order = np.argsort(users, kind="stable")  # each user's events side by side, oldest first
    sizes = np.bincount(users, minlength=len(numbers))
    ends, cut = np.cumsum(sizes), -(-np.maximum(sizes - 1, 0) // length)  # windows are cut from the newest event backwards
    end = np.repeat(ends, cut) - length * (np.arange(cut.sum()) - np.repeat(np.cumsum(cut) - cut, cut))
    targets_of = np.minimum(end - 1 - np.repeat(ends - sizes, cut), length)
    new = order[end - 1] >= len(part.before)
    old = rng.permutation(np.flatnonzero(~new))
    left = replay - (np.cumsum(targets_of[old]) - targets_of[old])  # before each of them is taken
    chosen = np.concatenate([np.flatnonzero(new), old[left > 0]])
    back = np.arange(length)[::-1]
    there = back < targets_of[chosen, None]
    place = np.where(there, end[chosen, None] - 1 - back, 1)
    targets, before = order[place], order[place - 1]
    fresh = (targets >= len(part.before)) | ~new[chosen, None]
    read = np.stack([rows[before], pauses(at[targets] - at[before])], 1)
    return Windows(
        histories=np.where(there[:, None], read, 0), targets=np.where(there, rows[targets], 0), weights=(there & fresh).astype(np.float32)
    )


def questions(part: Split, row: dict[str, int], n: int, rng: np.random.Generator) -> Questions:
    """Up to `n` of the gate's events with the history before each, of users that have one."""
    counts: dict[str, int] = {}
    pasts: dict[str, tuple[list[str], list[float]]] = {}  # items, times
    repeats = total = 0
    for event in (*part.before, *part.train):
        past, times = pasts.setdefault(event.user, ([], []))
        repeats, total = repeats + (event.item in past[-LENGTH:]), total + 1
        past.append(event.item)
        times.append(event.at)
        counts[event.item] = counts.get(event.item, 0) + 1
    asked: list[tuple[list[str], list[float], str, int, tuple[str, int]]] = []
    for event in part.gate:
        past, times = pasts.setdefault(event.user, ([], []))
        times.append(event.at)
        if past:
            asked.append((past[-LENGTH:], times[-LENGTH - 1 :], event.item, len(past), (event.user, event.choice)))
        past.append(event.item)
    chosen = sorted(rng.choice(len(asked), min(n, len(asked)), replace=False).tolist()) if asked else []
    histories = np.zeros((len(chosen), 2, LENGTH), np.int64)
    for i, place in enumerate(chosen):
        past, times, *_ = asked[place]
        read = np.stack([[row.get(item, 0) for item in past], pauses(np.diff(times))])
        read = read[:, read[ITEMS] > 0]
        histories[i, :, LENGTH - read.shape[1] :] = read
    return Questions(
        histories=histories,
        answers=np.array([row.get(asked[place][2], 0) for place in chosen], np.int64),
        lengths=np.array([asked[place][3] for place in chosen], np.int64),
        popularity=np.array([counts.get(asked[place][2], 0) for place in chosen], np.int64),
        once=total >= 750 and repeats / total < 0.005,
        choices=[asked[place][4] for place in chosen],
    )


def popular(part: Split, row: dict[str, int]) -> npt.NDArray[np.float32]:
    """float32[rows]: decayed popularity (half-life 500 events) at the end of the training part."""
    scores = np.zeros(len(row) + 1, np.float32)
    for age, event in enumerate(reversed([*part.before, *part.train][-5_000:])):
        scores[row[event.item]] += 0.5 ** (age / 500)
    return scores
