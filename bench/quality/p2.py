"""P2: sessions over time (ADER, RecSys 2020). Each period is asked with what was learned before, and learned.

    python -m bench.quality.p2 --data FILE [--asks N] [--periods N] [--joint] [--seed S] [--json]

Users of the file are sessions; a column `period` cuts the stream, or else each day is one. Asked are N events of each period after the
first: the next item of a session that has begun, if the item was there in an earlier period. N more lists of each period are shown, so
that the ranker has something to learn from. Reported are R@20 and MRR@20, means of the periods: `hybrid` is the product, online and
deep, the model fine-tuned whenever a window of new events is there (`learners/training.py`); `online` the product without a model;
`fine_tuned` and `frozen` that model alone, and as it was after the first period; `joint` (with --joint: hours on a CPU) one that is
trained anew on everything after each period. Beside them item-to-item neighbours and a Markov chain, online.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.quality.baselines import Baselines
from bench.quality.deep import Deep
from bench.quality.product import Product
from bench.quality.progress import Progress
from infra.replay import Row
from learners.evaluation import interval, place
from learners.training import Training

K = 20


class Event(NamedTuple):
    row: Row
    period: int


def events(file: Path) -> list[Event]:
    """The file's interactions, in its order. Raises ValueError where a column is missing or no number."""
    out: list[Event] = []
    with gzip.open(file, "rt", newline="") if file.suffix == ".gz" else file.open(newline="") as lines:
        for number, fields in enumerate(csv.DictReader(lines), 2):
            try:
                at = float(fields["timestamp"])
                period = int(fields["period"]) if "period" in fields else int(at // 86_400)
                out.append(Event(Row(fields["user"], fields["item"], None, at), period))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{file}, line {number}: {error!r}; wanted are user, item, timestamp, and period if there is one"
                ) from None
    return out


def recall(places: list[int]) -> dict[str, float]:
    ranks = np.array(places)
    return {"r20": float((ranks < K).mean()), "mrr20": float(np.where(ranks < K, 1 / (ranks + 1.0), 0).mean())}


def chosen(stream: list[Event], asks: int, seed: int) -> tuple[set[int], set[int]]:
    """Events that are asked, and those whose lists are shown."""
    rng, first_of, begun = np.random.default_rng(seed), dict[str, int](), set[str]()
    good, known = dict[int, list[int]](), dict[int, list[int]]()
    for n, (row, period) in enumerate(stream):
        if row.user in begun:
            known.setdefault(period, []).append(n)
            if first_of.get(row.item, period) < period:
                good.setdefault(period, []).append(n)
        first_of.setdefault(row.item, period)
        begun.add(row.user)

    def drawn(periods: dict[int, list[int]]) -> set[int]:
        return {int(n) for places in periods.values() for n in rng.choice(places, min(asks, len(places)), replace=False)}

    asked = drawn(good)
    return asked, asked | drawn(known)


def run(
    stream: list[Event], asks: int, config: Training, joint: bool = False, progress: Any = lambda done, all, now="": None
) -> dict[str, Any]:
    """The figures of one stream."""
    seed = config.seed
    asked, shown = chosen(stream, asks, seed)
    hybrid, online, base = Product(seed), Product(seed), Baselines()
    deep, frozen, whole = Deep(config), Deep(config), Deep(config)
    names = ("hybrid", "online", "fine_tuned", "frozen", *(("joint",) if joint else ()), "item_knn", "markov")
    places: dict[str, dict[int, list[int]]] = {name: {} for name in names}
    users: list[str] = []
    listing, learning, since, now = 0.0, 0.0, 0, stream[0].period
    for n, (row, period) in enumerate(stream):
        if period != now or since >= config.window:
            deep.train(partial(lambda at, step, steps: progress(at, len(stream), f"training, step {step} of {steps}"), n))
            if now == stream[0].period:
                frozen.model, frozen.vocabulary = deep.copy()
            if joint and period != now:
                whole.model = None
                whole.train(lambda step, steps: None)
            since, now = 0, period
        if n in shown:
            recent = hybrid.recent(row.user)
            named = deep.names(recent)
            began = time.process_time()
            made = hybrid.ask(row.user, K, named)
            listing += time.process_time() - began
            alone = online.ask(row.user, K)
            hybrid.show(row.user, made, row.at, deep.trainings)
            online.show(row.user, alone, row.at)
        if n in asked:
            lists = {
                "hybrid": made.items,
                "online": alone.items,
                "fine_tuned": [item for item, _ in named],
                "frozen": [item for item, _ in frozen.names(recent)],
                "joint": [item for item, _ in whole.names(recent)],
                "item_knn": base.neighbours(row.user, (), K),
                "markov": base.markov(row.user, (), K),
            }
            for name in names:
                places[name].setdefault(period, []).append(place(lists[name], row.item, K))
            users.append(row.user)
        began = time.process_time()
        hybrid.learn(row)
        learning += time.process_time() - began
        online.learn(row)
        base.learn(row.user, row.item, row.at)
        deep.learn(row)
        if joint:
            whole.learn(row)
        since += 1
        if n % 2_000 == 0:
            progress(n, len(stream))
    figures = {name: {p: recall(of) for p, of in by.items()} for name, by in places.items()}
    hit = np.array([place < K for by in places["hybrid"].values() for place in by], float)
    return {
        **{
            name: {key: round(float(np.mean([f[key] for f in of.values()])) * 100, 2) for key in ("r20", "mrr20")}
            for name, of in figures.items()
        },
        "ci95_r20": [round(100 * bound, 2) for bound in interval(hit, np.array(users), seed)],
        "asks": len(users),
        "periods": len(figures["hybrid"]),
        "trainings": deep.trainings,
        "training_s": round(deep.seconds, 1),
        "us_per_event": round(learning / len(stream) * 1e6, 1),
        "us_per_list": round(listing / max(len(shown), 1) * 1e6),
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="user,item,value,timestamp[,…,period]")
    parser.add_argument("--asks", type=int, default=600, help="of each period (600)")
    parser.add_argument("--periods", type=int, help="only the first so many")
    parser.add_argument("--joint", action="store_true", help="also a model trained anew after each period")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    stream = events(args.data)
    if args.periods is not None:
        stream = [event for event in stream if event.period < stream[0].period + args.periods]

    figures = run(stream, args.asks, Training(seed=args.seed), args.joint, Progress("events"))
    print(file=sys.stderr)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
