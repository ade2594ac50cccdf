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
import numpy.typing as npt
import torch
from safetensors import safe_open

from feedback.policy import Policy, PolicyState, reason_to_retrain
from infra.interactions import Row
from learners import finetune, histories
from learners.histories import ITEMS, LENGTH, Event, pauses
from learners.sequence import TOP, SequenceModel, grown
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
        kept: Path | None = None, name: str = "answers", anew: bool = False, progress: Any = lambda done, all, now="": None,
    ) -> None:  # fmt: skip
        self.config, self.cuts, self.anew = replace(config, budget_s=float("inf")), cuts, anew
        self._kept, self._name, self._progress = kept, name, progress
        self._events = [Event(0, 0, n, row.user, row.item, row.at) for n, row in enumerate(stream)]
        self._at = np.array([row.at for row in stream], np.float64)
        self._now = np.maximum.accumulate(self._at)  # the stream's time after each event
        self._row: dict[str, int] = {}
        for event in self._events:
            self._row.setdefault(event.item, len(self._row) + 1)
        self._items, self._asked = list(self._row), np.array(sorted(asked), np.int64)
        self._rows, self._before = np.array([self._row[event.item] for event in self._events]), _before(self._events)
        self._answers: dict[int, Scored] = {}
        self._model: SequenceModel | None = None
        self._has = -1  # of which training `_model` is
        self.seconds, self.trainings = 0.0, 0
        torch.set_num_threads(config.threads)

    def train(self, until: int) -> None:
        """Every training that is due before event number `until` is learned."""
        while self.trainings < len(self.cuts) and self.cuts[self.trainings] <= until:
            began, cut = time.monotonic(), self.cuts[self.trainings]
            end = self.cuts[self.trainings + 1] if self.trainings + 1 < len(self.cuts) else len(self._events)
            asked = self._asked[(self._asked >= cut) & (self._asked < end)]
            file = self._kept / f"{cut}-{self._name}.npz" if self._kept and len(asked) else None
            of = f"{self._of(self.trainings)}, asked {_sum(asked, self._rows[:end], self._before[:end])}"
            if file is not None and file.exists():
                with np.load(file) as found:
                    _check(file, str(found["of"]), of)
                    rows, scores = found["rows"], found["scores"]
            else:
                rows, scores = self._answered(asked, self.version(self.trainings))
                if file is not None:
                    with (file.parent / "answers.new").open("wb") as fresh:
                        np.savez_compressed(fresh, of=np.array(of), rows=rows, scores=scores)
                    Path(fresh.name).replace(file)
            self._answers = {
                n: Scored([self._items[row - 1] for row in best[best > 0].tolist()], values[best > 0])
                for n, best, values in zip(asked.tolist(), rows, scores, strict=True)
            }
            self.seconds, self.trainings = self.seconds + time.monotonic() - began, self.trainings + 1

    def names(self, n: int) -> Scored:
        """Best first, what the model expects at event `n`, one of those asked; nothing where none knows this past."""
        self.train(n)
        return self._answers.get(n, Scored())

    def version(self, training: int) -> SequenceModel:
        """The model as it was after that training."""
        if self._has != training:
            self._have(training)
        assert self._model is not None
        return self._model

    def finish(self) -> None:
        """All trainings that are not kept, after the newest that is."""
        if self.cuts:
            self.version(len(self.cuts) - 1)

    def part(self, training: int) -> histories.Split:
        """What that training learned, and what it left to the gate."""
        cut = self.cuts[training]
        return histories.split(self._events[max(0, cut - KEPT) : cut], self.config, {}, first=training == 0 or self.anew)

    def targets(self) -> int:
        """How many next items its trainings so far have learned, each as often as it was."""
        epochs = [self.config.fine_epochs if self._warm(training) else self.config.epochs for training in range(self.trainings)]
        return sum(n * int((self._windows(training).weights > 0).sum()) for training, n in enumerate(epochs))

    def _warm(self, training: int) -> bool:
        return training > 0 and not self.anew

    def _windows(self, training: int) -> histories.Windows:
        rng = np.random.default_rng(self.config.seed + training)
        return histories.training_windows(self.part(training), self._row, self.config.replay if self._warm(training) else 0, rng)

    def vocabulary(self, training: int) -> dict[str, int]:
        """Rows of the items that were there at that training."""
        known = int(self._rows[: self.cuts[training]].max())
        return {item: row for item, row in self._row.items() if row <= known}

    def _have(self, training: int) -> None:
        """Have the model as it was after that training."""
        cut = self.cuts[training]
        known = int(self._rows[:cut].max())
        file = self._kept / f"{cut}.safetensors" if self._kept else None
        if file is not None and file.exists():
            with safe_open(file, "pt") as found:
                _check(file, (found.metadata() or {}).get("of", ""), self._of(training))
            self._model, self._has = finetune.load(file, known, self.config).eval(), training
            return
        warm = self._warm(training)
        if warm and self._has != training - 1:
            self._have(training - 1)
        windows = self._windows(training)
        torch.manual_seed(self.config.seed)
        model = grown(self._model, known, self.config) if self._model and warm else finetune.fresh(known, self.config)

        def told(step: int, steps: int) -> None:
            self._progress(cut, len(self._events), f"training, step {step} of {steps}")

        finetune.fit(model, windows, self.config, warm, told)
        self._model, self._has = model, training
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            finetune.save(model, file, {"of": self._of(training)})

    def _of(self, training: int) -> str:
        cut = self.cuts[training]
        seen = _sum(self._rows[:cut], self._before[:cut], self._at[:cut])
        return f"{seen} {'anew ' if self.anew else ''}{list(self.cuts[: training + 1])} {self.config}"

    def _answered(self, asked: npt.NDArray[np.int64], model: SequenceModel) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Rows and scores of the best items at each event of `asked`, zeros where nothing of the past is known."""
        read = self.histories(asked, len(model.table.weight) - 1)
        rows, scores = [np.zeros((0, TOP), np.int64)], [np.zeros((0, TOP), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(read), ASKED):
                best, values = model(torch.from_numpy(read[start : start + ASKED]))
                rows.append(np.pad(best.numpy(), ((0, 0), (0, TOP - best.shape[1]))))
                scores.append(np.pad(values.numpy(), ((0, 0), (0, TOP - best.shape[1]))))
        some = read[:, ITEMS].max(1, initial=0)[:, None] > 0
        return np.where(some, np.concatenate(rows), 0).astype(np.int32), np.concatenate(scores)

    def histories(self, asked: npt.NDArray[np.int64], known: int) -> npt.NDArray[np.int64]:
        """int64[n, 2, LENGTH]: what a model that knows the first `known` items reads at each event of `asked` (`learners.histories`)."""
        read = np.zeros((len(asked), 2, LENGTH), np.int64)
        for place, n in enumerate(asked.tolist()):
            past, before, until = list[tuple[int, float]](), int(self._before[n]), self._now[n - 1]
            while before >= 0 and len(past) < LENGTH:
                past.append((int(self._rows[before]), until - self._at[before]))
                before, until = int(self._before[before]), self._at[before]
            row, seconds = np.array(past[::-1], np.float64).reshape(-1, 2).T
            history = np.stack([row, pauses(seconds)])[:, row <= known]
            read[place, :, LENGTH - history.shape[1] :] = history
        return read


def _sum(*parts: npt.NDArray[Any]) -> str:
    return " ".join(f"{zlib.crc32(part.tobytes()):08x}" for part in parts)


def _check(file: Path, of: str, wanted: str) -> None:
    if of != wanted:
        raise ValueError(f"{file} is of another stream or training: {of}; wanted is {wanted}. Name another folder, or remove it")


def _before(events: Sequence[Event]) -> npt.NDArray[np.int64]:
    """The number of the same user's event before each, -1 where it is the first."""
    last, out = dict[str, int](), list[int]()
    for n, event in enumerate(events):
        out.append(last.get(event.user, -1))
        last[event.user] = n
    return np.array(out, np.int64)
