"""Settings of the sequence model and of its training; no torch here, so that everybody may read them."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Training:
    """`dim`, `blocks`, `heads`: a new model's size; one that is there keeps its own. `batch`: targets of a step. `epochs` of a first
    training, `fine_epochs` of a warm start.

    `window`: newest interactions that a fine-tune learns; `replay`: older ones mixed in, so that it does not forget;
    of as many newer ones as `gate_share` of the window the gate asks at most `gate_windows`. `budget_s` bounds one
    training's wall time: what is done by then is what is judged. `threads` of torch on the CPU.
    """

    dim: int = 128
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    learning_rate: float = 3e-3
    fine_learning_rate: float = 1e-3
    batch: int = 1_024
    epochs: int = 12
    fine_epochs: int = 4
    window: int = 100_000  # as many as come between two trainings by volume (feedback.policy)
    replay: int = 100_000
    gate_share: float = 0.15
    gate_windows: int = 2_048
    budget_s: float = 300.0
    threads: int = 1
    seed: int = 7
