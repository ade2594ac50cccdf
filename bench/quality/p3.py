"""P3: the sequence model alone, on the protocol of the literature. Leave one out, every item ranked, what the user had is filtered.

    python -m bench.quality.p3 --data ml-1m_sas.txt.gz [--seed S] [--epochs N] [--json]

The file holds `user item` lines, each user's in order. The last item of a user is asked, the one before is the validation's (the number of
epochs was chosen there, docs/quality.md), the others are learned by the product's own model and training (`learners/`), at the size
`PRESET` on a GPU where there is one. Beside it, on the same asks: popularity, a Markov chain, item-to-item neighbours. After each epoch
what there is goes to .headrace/, and a run that was cut off goes on from there. 95 % intervals by a bootstrap over users.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.quality.baselines import Baselines
from bench.quality.progress import Progress
from infra.bootstrap import ROOT
from learners import finetune
from learners.evaluation import interval, metrics, place, ranks
from learners.histories import ITEMS, Event, Questions, Split, training_windows
from learners.training import Training

LENGTH = 200  # items of a history
PRESET = Training(dim=256, dropout=0.3, learning_rate=1e-3, batch=15_000, epochs=30, budget_s=float("inf"), threads=2)
K = 20


def sequences(file: Path) -> list[list[str]]:
    """Each user's items, in order. Raises ValueError where a line is not `user item`."""
    if not file.is_file():
        raise ValueError(f"{file} is no file")
    users: dict[str, list[str]] = {}
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if len(fields) != 2:
                raise ValueError(f"{file}, line {number}: {line.strip()[:80]!r} is not `user item`")
            users.setdefault(fields[0], []).append(fields[1])
    return [items for items in users.values() if len(items) >= 3]


def asked(histories: list[list[str]], answers: list[str], row: dict[str, int]) -> Questions:
    """One question a user; all of the history is there, so that all of it is filtered."""
    read = np.zeros((len(histories), 2, max(LENGTH, *map(len, histories))), np.int64)
    for user, history in enumerate(histories):
        read[user, ITEMS, -len(history) :] = [row[item] for item in history]
    nothing = np.zeros(len(answers), np.int64)
    return Questions(read, np.array([row[item] for item in answers], np.int64), nothing, nothing, once=True)


def run(users: list[list[str]], config: Training, checkpoint: Path | None, progress: Any = lambda done, all: None) -> dict[str, Any]:
    """The figures of one file."""
    row = {item: n for n, item in enumerate(dict.fromkeys(item for items in users for item in items), 1)}
    events = [Event(0, 0, 0, str(user), item, np.nan) for user, items in enumerate(users) for item in items[:-2]]
    windows = training_windows(Split([], events, []), row, 0, np.random.default_rng(config.seed), LENGTH)
    model = finetune.fresh(len(row), config, LENGTH)
    fitted = finetune.fit(model, windows, config, warm=False, progress=progress, checkpoint=checkpoint)
    scores = finetune.scorer(model)
    found = {}
    for name, held in (("validation", 2), ("test", 1)):
        questions = asked([items[:-held] for items in users], [items[-held] for items in users], row)
        began = time.process_time()
        found[name] = ranks(lambda histories: scores(histories[:, :, -LENGTH:]), questions)
    listing = time.process_time() - began
    base = Baselines()
    for user, items in enumerate(users):
        for item in items[:-1]:
            base.learn(str(user), item, np.nan)
    places: dict[str, list[int]] = {"popular": [], "markov": [], "item_knn": []}
    for user, items in enumerate(users):
        hidden = set(base.history[str(user)])
        for name, made in (
            ("popular", base.popular(hidden, -1, K)),
            ("markov", base.markov(str(user), hidden, K)),
            ("item_knn", base.neighbours(str(user), hidden, K)),
        ):
            places[name].append(place(made, items[-1], K))
    everybody = np.arange(len(users))
    return {
        **metrics(found["test"]),
        "ci95": interval((found["test"] < 10).astype(float), everybody, config.seed),
        "validation": metrics(found["validation"]),
        "asks": len(users),
        "baselines": {name: metrics(np.array(values)) for name, values in places.items()},
        "items": len(row),
        "device": str(finetune.device()),
        "epochs": config.epochs,
        "steps": fitted.steps,
        "training_s": round(fitted.seconds, 1),
        "us_per_event": round(fitted.seconds / max(1, config.epochs * len(events)) * 1e6, 2),
        "us_per_list": round(listing / len(users) * 1e6),
        "seed": config.seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="`user item` lines, plain or .gz")
    parser.add_argument("--epochs", type=int, default=PRESET.epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = replace(PRESET, seed=args.seed, epochs=args.epochs)
    checkpoint = ROOT / ".headrace" / f"p3-{args.data.name.split('.')[0]}-{args.seed}-{args.epochs}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    torch.set_num_threads(config.threads)
    try:
        users = sequences(args.data)
    except ValueError as error:
        parser.error(str(error))
    figures = run(users, config, checkpoint, Progress("steps"))
    checkpoint.unlink()
    print(file=sys.stderr)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
