"""What a list costs and how often it holds the next item, in process: predict, then learn; online sources only.

    python -m bench.lists [--data FILE] [--events N] [--asks N] [--json]

The state a list is made from is one event old; nothing is asked before the first fifth of the events is learned.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from infra.bootstrap import DEMO_DATA
from infra.replay import rows
from learners.online import Online
from learners.popularity import HALF_LIVES
from serving.recommend import Ask, View, answer
from serving.repeats import Repeats


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA)
    arguments.add_argument("--events", type=int, default=50_000)
    arguments.add_argument("--asks", type=int, default=4_000)
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    source = rows(args.data)[: args.events]
    rng = np.random.default_rng(7)
    warm = len(source) // 5
    asked = set((warm + rng.choice(len(source) - warm, min(args.asks, len(source) - warm), replace=False)).tolist())
    view, repeats = View(Online()), Repeats()
    hits: list[bool] = []
    popular: list[bool] = []
    spent = 0.0
    for n, row in enumerate(source):
        profile = view.online.profiles.get(row.user)
        if n % 100 == 0:
            view.repeats[0], view.watermark = repeats, row.at
            view.refresh()
        if n in asked and profile is not None:
            began = time.process_time()
            made = answer(view, Ask(row.user), [], 0.0, rng)
            spent += time.process_time() - began
            hits.append(row.item in made.items)
            top = [i for i, _ in view.shared.popular[HALF_LIVES.index(500)] if not (view.shared.once and i in profile.had)]
            popular.append(row.item in top[:10])
        _, _, repeat = view.online.learn_one(row.user, row.item, row.at)
        if profile is not None:
            repeats.learn(repeat)
    figures = {
        "asks": len(hits),
        "hit_rate_10": round(float(np.mean(hits)), 4),
        "popularity_hit_rate_10": round(float(np.mean(popular)), 4),
        "cpu_us_per_list": round(spent / len(hits) * 1e6),
    }
    print(json.dumps(figures) if args.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
