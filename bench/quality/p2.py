"""P2: sessions over time (ADER, RecSys 2020). Each period is asked with what was learned before, and learned.

    python -m bench.quality.p2 --data FILE [--asks N] [--periods N] [--joint] [--kept FOLDER [--train-only]] [--seed S] [--plot SVG]

Users of the file are sessions; a column `period` cuts the stream, or else each day is one. Asked are N events of each period after the
first: the next item of a session that has begun, if the item was there in an earlier period. N more lists of each period are shown, so
that the ranker has something to learn from. Reported are R@20 and MRR@20, means of the periods, in %: `hybrid` is the product, online and
deep, the model trained whenever the product's policy asks for it; `online` the product without a model; `fine_tuned` and `frozen` that
model alone, and as it was after the first period; `joint` (with --joint: hours on a CPU) one that is trained anew on everything after
each period; `targets`: how many next items each of these has learned, as often as it did. Beside them popularity (of five half-lives the
best in the first period), item-to-item neighbours and a Markov chain, online, and `frozen_hybrid`, the product with its model as both were
after the first period, told the user's history as it is. `hr10` to `baselines` are of all asks, as P1 has them. `--kept`: a folder for
what the trainings end with; a run that was cut off goes on from there, and one with `--train-only` may come before it, elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.quality.baselines import NAMES, Baselines
from bench.quality.curves import draw
from bench.quality.deep import Deep, by_volume
from bench.quality.product import Copy, Product
from bench.quality.progress import Progress
from feedback.policy import Policy
from infra.interactions import Row, labelled
from learners.evaluation import interval, metrics, place
from learners.popularity import HALF_LIVES
from learners.training import Training

K = 20
POLICY = Policy()


class Event(NamedTuple):
    row: Row
    period: int


def events(file: Path, seed: int) -> list[Event]:
    """The file's interactions by time, periods counted from 0. Raises ValueError where they do not follow each other."""
    numbers, out = dict[str, int](), list[Event]()
    for row, label in labelled(file, "period", seed):
        label = label or str(int(row.at // 86_400))
        period = numbers.setdefault(label, len(numbers))
        if period < len(numbers) - 1:
            raise ValueError(f"{file}: at time {row.at:g} period {label!r} begins again; periods follow each other")
        out.append(Event(row, period))
    return out


def reciprocal(ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64[n]: 1 / rank, from 1, within the first 20."""
    return np.where(ranks < K, 1 / (ranks + 1.0), 0.0)


def recall(places: list[int]) -> dict[str, float]:
    ranks = np.array(places)
    return {"r20": float((ranks < K).mean()), "mrr20": float(reciprocal(ranks).mean())}


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


def models(
    stream: list[Event],
    asked: set[int],
    shown: set[int],
    config: Training,
    joint: bool,
    kept: Path | None,
    progress: Any,
    policy: Policy = POLICY,
) -> dict[str, Deep]:
    """The model as the product keeps it, as it was when the second period began, if there was one, and one trained anew for each period."""
    rows, cuts = [event.row for event in stream], by_volume(len(stream), policy)
    starts = [n for n in range(1, len(stream)) if stream[n].period != stream[n - 1].period]
    if not starts:
        raise ValueError("one period only: it is learned, and the next one asked")
    out = {"fine_tuned": Deep(rows, shown, config, cuts, kept, progress=progress)}
    if first := [cut for cut in cuts if cut <= starts[0]]:
        out["frozen"] = Deep(rows, asked, config, first, kept, "frozen", progress=progress)
    if joint:
        out["joint"] = Deep(rows, asked, config, starts, kept and kept / "joint", anew=True, progress=progress)
    return out


def run(
    stream: list[Event], asks: int, config: Training, joint: bool = False, kept: Path | None = None,
    progress: Any = lambda done, all, now="": None, policy: Policy = POLICY,
    periods: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The figures of one stream, or of its first `periods`: asked and trained as for all of them."""
    seed = config.seed
    asked, shown = chosen(stream, asks, seed)
    deep = models(stream, asked, shown, config, joint, kept, progress, policy)
    hybrid, online, base, then = Product(seed), Product(seed), Baselines(), Copy(sum(period == 0 for _, period in stream))
    hybrid.copies = [then]
    names = ("hybrid", "online", *deep, *NAMES, "frozen_hybrid")
    places: dict[str, dict[int, list[int]]] = {name: {} for name in names}
    users: list[str] = []
    listing, learning = 0.0, 0.0
    end = sum(periods is None or period < periods for _, period in stream)
    if not any(n < end for n in asked):
        raise ValueError("nobody can be asked: after the first period no session goes on with an item that was there before")
    for n, (row, period) in enumerate(stream[:end]):
        if n in shown:
            named = deep["fine_tuned"].names(n)
            began = time.process_time()
            made = hybrid.ask(row.user, K, named)
            listing += time.process_time() - began
            alone = online.ask(row.user, K)
            hidden = set(base.history[row.user]) if hybrid.view.shared.once else set()
            if n in asked:
                own = {base.items.names[item] for item in hidden}
                lists = {
                    "hybrid": made.items,
                    "online": alone.items,
                    **{name: [item for item in model.names(n).items if item not in own] for name, model in deep.items()},
                    **base.lists(row.user, hidden, K),
                    "frozen_hybrid": hybrid.ask_copy(then, row.user, K, deep["frozen"].names(n) if "frozen" in deep else None).items,
                }
                for name in names:
                    places[name].setdefault(period, []).append(place(lists[name], row.item, K))
                users.append(row.user)
            elif not period:
                base.tune(hidden, row.item)
            hybrid.show(row.user, made, row.at, deep["fine_tuned"].trainings)
            online.show(row.user, alone, row.at)
        began = time.process_time()
        hybrid.learn(row)
        learning += time.process_time() - began
        online.learn(row)
        base.learn(row.user, row.item, row.at)
        if n % 2_000 == 0:
            progress(n, end)
    figures = {name: {p: recall(of) for p, of in by.items()} for name, by in places.items()}
    all_of = {name: np.array([place for of in by.values() for place in of]) for name, by in places.items()}
    of = np.array(users)
    return {
        **metrics(all_of["hybrid"]),
        "ci95": interval((all_of["hybrid"] < 10).astype(float), of, seed),
        "baselines": {name: metrics(all_of[name]) for name in (*NAMES, "frozen_hybrid")},
        **{
            name: {key: round(float(np.mean([f[key] for f in of.values()])) * 100, 2) for key in ("r20", "mrr20")}
            for name, of in figures.items()
        },
        "by_period": {name: {p: round(f["r20"], 4) for p, f in of.items()} for name, of in figures.items()},
        "ci95_r20": [round(100 * bound, 2) for bound in interval((all_of["hybrid"] < K).astype(float), of, seed)],
        "ci95_mrr20": [round(100 * bound, 2) for bound in interval(reciprocal(all_of["hybrid"]), of, seed)],
        "asks": len(users),
        "periods": len(figures["hybrid"]),
        "trainings": deep["fine_tuned"].trainings,
        "training_s": round(deep["fine_tuned"].seconds, 1),
        "targets": {name: model.targets() for name, model in deep.items()},
        "half_life": HALF_LIVES[base.best()],
        "us_per_event": round(learning / end * 1e6, 1),
        "us_per_list": round(listing / max(sum(n < end for n in shown), 1) * 1e6),
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="user,item,value,timestamp[,…,period]")
    parser.add_argument("--asks", type=int, default=600, help="of each period (600)")
    parser.add_argument("--periods", type=int, help="only the first so many")
    parser.add_argument("--joint", action="store_true", help="also a model trained anew after each period")
    parser.add_argument("--kept", type=Path, help="folder for what the trainings end with, or ended with")
    parser.add_argument("--train-only", action="store_true", help="into that folder, and no more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw R@20 by period (SVG)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.train_only and not args.kept:
        parser.error("--train-only needs --kept: a folder for what the trainings end with")
    progress, config = Progress("events"), Training(seed=args.seed)
    try:
        stream = events(args.data, args.seed)
        if args.train_only:
            for name, model in models(stream, set(), set(), config, args.joint, args.kept, progress).items():
                if name != "frozen":  # its trainings are among the first one's
                    model.finish()
            return
        with tempfile.TemporaryDirectory(prefix="headrace-p2-") as folder:  # what the frozen one was trained with is not trained twice
            figures = run(stream, args.asks, config, args.joint, args.kept or Path(folder), progress, periods=args.periods)
    except ValueError as error:
        parser.error(str(error))
    print(file=sys.stderr)
    if args.plot:
        lines = {name: list(of.values()) for name, of in figures["by_period"].items()}
        draw(args.plot, list(figures["by_period"]["hybrid"]), lines, ("period", "R@20"), args.data.parent.name)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
