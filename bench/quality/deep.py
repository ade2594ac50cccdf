"""The deep model as the trainer keeps it fresh: the same cuts, windows and training (`learners/`), from a stream in memory.

No gate: whatever a training ends with is asked from then on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from infra.replay import Row
from learners import finetune, histories
from learners.histories import LENGTH, Event
from learners.sequence import SequenceModel, grown
from learners.training import Training
from serving.bundle import Vocabulary
from serving.recommend import Scored


class Deep:
    """`learn` every event, `train` now and then, `names` what comes next. `seconds`, `trainings`: what the trainings took."""

    def __init__(self, config: Training) -> None:
        self.config, self.events = replace(config, budget_s=float("inf")), list[Event]()
        self.model: SequenceModel | None = None
        self.vocabulary = Vocabulary([], {}, [])
        self.seconds, self.trainings = 0.0, 0
        torch.set_num_threads(config.threads)

    def learn(self, row: Row) -> None:
        """One interaction; it is part of what the next training sees."""
        self.events.append(Event(0, 0, len(self.events), row.user, row.item))

    def train(self, progress: Callable[[int, int], None]) -> None:
        """Fine-tune on the newest window, or train for the first time; the gate's share stays out, as it does for the trainer."""
        began = time.monotonic()
        items = list(dict.fromkeys([*self.vocabulary.items, *(event.item for event in self.events)]))
        self.vocabulary = Vocabulary(items, {item: row for row, item in enumerate(items, 1)}, [])
        part = histories.split(self.events, self.config, {}, first=self.model is None)
        rng, warm = np.random.default_rng(self.config.seed + self.trainings), self.model is not None
        windows = histories.training_windows(part, self.vocabulary.row, self.config.replay if warm else 0, rng)
        torch.manual_seed(self.config.seed)
        self.model = grown(self.model, len(items), self.config) if self.model else finetune.fresh(len(items), self.config)
        finetune.fit(self.model, windows, self.config, warm, progress)
        self.seconds, self.trainings = self.seconds + time.monotonic() - began, self.trainings + 1

    def copy(self) -> tuple[SequenceModel | None, Vocabulary]:
        """The model as it is now, which learns no more, and its vocabulary."""
        return copy.deepcopy(self.model), self.vocabulary

    def names(self, history: Sequence[str]) -> Scored:
        """The model's best-first list after `history`, oldest first; nothing before the first training, or of unknown items only."""
        known = self.vocabulary.encode(history, LENGTH)
        if self.model is None or not known.any():
            return []
        with torch.inference_mode():
            rows, scores = self.model(torch.from_numpy(known[None]))
        return self.vocabulary.decode(rows[0].numpy(), scores[0].numpy())
