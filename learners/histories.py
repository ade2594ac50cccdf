"""Histories: the interactions a training may learn from, and the windows that are cut from them. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learners.training import Training

LENGTH = 50


class Event(NamedTuple):
    """One interaction: when it came (broker ms), where it lies in the log, who, what."""

    appended: int
    partition: int
    offset: int
    user: str
    item: str


@dataclass(frozen=True)
class Windows:
    """int64 `items` and `targets` [n, LENGTH], left-padded with 0; `weights` [n, LENGTH] > 0 where a target counts."""

    items: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Questions:
    """What a gate asks: histories int64 [n, LENGTH], the item that came next int64 [n] (0: not in the vocabulary),
    the length of each user's whole history [n], and how popular each answer was in training [n]."""

    items: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    popularity: npt.NDArray[np.int64]
    once: bool  # this stream never brings an item back: what the history holds is no answer


@dataclass(frozen=True)
class Split:
    """Events [a, b) to learn, [b, end) for the gate; `before` came earlier and may be replayed."""

    before: Sequence[Event]
    train: Sequence[Event]
    gate: Sequence[Event]


def split(events: Sequence[Event], config: Training, change_point: dict[str, int], first: bool) -> Split:
    """Cut `events`, in broker order, by time. A first training learns all; a fine-tune the newest window, after the
    change point where at least `ENOUGH` of it lie after that."""
    start = 0 if first else max(0, len(events) - config.window)
    after = [i for i, e in enumerate(events) if e.offset >= change_point.get(str(e.partition), 1 << 62)]
    if len(after) >= ENOUGH:
        start = max(start, after[0])
    held = max(1, min(int((len(events) - start) * config.gate_share), 4 * config.gate_windows))
    return Split(events[:start], events[start : len(events) - held], events[len(events) - held :])


ENOUGH = 1_000  # events after the change point that a fine-tune needs to stay behind it


def training_windows(part: Split, row: dict[str, int], replay: int, rng: np.random.Generator, length: int = LENGTH) -> Windows:
    """Windows of `length` whose targets lie in `part.train`, and older ones with about `replay` targets (the last
    window is taken whole), so that it does not forget."""
    sequences: dict[str, list[tuple[int, bool]]] = {}
    for fresh, events in ((False, part.before), (True, part.train)):
        for event in events:
            sequences.setdefault(event.user, []).append((row[event.item], fresh))
    new: list[list[tuple[int, bool]]] = []
    old: list[list[tuple[int, bool]]] = []
    for sequence in sequences.values():
        for end in range(len(sequence), 1, -length):
            window = sequence[max(0, end - length - 1) : end]
            (new if any(fresh for _, fresh in window[1:]) else old).append(window)
    left = replay
    for place in rng.permutation(len(old)):
        if left <= 0:
            break
        new.append([(item, True) for item, _ in old[place]])
        left -= len(old[place]) - 1
    n = len(new)
    items, targets = np.zeros((n, length), np.int64), np.zeros((n, length), np.int64)
    weights = np.zeros((n, length), np.float32)
    for i, window in enumerate(new):
        rows = [item for item, _ in window]
        size = len(window) - 1
        items[i, length - size :] = rows[:-1]
        targets[i, length - size :] = rows[1:]
        weights[i, length - size :] = [fresh for _, fresh in window[1:]]
    return Windows(items, targets, weights)


def questions(part: Split, row: dict[str, int], n: int, rng: np.random.Generator) -> Questions:
    """Up to `n` of the gate's events with the history before each, of users that have one."""
    counts: dict[str, int] = {}
    histories: dict[str, list[str]] = {}
    repeats = total = 0
    for event in (*part.before, *part.train):
        past = histories.setdefault(event.user, [])
        repeats, total = repeats + (event.item in past[-LENGTH:]), total + 1
        past.append(event.item)
        counts[event.item] = counts.get(event.item, 0) + 1
    asked: list[tuple[list[str], str, int]] = []
    for event in part.gate:
        past = histories.setdefault(event.user, [])
        if past:
            asked.append((past[-LENGTH:], event.item, len(past)))
        past.append(event.item)
    chosen = sorted(rng.choice(len(asked), min(n, len(asked)), replace=False).tolist()) if asked else []
    items = np.zeros((len(chosen), LENGTH), np.int64)
    for i, place in enumerate(chosen):
        rows = [row[item] for item in asked[place][0] if item in row]
        if rows:
            items[i, LENGTH - len(rows) :] = rows
    return Questions(
        items=items,
        answers=np.array([row.get(asked[place][1], 0) for place in chosen], np.int64),
        lengths=np.array([asked[place][2] for place in chosen], np.int64),
        popularity=np.array([counts.get(asked[place][1], 0) for place in chosen], np.int64),
        once=total >= 750 and repeats / total < 0.005,
    )
