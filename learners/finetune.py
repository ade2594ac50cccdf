"""Training and fine-tuning of the sequence model: same loop, warm or cold start, a budget of wall time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from learners.histories import ITEMS, LENGTH, PAUSES, Windows, within
from learners.sequence import SequenceModel, grown
from learners.training import Training

WEIGHED = 4_000  # items that a step weighs its targets against; of more, others are drawn for each step
TIMELESS = 0.1  # of the windows are learned without their times: whoever asks with a session of their own has none


@dataclass(frozen=True)
class Fit:
    """How a training went: `steps` done of those planned, loss of the first and last tenth, seconds."""

    steps: int
    planned: int
    first_loss: float
    last_loss: float
    seconds: float


class Diverged(ArithmeticError):
    """The loss is not a number: the model is thrown away."""


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    model: SequenceModel,
    windows: Windows,
    config: Training,
    warm: bool,
    progress: Callable[[int, int], None],
    clock: Callable[[], float] = time.monotonic,
    checkpoint: Path | None = None,
) -> Fit:
    """Train in place. `warm`: a fine-tune, with its own epochs and learning rate. Raises `Diverged`.

    The softmax is over the items that are targets in `windows`: what does not occur there is not said to be wrong, and so not forgotten.
    Of more than `WEIGHED` each step has others and its own targets, and so the popular ones more often: each score less the logarithm of
    the item's chance to be there, the sample stands for all (Bengio & Senecal, IEEE TNN 2008).

    `checkpoint`: a file that all there is to know is written to after each epoch, and that a training which was cut off goes on from.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    where = device()
    model.to(where).train()
    rate = config.fine_learning_rate if warm else config.learning_rate
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01, betas=(0.9, 0.98), fused=where.type == "cuda")
    epochs = config.fine_epochs if warm else config.epochs
    histories, targets, weights = (torch.from_numpy(a).to(where) for a in (windows.histories, windows.targets, windows.weights))
    lengths = (torch.from_numpy(windows.histories[:, ITEMS]) > 0).sum(1)
    among, times = torch.unique(targets[weights > 0], return_counts=True)
    drawn = min(1.0, WEIGHED / len(among))
    chances = (1 - (1 - drawn) * (1 - times.double() / times.sum()) ** config.batch).log().float()
    counted = torch.from_numpy(windows.weights > 0).sum(1)
    batches = max(1, round(int(counted.sum()) / max(config.batch, int(counted.max()))))
    planned, began = epochs * batches, clock()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=planned + 1, pct_start=0.1)
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        kept = torch.load(checkpoint, map_location=where, weights_only=True)
        for load, state in zip((model.load_state_dict, optimiser.load_state_dict, schedule.load_state_dict), kept["parts"], strict=True):
            load(state)
        losses = kept["losses"]
        generator.set_state(kept["drawn"].cpu())
        torch.set_rng_state(kept["dropped"].cpu())
    for _ in range(len(losses) // batches, epochs):
        for rows in steps(lengths, counted, batches, generator):
            used = slice(-int(lengths[rows].max()), None)  # the rest is padding
            weighed, chance = among, chances
            if len(among) > WEIGHED:
                own = torch.searchsorted(among, targets[rows, used][weights[rows, used] > 0])
                some = torch.unique(torch.cat([torch.randperm(len(among), generator=generator)[:WEIGHED].to(where), own]))
                weighed, chance = among[some], chances[some]
            read = histories[rows, :, used]
            read[:, PAUSES] *= (torch.rand(len(rows), 1, generator=generator) >= TIMELESS).to(where)
            with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
                loss = model.loss(read, targets[rows, used], weights[rows, used], weighed, chance)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise Diverged(f"loss {losses[-1]} at step {len(losses)}")
            progress(len(losses), planned)
            if clock() - began > config.budget_s:
                break
        if clock() - began > config.budget_s:
            break
        if checkpoint is not None:
            parts = [part.state_dict() for part in (model, optimiser, schedule)]
            kept = {"parts": parts, "losses": losses, "drawn": generator.get_state(), "dropped": torch.get_rng_state()}
            torch.save(kept, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    model.cpu().eval()
    tenth = max(1, len(losses) // 10)
    return Fit(len(losses), planned, float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:])), clock() - began)


def steps(lengths: torch.Tensor, targets: torch.Tensor, n: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The windows of each of the n steps of an epoch: in each about as many targets, and histories about as long, so that little of it is
    padding: of sessions that are mixed as they come nearly all of a step's work is. Which, and in which order, is drawn.

    `lengths` of the histories and `targets` of each window, at least 1, int64 [windows]; no window has more than a step's share of them.
    """
    order = torch.randperm(len(lengths), generator=generator)
    order = order[torch.argsort(lengths[order], stable=True)]
    middles = targets[order].cumsum(0) - targets[order] / 2
    cuts = torch.bincount((middles * n / targets.sum()).long(), minlength=n).cumsum(0)[:-1]
    made = torch.tensor_split(order, cuts)
    return [made[step] for step in torch.randperm(n, generator=generator).tolist()]


def scorer(model: SequenceModel) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]:
    """The model as a function of arrays, as it is asked where it serves, without dropout: int64 [n, 2, LENGTH] -> float32 [n, items + 1].

    Rows that came after its vocabulary are padding to it: a live model is judged by questions about new items, too.
    """
    known = model.eval().table.num_embeddings

    def scores(histories: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model.scores(torch.from_numpy(within(histories, known))).numpy(), np.float32)

    return scores


def fingerprint(model: SequenceModel) -> str:
    """Hash of its weights, but of those of its items, which become more: a training that has learned anything changes it."""
    found = blake2b(digest_size=16)
    for name, weights in model.state_dict().items():
        if name != "table.weight":
            found.update(weights.cpu().numpy().tobytes())
    return found.hexdigest()


def save(model: SequenceModel, file: Path, notes: dict[str, str] | None = None) -> None:
    """Weights without any code (safetensors), as a whole or not at all."""
    notes = {"heads": str(model.heads), **(notes or {})}
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, file.with_suffix(".new"), notes)
    file.with_suffix(".new").replace(file)


def fresh(items: int, config: Training, length: int = LENGTH) -> SequenceModel:
    """A new model, drawn from the configured seed."""
    torch.manual_seed(config.seed)
    return SequenceModel(items, config, length)


def load(file: Path, items: int, config: Training) -> SequenceModel:
    """The model of `file`, with room for `items` items, new ones drawn from the configured seed: a warm start."""
    torch.manual_seed(config.seed)
    state = load_file(file)
    with safe_open(file, "pt") as opened:
        heads = int((opened.metadata() or {}).get("heads", config.heads))
    rows, dim = state["table.weight"].shape
    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    model = SequenceModel(rows - 1, replace(config, dim=dim, blocks=blocks, heads=heads), len(state["positions"]))
    model.load_state_dict(state)
    return grown(model, items, config)
