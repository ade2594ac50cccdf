"""P3: the sequence model alone, on the protocol of the literature. Leave one out, every item ranked, what the user had is filtered.

    python -m bench.quality.p3 --data ml-1m_sas.txt.gz [--asks N] [--seed S] [--epochs N] [--json]

The file holds `user item` lines, each user's in order, or interactions as P1 reads them, of which a user's first choice of each item
counts. The last item of a user is asked, the one before is the validation's (the number of epochs was chosen there, docs/quality.md), of
users with three items at least; the others are learned by the product's own model and training (`learners/`), at the size
`PRESET` on a GPU where there is one. Beside it, on the same asks: popularity, a Markov chain, item-to-item neighbours. After each epoch
what there is goes to .headrace/, and a run that was cut off goes on from there. 95 % intervals by a bootstrap over users.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.quality.baselines import Baselines
from bench.quality.progress import Progress
from infra.bootstrap import ROOT
from infra.interactions import rows
from learners import finetune
from learners.evaluation import interval, metrics, place, ranks
from learners.histories import ITEMS, Event, Questions, Split, training_windows
from learners.training import Training

LENGTH = 200  # items of a history
PRESET = Training(dim=256, dropout=0.3, learning_rate=1e-3, batch=15_000, epochs=30, budget_s=float("inf"), threads=2)
K = 20


def sequences(file: Path, seed: int) -> list[list[str]]:
    """Each user's items, in order; users with three at least. Raises ValueError where there are none, or a line is not as it should be."""
    users: dict[str, dict[str, None]] = {}
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            table = "timestamp" in lines.readline()
            lines.seek(0)
            for number, line in enumerate(() if table else lines, 1):
                fields = line.split()
                if len(fields) != 2:
                    raise ValueError(f"{file}, line {number}: {line.strip()[:80]!r} is not `user item`")
                users.setdefault(fields[0], {})[fields[1]] = None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    for row in rows(file, seed) if table else ():
        users.setdefault(row.user, {}).setdefault(row.item)
    found = [list(items) for items in users.values() if len(items) >= 3]
    if not found:
        raise ValueError(f"{file}: no user has three items")
    return found


def asked(histories: list[list[str]], answers: list[str], row: dict[str, int]) -> Questions:
    """One question a user; all of the history is there, so that all of it is filtered."""
    read = np.zeros((len(histories), 2, max(LENGTH, *map(len, histories))), np.int64)
    for user, history in enumerate(histories):
        read[user, ITEMS, -len(history) :] = [row[item] for item in history]
    nothing = np.zeros(len(answers), np.int64)
    return Questions(read, np.array([row[item] for item in answers], np.int64), nothing, nothing, once=True)


def run(
    users: list[list[str]], config: Training, checkpoint: Path | None, progress: Any = lambda done, all: None, asks: int | None = None
) -> dict[str, Any]:
    """The figures of one file; of so many users, drawn, if not of all."""
    row = {item: n for n, item in enumerate(dict.fromkeys(item for items in users for item in items), 1)}
    events = [Event(0, 0, 0, str(user), item, np.nan) for user, items in enumerate(users) for item in items[:-2]]
    windows = training_windows(Split([], events, []), row, 0, np.random.default_rng(config.seed), LENGTH)
    model = finetune.fresh(len(row), config, LENGTH)
    fitted = finetune.fit(model, windows, config, warm=False, progress=progress, checkpoint=checkpoint)
    scores = finetune.scorer(model)
    drawn = np.sort(np.random.default_rng(config.seed).permutation(len(users))[:asks])
    found = {}
    for name, held in (("validation", 2), ("test", 1)):
        questions = asked([users[user][:-held] for user in drawn], [users[user][-held] for user in drawn], row)
        began = time.process_time()
        found[name] = ranks(lambda histories: scores(histories[:, :, -LENGTH:]), questions)
    listing = time.process_time() - began
    base = Baselines()
    for user, items in enumerate(users):
        for item in items[:-1]:
            base.learn(str(user), item, np.nan)
    places: dict[str, list[int]] = {"popular": [], "markov": [], "item_knn": []}
    for user in drawn:
        hidden = set(base.history[str(user)])
        for name, made in (
            ("popular", base.popular(hidden, -1, K)),
            ("markov", base.markov(str(user), hidden, K)),
            ("item_knn", base.neighbours(str(user), hidden, K)),
        ):
            places[name].append(place(made, users[user][-1], K))
    return {
        **metrics(found["test"]),
        "ci95": interval((found["test"] < 10).astype(float), drawn, config.seed),
        "validation": metrics(found["validation"]),
        "asks": len(drawn),
        "baselines": {name: metrics(np.array(values)) for name, values in places.items()},
        "items": len(row),
        "device": str(finetune.device()),
        "epochs": config.epochs,
        "steps": fitted.steps,
        "training_s": round(fitted.seconds, 1),
        "us_per_event": round(fitted.seconds / max(1, config.epochs * len(events)) * 1e6, 2),
        "us_per_list": round(listing / len(drawn) * 1e6),
        "seed": config.seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="`user item` lines, or user,item,value,timestamp")
    parser.add_argument("--asks", type=int, help="users that are asked (all)")
    parser.add_argument("--epochs", type=int, default=PRESET.epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: at least one")
    config = replace(PRESET, seed=args.seed, epochs=args.epochs)
    torch.set_num_threads(config.threads)
    try:
        users = sequences(args.data, args.seed)
    except ValueError as error:
        parser.error(str(error))
    of = zlib.crc32(repr((users, config)).encode())
    checkpoint = ROOT / ".headrace" / f"p3-{of:08x}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    figures = run(users, config, checkpoint, Progress("steps"), args.asks)
    checkpoint.unlink()
    print(file=sys.stderr)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
