"""P1: prequential top-N. Predict each user's next item, then learn it; nothing is asked before the first fifth of the stream is learned.

    python -m bench.quality.p1 --data FILE [--asks N] [--shown SHARE] [--no-deep | --kept FOLDER [--train-only]] [--seed S] [--json]

The stream is in order of time, ties by a seeded hash of time and row number. Asked are N events, drawn from those of known users after the
warm-up; items never seen before count as misses. Every list is made by the product's own code from the state one event before
(`bench/quality/product.py`), and is shown: the ranker learns from these slates and from as many others as make a share `--shown` of all
events, one in seven. (Who chooses from lists is shown one before nearly every event; here each costs time.)
What a user had is hidden where the product itself has found that the stream does not repeat. Beside it, on the same asks: decayed
popularity (of five half-lives the best on the warm-up), item-to-item neighbours, Markov, all online, and the product's own copy that
learned nothing after the warm-up, neither it nor its model, but is told the user's history as it is. 95 % intervals by a bootstrap over
users. The sequence model is trained whenever the product's policy asks for it, on a GPU where there is one (two cores take a minute for
MovieLens 100K, a quarter of an hour for MovieLens 1M); `--no-deep`: without it. `--kept`: a folder for what the trainings end with; a run
that was cut off goes on from there, and one with `--train-only` may come before it, on another machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.baselines import NAMES, Baselines
from bench.quality.curves import draw
from bench.quality.deep import Deep, by_volume
from bench.quality.product import Copy, Product
from bench.quality.progress import Progress
from feedback.policy import Policy
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row, rows
from learners.evaluation import interval, metrics, ndcg, place
from learners.popularity import HALF_LIVES
from learners.ranks import ABSENT
from learners.training import Training
from serving.features import SOURCES

WARM = 0.2
SHOWN = 1 / 7  # of all events
K = 20
COMPARED = ("product", *NAMES, "frozen")
TENTHS = 10


def changes(stream: list[Row]) -> list[Row]:
    """The stream without events that only repeat the item which their user had last."""
    last, out = dict[str, str](), list[Row]()
    for row in stream:
        if last.get(row.user) != row.item:
            out.append(row)
        last[row.user] = row.item
    return out


def chosen(stream: list[Row], asks: int, seed: int, warm: float = WARM, shows: float = SHOWN) -> tuple[set[int], set[int]]:
    """Events that are asked, and those whose lists are shown: these, and a share `shows` of all. ValueError where nobody can be asked."""
    rng = np.random.default_rng(seed)
    first = {row.user: n for n, row in reversed(list(enumerate(stream)))}
    known = np.array([first[row.user] < n for n, row in enumerate(stream)])
    later = np.flatnonzero(known & (np.arange(len(stream)) >= int(len(stream) * warm)))
    if not len(later):
        raise ValueError(f"nobody can be asked: of {len(stream)} events none after the first {warm:.0%} is of a user who was there before")
    asked = set(rng.choice(later, min(asks, len(later)), replace=False).tolist())
    others = np.flatnonzero(known)
    shown = set(rng.choice(others, min(int(len(stream) * shows), len(others)), replace=False).tolist()) | asked
    return asked, shown


def run(
    stream: list[Row], asks: int, seed: int, config: Training | None = None, kept: Path | None = None,
    progress: Any = lambda done, all, now="": None, share: float = WARM,
    told: Callable[[int, list[str]], None] = lambda n, items: None, shows: float = SHOWN, partitions: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """The figures of one stream; `config`: with the deep model; `share` of the stream is warm-up, `shows` as for `chosen`.

    `told` hears which list is shown before which event.
    """
    warm = int(len(stream) * share)
    asked, shown = chosen(stream, asks, seed, share, shows)
    cuts = by_volume(len(stream), Policy())
    deep = Deep(stream, shown, config, cuts, kept, progress=progress) if config else None
    then = Deep(stream, asked, config, [cut for cut in cuts if cut <= warm], kept, "frozen", progress=progress) if config else None
    product, base, frozen = Product(seed, partitions), Baselines(), Copy(warm, partitions=partitions)
    product.copies = [frozen]
    places: dict[str, list[int]] = {name: [] for name in (*COMPARED, *SOURCES)}
    users: list[str] = []
    learning, listing, listed, union, candidates = 0.0, 0.0, 0, 0, 0
    for n, row in enumerate(stream):
        if n in shown:
            named = deep.names(n) if deep else None
            began = time.process_time()
            made = product.ask(row.user, K, named)
            listing, listed = listing + time.process_time() - began, listed + 1
            hidden = set(base.history.get(row.user, ())) if product.view.shared.once else set()
            if n in asked:
                users.append(row.user)
                old = product.ask_copy(frozen, row.user, K, then.names(n) if then else None)
                lists = {"product": made.items, "frozen": old.items, **base.lists(row.user, hidden, K)}
                for name, items in lists.items():
                    places[name].append(place(items, row.item, K))
                candidate = made.candidates.index(row.item) if row.item in made.candidates else -1
                union, candidates = union + (candidate >= 0), candidates + len(made.candidates)
                for source, name in enumerate(SOURCES):
                    places[name].append(int(made.ranks[candidate, source]) if candidate >= 0 else ABSENT)
            elif warm // 2 < n < warm:
                base.tune(hidden, row.item)
            told(n, made.items)
            product.show(row.user, made, row.at, deep.trainings if deep else 0)
        began = time.process_time()
        product.learn(row)
        learning += time.process_time() - began
        base.learn(row.user, row.item, row.at)
        if n % 2_000 == 0:
            progress(n, len(stream))
    of = np.array(users)
    table = {name: np.array(values) for name, values in places.items()}
    sources = {name: metrics(table[name])["hr10"] for name in SOURCES if name != "ranker"}
    rivals = {name: metrics(table[name]) for name in COMPARED[1:]}
    hit = {name: (values < 10).astype(float) for name, values in table.items()}
    tenths = min(TENTHS, len(users))
    best_rival = max(NAMES, key=lambda name: rivals[name]["hr10"])
    best_source = max(sources, key=lambda name: sources[name])
    return {
        **metrics(table["product"]),
        "ci95": interval(hit["product"], of, seed),
        "ci95_ndcg20": interval(ndcg(table["product"], 20), of, seed),
        "asks": len(users),
        "baselines": rivals,
        "half_life": HALF_LIVES[base.best()],
        "over_best_baseline": [best_rival, *interval(hit["product"] - hit[best_rival], of, seed)],
        "over_best_source": [best_source, *interval(hit["product"] - hit[best_source], of, seed)],
        "over_frozen": interval(hit["product"] - hit["frozen"], of, seed),
        "hr10_by_tenth": {name: [round(float(part.mean()), 4) for part in np.array_split(hit[name], tenths)] for name in COMPARED},
        "sources": sources,
        "ranker": metrics(table["ranker"]),
        "recall": {name: round(float((table[name] != ABSENT).mean()), 4) for name in sources},
        "candidates": round(candidates / len(users)),
        "ceiling": round(union / len(users), 4),
        "leads": SOURCES[product.view.shared.order[0]],
        "hides_what_was_had": product.view.shared.once,
        "us_per_event": round(learning / len(stream) * 1e6, 1),
        "us_per_list": round(listing / max(listed, 1) * 1e6),
        "deep": {"trainings": deep.trainings, "s_each": round(deep.seconds / max(deep.trainings, 1), 1)} if deep else None,
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--asks", type=int, default=6_000)
    parser.add_argument("--warm", type=float, default=WARM, help="share of the stream that is learned before the first ask (0.2)")
    parser.add_argument("--shown", type=float, default=SHOWN, help="share of all events before which a list is shown (one in seven)")
    parser.add_argument("--partitions", type=int, default=1, help="of the state, each with its own users, as in a cluster (1)")
    parser.add_argument("--no-repeats", action="store_true", help="without events that only repeat the item which their user had last")
    parser.add_argument("--events", type=int, help="only the first so many")
    parser.add_argument("--deep", action=argparse.BooleanOptionalAction, default=True, help="with the sequence model, as users have it")
    parser.add_argument("--kept", type=Path, help="folder for what its trainings end with, or ended with")
    parser.add_argument("--train-only", action="store_true", help="into that folder, and no more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw HR@10 in each tenth of the asks (SVG)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.train_only and not (args.kept and args.deep):
        parser.error("--train-only needs --kept: a folder for what the trainings end with")
    if min(args.asks, args.partitions) < 1:
        parser.error(f"--asks {args.asks}, --partitions {args.partitions}: at least one of each")
    if not 0 <= args.shown <= 1:
        parser.error(f"--shown {args.shown:g}: a share of all events, from 0 to 1")
    progress, config = Progress("events"), Training(seed=args.seed) if args.deep else None
    try:
        stream = rows(args.data, args.seed)[: args.events]
        if args.no_repeats:
            stream = changes(stream)
        if config and args.train_only:
            Deep(stream, (), config, by_volume(len(stream), Policy()), args.kept, progress=progress).finish()
            return
        with tempfile.TemporaryDirectory(prefix="headrace-p1-") as folder:  # what the frozen copy was trained with is not trained twice
            kept = args.kept or Path(folder)
            figures = run(stream, args.asks, args.seed, config, kept, progress, args.warm, shows=args.shown, partitions=args.partitions)
    except ValueError as error:
        parser.error(str(error))
    print(file=sys.stderr)
    if args.plot:
        lines = figures["hr10_by_tenth"]
        x = range(1, len(lines["product"]) + 1)
        draw(args.plot, x, lines, ("tenth of the asks, in order", "HR@10"), args.data.parent.name)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:20} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
