"""The deep model over a stream in memory, kept fresh as the trainer does it: the same policy, cuts, windows and training.

No gate: whatever a training ends with is asked from then on. What a training ended with is kept, if there is a folder for it: a run
that was cut off goes on from there, and one that only trains may come before it, on another machine.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from feedback.policy import Policy, PolicyState, reason_to_retrain
from infra.replay import Row
from learners import finetune, histories
from learners.histories import LENGTH, Event
from learners.sequence import SequenceModel, grown
from learners.training import Training
from serving.recommend import Scored

KEPT = 1_000_000  # interactions that a training sees at most, as in `streams.history`
ASKED = 256  # histories that the model reads at once


def by_volume(n: int, policy: Policy) -> list[int]:
    """Before which events of a stream of `n` the product trains: as often as the volume of news asks for."""
    policy, state, out = replace(policy, schedule_s=0, cool_down_s=0), PolicyState(), list[int]()
    for volume in range(n):
        if reason_to_retrain(policy, state, 0, volume, drifting=False):
            state = PolicyState(state.requests + 1, 0, volume)
            out.append(volume)
    return out


class Deep:
    """`names` what comes next at the events `asked` of `stream`, after the trainings before the events `cuts`.

    `anew`: each training begins with nothing and learns all. `seconds`, `trainings`: what those of this run took.
    """

    def __init__(
        self, stream: Sequence[Row], asked: Collection[int], config: Training, cuts: Sequence[int],
        kept: Path | None = None, anew: bool = False, progress: Any = lambda done, all, now="": None,
    ) -> None:  # fmt: skip
        self.config, self.cuts, self.kept, self.anew, self.progress = replace(config, budget_s=float("inf")), cuts, kept, anew, progress
        self._events = [Event(0, 0, n, row.user, row.item) for n, row in enumerate(stream)]
        self._row: dict[str, int] = {}
        for event in self._events:
            self._row.setdefault(event.item, len(self._row) + 1)
        self._items, self._asked = list(self._row), sorted(asked)
        self._rows, self._before = np.array([self._row[event.item] for event in self._events]), _before(self._events)
        self._known, self._answers = 0, dict[int, Scored]()
        self._model: SequenceModel | None = None
        self.seconds, self.trainings = 0.0, 0
        torch.set_num_threads(config.threads)

    def train(self, until: int) -> None:
        """Every training that is due before event number `until` is learned."""
        while self.trainings < len(self.cuts) and self.cuts[self.trainings] <= until:
            began, cut = time.monotonic(), self.cuts[self.trainings]
            self._known = len({event.item for event in self._events[:cut]})
            file = self.kept / f"{cut}.safetensors" if self.kept else None
            if file is not None and file.exists():
                self._load(file, cut)
            else:
                model = self._model = self._trained(cut)
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    finetune.save(model, file, {"of": self._of(cut)})
            self.trainings += 1
            end = self.cuts[self.trainings] if self.trainings < len(self.cuts) else len(self._events)
            self._answers = self._answered([n for n in self._asked if cut <= n < end])
            self.seconds += time.monotonic() - began

    def names(self, n: int) -> Scored:
        """Best first, what the model expects at event `n`, one of those asked; nothing where none knows this past."""
        self.train(n)
        return self._answers.get(n, [])

    def _trained(self, cut: int) -> SequenceModel:
        events = self._events[max(0, cut - KEPT) : cut]
        warm = self._model is not None and not self.anew
        part = histories.split(events, self.config, {}, first=not warm)
        rng = np.random.default_rng(self.config.seed + self.trainings)
        windows = histories.training_windows(part, self._row, self.config.replay if warm else 0, rng)
        torch.manual_seed(self.config.seed)
        model = grown(self._model, self._known, self.config) if self._model and warm else finetune.fresh(self._known, self.config)

        def told(step: int, steps: int) -> None:
            self.progress(cut, len(self._events), f"training, step {step} of {steps}")

        finetune.fit(model, windows, self.config, warm, told)
        return model

    def _of(self, cut: int) -> str:
        return f"{zlib.crc32(self._rows[:cut].tobytes()):08x} {self.anew} {list(self.cuts[: self.trainings + 1])} {self.config}"

    def _load(self, file: Path, cut: int) -> None:
        with safe_open(file, "pt") as found:
            of = (found.metadata() or {}).get("of")
        if of != self._of(cut):
            raise ValueError(f"{file} is of another stream or training: {of}; wanted is {self._of(cut)}. Name another folder, or remove it")
        self._model = finetune.load(file, self._known, self.config).eval()

    def _answered(self, asked: list[int]) -> dict[int, Scored]:
        out = dict[int, Scored]()
        assert self._model is not None
        for start in range(0, len(asked), ASKED):
            some = asked[start : start + ASKED]
            items = np.zeros((len(some), LENGTH), np.int64)
            for place, n in enumerate(some):
                past, before = list[int](), self._before[n]
                while before >= 0 and len(past) < LENGTH:
                    past.append(self._rows[before] if self._rows[before] <= self._known else 0)
                    before = self._before[before]
                past = [row for row in past if row]
                items[place, LENGTH - len(past) :] = past[::-1]
            with torch.inference_mode():
                rows, scores = self._model(torch.from_numpy(items))
            for n, history, of, values in zip(some, items, rows.tolist(), scores.tolist(), strict=True):
                if history.any():
                    out[n] = [(self._items[row - 1], score) for row, score in zip(of, values, strict=True) if row]
        return out


def _before(events: Sequence[Event]) -> list[int]:
    """The number of the same user's event before each, -1 where it is the first."""
    last, out = dict[str, int](), list[int]()
    for n, event in enumerate(events):
        out.append(last.get(event.user, -1))
        last[event.user] = n
    return out
