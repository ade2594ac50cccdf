"""P5: what freshness is worth. Lists by copies of the model that take over what was learned every so many events (Monolith, Algorithm 1).

    python -m bench.quality.p5 --data FILE [--asks N] [--seed S] [--plot FILE.svg] [--json]

Asked are N events as in P1. One model learns every event; its copies have it as it was at their last take-over: at each event, every
1,000, 10,000, 50,000 (as far as the stream is longer), or never, counted from the first fifth. All of them are told the user's own
history as it is: what differs is the model. No sequence model here. Beside it, on the same asks, popularity, neighbours and Markov,
online. The slope is that of HR@10 over log10 of the interval, on the same asks (`never` is not in it); 95 % intervals by a bootstrap over
users.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.baselines import NAMES, Baselines
from bench.quality.curves import draw
from bench.quality.p1 import WARM, chosen
from bench.quality.product import Copy, Product
from bench.quality.progress import Progress
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row, rows
from learners.evaluation import interval, metrics, place

EVERY = (1, 1_000, 10_000, 50_000)
K = 20


def run(stream: list[Row], asks: int, seed: int, every: tuple[int, ...] = EVERY, progress: Any = lambda done, all: None) -> dict[str, Any]:
    """The figures of one stream."""
    asked, shown = chosen(stream, asks, seed)
    product, base, warm = Product(seed), Baselines(), int(len(stream) * WARM)
    every = tuple(n for n in every if n < len(stream) - warm)
    if len(every) < 2:
        raise ValueError(f"{len(stream)} events are too few: no copy would take over anything")
    copies = {str(n): Copy(warm, n) for n in every if n > 1} | {"never": Copy(warm)}
    product.copies = list(copies.values())
    places: dict[str, list[int]] = {name: [] for name in ("1", *copies, *NAMES)}
    users: list[str] = []
    learning, listing = 0.0, 0.0
    for n, row in enumerate(stream):
        if n in shown:
            began = time.process_time()
            made = product.ask(row.user, K)
            listing += time.process_time() - began
            hidden = set(base.history.get(row.user, ())) if product.view.shared.once else set()
            if n in asked:
                users.append(row.user)
                old = {name: product.ask_copy(copy, row.user, K).items for name, copy in copies.items()}
                for name, items in ({"1": made.items} | old | base.lists(row.user, hidden, K)).items():
                    places[name].append(place(items, row.item, K))
            elif warm // 2 < n < warm:
                base.tune(hidden, row.item)
            product.show(row.user, made, row.at)
        began = time.process_time()
        product.learn(row)
        learning += time.process_time() - began
        base.learn(row.user, row.item, row.at)
        if n % 2_000 == 0:
            progress(n, len(stream))
    of, hits = np.array(users), {name: np.array(values) < 10 for name, values in places.items()}
    x = np.log10(every)
    slopes = ((x - x.mean()) @ np.array([hits[str(n)] for n in every], float)) / ((x - x.mean()) ** 2).sum()
    found = {name: metrics(np.array(values)) for name, values in places.items()}
    bounds = {name: interval(hits[name].astype(float), of, seed) for name in ("1", *copies)}
    rates = [float(hits[name].mean()) for name in bounds]
    return {
        **found["1"],
        "ci95": bounds["1"],
        "every": {name: {**found[name], "ci95": ci95} for name, ci95 in bounds.items()},
        "below_fresh": {name: interval(hits["1"].astype(float) - hits[name], of, seed) for name in copies},
        "slope": [round(float(slopes.mean()), 5), *(round(bound, 5) for bound in interval(slopes, of, seed))],
        "monotone": all(one >= other for one, other in pairwise(rates)),
        "asks": len(users),
        "baselines": {name: found[name] for name in NAMES},
        "us_per_event": round(learning / len(stream) * 1e6, 1),
        "us_per_list": round(listing / len(shown) * 1e6),
        "seed": seed,
    }


def plot(figures: dict[str, Any], file: Path, title: str) -> None:
    """HR@10 by interval, with its bounds."""
    every = figures["every"]
    bounds = np.array([one["ci95"] for one in every.values()]).T
    rates = {"HR@10": [one["hr10"] for one in every.values()]}
    draw(file, list(every), rates, ("events between two take-overs of the model", "HR@10"), title, bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--asks", type=int, default=6_000)
    parser.add_argument("--events", type=int, help="only the first so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curve (SVG)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        figures = run(rows(args.data, args.seed)[: args.events], args.asks, args.seed, progress=Progress("events"))
    except ValueError as error:
        parser.error(str(error))
    print(file=sys.stderr)
    if args.plot:
        plot(figures, args.plot, args.data.parent.name)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
