"""What the gate lets through: healthy fine-tunes, which it should, and sabotaged ones, which it should not.

    python -m bench.gate --data FILE [--events N] [--no-repeats] [--kept FOLDER] [--seed S] [--json]

Over the stream the sequence model is trained as the product's policy asks; each fine-tune is judged against the one before, on what its
training left out, as the trainer does it. The last is then sabotaged in nine ways: labels shuffled (a fine-tune like it on shuffled
targets), scores inverted, constant, not a number, weights of three releases ago, a vocabulary that is off by one, ids permuted, 150 MB of
ballast, 24 times the work. Reported are each verdict and its reasons; `refused_healthy` and `passed_sabotaged` should be empty.
`bench.sabotage` does the same through the trainer. `--kept` as in bench.quality.p1.

How often the rule is wrong, by chance alone: `refused_of`, the share it refuses of pairs that are alike by construction, whose answers to
each question are those of a healthy fine-tune and of the model before it, one or the other by lot, after the one has lost so large a share
of its right ones. At 0 these are false refusals; one minus it at .05 are false passes.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.quality.deep import Deep, by_volume
from bench.quality.p1 import changes
from bench.quality.progress import Progress
from feedback.policy import Policy
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row, rows
from learners import export, finetune, histories
from learners.sequence import SequenceModel, grown
from learners.training import Training
from serving import gate
from streams.trainer import cost

STALE = 3  # releases
BALLAST = 1_000, 40_000  # floats; of one dimension, torch's exporter would look at each and stop all other threads for seconds
POLICY = Policy()
LOST, LOTS = (0.0, 0.02, 0.05, 0.1), 50  # shares of a model's right answers; lots drawn for each fine-tune
MISSED = 1 << 40  # the rank of an answer that is not there
Spoil = Callable[[SequenceModel], None]


class Huge(SequenceModel):
    """The same answers with ballast."""

    ballast: Tensor

    def states(self, histories: Tensor, asked: int) -> Tensor:
        return super().states(histories, asked) + self.ballast[0, 0]


class Slow(SequenceModel):
    """The same answers with 24 times the work."""

    def states(self, histories: Tensor, asked: int) -> Tensor:
        found = super().states(histories, asked)
        for turn in range(1, 24):
            found = found + 0.0 * super().states(histories.roll(turn, 2), asked)
        return found


def _scaled(by: float) -> Spoil:
    def spoil(model: SequenceModel) -> None:
        model.norm.weight.mul_(by)
        model.norm.bias.mul_(by)

    return spoil


def _reordered(model: SequenceModel, order: Tensor) -> None:
    model.table.weight[1:] = model.table.weight[1:][order].clone()


def _huge(model: SequenceModel) -> None:
    model.__class__ = Huge
    model.register_parameter("ballast", nn.Parameter(torch.zeros(*BALLAST)))


def _slow(model: SequenceModel) -> None:
    model.__class__ = Slow


SPOILT: dict[str, Spoil] = {
    "inverted scores": _scaled(-1.0),
    "constant scores": _scaled(0.0),
    "not a number": _scaled(float("nan")),
    "vocabulary off by one": lambda model: _reordered(model, torch.arange(len(model.table.weight) - 1).roll(1)),
    "permuted ids": lambda model: _reordered(
        model, torch.randperm(len(model.table.weight) - 1, generator=torch.Generator().manual_seed(1))
    ),
    "huge": _huge,
    "slow": _slow,
}


def shuffled(windows: histories.Windows, rng: np.random.Generator) -> None:
    """Give the targets to one another."""
    counted = windows.weights > 0
    windows.targets[counted] = rng.permutation(windows.targets[counted])


def sabotaged(deep: Deep, last: int) -> dict[str, Callable[[], SequenceModel]]:
    """Models that are spoilt, after training number `last`."""
    healthy, live = deep.version(last), deep.version(last - 1)
    items = len(healthy.table.weight) - 1

    def mislearned() -> SequenceModel:
        rng = np.random.default_rng(deep.config.seed)
        windows = histories.training_windows(deep.part(last), deep.vocabulary(last), deep.config.replay, rng)
        shuffled(windows, rng)
        model = grown(live, items, deep.config)
        finetune.fit(model, windows, deep.config, True, lambda step, steps: None)
        return model

    def changed(spoil: Spoil) -> SequenceModel:
        model = copy.deepcopy(healthy)
        with torch.no_grad():
            spoil(model)
        return model

    return {
        "shuffled labels": mislearned,
        "stale weights": lambda: grown(deep.version(max(last - STALE, 0)), items, deep.config).eval(),
        **{name: partial(changed, spoil) for name, spoil in SPOILT.items()},
    }


def tries(deep: Deep, training: int, had: dict[str, int]) -> Callable[[SequenceModel], gate.Judged]:
    """Asks candidates for that release as the trainer does; raises `export.NotEqual` where one cannot be exported. `had`: fingerprints of
    the versions before it.
    """
    part, row, live = deep.part(training), deep.vocabulary(training), deep.version(training - 1)
    asked = histories.questions(part, row, deep.config.gate_windows, np.random.default_rng(deep.config.seed + training))
    popular = histories.popular(part, row)

    def priced(model: SequenceModel) -> gate.Cost:
        items = len(model.table.weight) - 1
        onnx, _, _ = export.export(model, histories.within(asked.histories[:16], items + 1))
        return cost(onnx, asked, items)

    before, live_cost = finetune.scorer(live), priced(live)

    def tried(candidate: SequenceModel) -> gate.Judged:
        spent = priced(candidate)
        had_by = had.get(finetune.fingerprint(candidate), 0)
        return gate.tried(finetune.scorer(candidate), before, popular, asked, spent, live_cost, had_by)

    return tried


def refused_of(healthy: Sequence[gate.Judged], rng: np.random.Generator) -> dict[str, float]:
    """The share that is refused of pairs that are alike but for what the one has lost."""
    found = dict[str, float]()
    for lost in LOST:
        refused = []
        for judged in healthy:
            assert judged.live is not None
            for _ in range(LOTS):
                one = rng.random(len(judged.live)) < 0.5
                mine, other = np.where(one, judged.candidate, judged.live), np.where(one, judged.live, judged.candidate)
                mine[rng.random(len(mine)) < lost] = MISSED
                refused.append(not gate.judge(replace(judged, candidate=mine, live=other)).passed)
        found[str(lost)] = round(float(np.mean(refused)), 3)
    return found


def run(
    stream: list[Row], config: Training, kept: Path | None = None, progress: Any = lambda done, all, now="": None, policy: Policy = POLICY
) -> dict[str, Any]:
    """The verdicts over one stream."""
    cuts = by_volume(len(stream), policy)
    if len(cuts) < 2:
        raise ValueError(f"{len(stream)} events ask for {len(cuts)} trainings; the gate holds one against the one before")
    with tempfile.TemporaryDirectory(prefix="headrace-gate-") as folder:
        return _judged(Deep(stream, (), config, cuts, kept or Path(folder), progress=progress))


def _judged(deep: Deep) -> dict[str, Any]:
    deep.finish()
    healthy, spoilt, had, pairs = dict[str, Any](), dict[str, Any](), dict[str, int](), list[gate.Judged]()
    for training in range(1, len(deep.cuts)):
        had[finetune.fingerprint(deep.version(training - 1))] = training
        tried = tries(deep, training, had)
        pairs.append(tried(deep.version(training)))
        healthy[str(deep.cuts[training])] = _told(gate.judge(pairs[-1]))
    last = len(deep.cuts) - 1
    for name, spoil in sabotaged(deep, last).items():
        try:
            spoilt[name] = _told(gate.judge(tried(spoil())))
        except export.NotEqual as error:
            spoilt[name] = _told(gate.Verdict(False, [f"NotEqual: {error}"], {}))
    return {
        "healthy": healthy,
        "sabotaged": spoilt,
        "refused_healthy": [name for name, told in healthy.items() if told["reasons"]],
        "passed_sabotaged": [name for name, told in spoilt.items() if not told["reasons"]],
        "refused_of": refused_of(pairs, np.random.default_rng(deep.config.seed)),
        "seed": deep.config.seed,
    }


def _told(of: gate.Verdict) -> dict[str, Any]:
    return {"reasons": of.reasons, **{key: of.figures.get(key) for key in ("ndcg10", "live_ndcg10", "megabytes", "ms")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--events", type=int, help="only the first so many")
    parser.add_argument("--no-repeats", action="store_true", help="without events that only repeat the item which their user had last")
    parser.add_argument("--kept", type=Path, help="folder for what the trainings end with, or ended with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        stream = rows(args.data, args.seed)[: args.events]
        found = run(changes(stream) if args.no_repeats else stream, Training(seed=args.seed), args.kept, Progress("events"))
    except ValueError as error:
        parser.error(str(error))
    print(file=sys.stderr)
    if args.json:
        print(json.dumps(found))
        return
    for group in ("healthy", "sabotaged"):
        for name, told in found[group].items():
            print(f"{group:10} {name:22} {'; '.join(told['reasons']) or 'passed'}   {told['ndcg10']} against {told['live_ndcg10']}")
    for lost, share in found["refused_of"].items():
        print(f"alike, but for {float(lost):4.0%} of the right answers: {share:.1%} refused")


if __name__ == "__main__":
    main()
