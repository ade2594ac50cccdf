"""P4: ratings through Kafka and the worker: a learner that a lost, doubled or swapped event would throw off has its digits in process.

    python -m bench.quality.p4 --data FILE [--events N] [--seed S] [--json]

river's BiasedMF predicts each rating (clipped to 1 .. 5), then learns it: once in a loop, once inside the fold of a worker on a broker of
its own, one partition, ingest, timeline and commits as for everybody. What the worker found is read from the state that it committed.
Reported are MAE, with a 95 % interval by a bootstrap over users, and RMSE of both, and whether all predictions are equal to the last bit;
beside them means of what was before, of all ratings and of the item's. (River's own on its MovieLens100K order: .7486 / .9479.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from river import optim, reco

from bench.fold import Tail, own_broker
from bench.quality.progress import Progress
from feedback.policy import Policy
from infra.bootstrap import DEMO_DATA, ROOT
from infra.interactions import Row, rows
from infra.replay import backfill
from learners.evaluation import interval
from learners.online import Memory
from streams.fold import Fold
from streams.kafka import Kafka
from streams.timeline import Interacted
from streams.worker import run as run_worker


class Ratings:
    """Predict, then learn; sums of the errors, and a checksum of every prediction."""

    def __init__(self) -> None:
        self.model = reco.BiasedMF(
            n_factors=10,
            bias_optimizer=optim.SGD(0.025),
            latent_optimizer=optim.SGD(0.05),
            weight_initializer=optim.initializers.Zeros(),
            latent_initializer=optim.initializers.Normal(mu=0.0, sigma=0.1, seed=73),
        )
        self.n, self.checksum, self.absolute, self.squared = 0, 0, 0.0, 0.0

    def learn_one(self, user: str, item: str, rating: float) -> float:
        """Returns what it expected."""
        expected = min(max(float(self.model.predict_one(user, item)), 1.0), 5.0)
        self.model.learn_one(user, item, rating)
        self.n += 1
        self.checksum = zlib.crc32(struct.pack("<d", expected), self.checksum)
        self.absolute += abs(expected - rating)
        self.squared += (expected - rating) ** 2
        return expected

    def counts(self) -> dict[str, int]:
        """Everything as whole numbers below 2^32, floats by their bits: a state has counts."""
        halves = struct.unpack("<4I", struct.pack("<2d", self.absolute, self.squared))
        return {"ratings": self.n, "checksum": self.checksum, **dict(zip(HALVES, halves, strict=True))}


HALVES = ("absolute_low", "absolute_high", "squared_low", "squared_high")


def figures(counts: dict[str, int]) -> dict[str, Any]:
    n, (absolute, squared) = counts["ratings"], struct.unpack("<2d", struct.pack("<4I", *(counts[half] for half in HALVES)))
    return {"mae": absolute / n, "rmse": (squared / n) ** 0.5, "checksum": f"{counts['checksum']:08x}"}


class Rated(Fold):
    """The fold, and the ratings beside it. They are not restored: this is for one run."""

    def reset(self) -> None:
        super().reset()
        self.ratings = Ratings()

    def _interacted(self, event: Interacted, touched: set[str]) -> None:
        super()._interacted(event, touched)
        if event.value is not None:
            self.ratings.learn_one(event.user, event.item, event.value)
            self.standing.counts.update(self.ratings.counts())


def run(stream: list[Row], seed: int, progress: Any = lambda done, all: None) -> dict[str, Any]:
    """The figures of one stream."""
    here, began = Ratings(), time.process_time()
    expected = [here.learn_one(row.user, row.item, row.value or 0.0) for row in stream]
    took = time.process_time() - began
    errors = np.abs(np.array(expected) - [row.value or 0.0 for row in stream])
    with tempfile.TemporaryDirectory(prefix="headrace-p4-") as folder, own_broker(Path(folder) / "kafka", partitions=1) as (_, kafka):
        found = _through(kafka, stream, Path(folder), progress)
    there, own = figures(found), figures(here.counts())
    return {
        "worker": there,
        "in_process": own,
        "equal": there == own,
        "asks": found["ratings"],
        "ci95": interval(errors, np.array([row.user for row in stream]), seed),
        "baselines": means(stream),
        "us_per_event": round(took / len(stream) * 1e6, 1),
        "seed": seed,
    }


def means(stream: list[Row]) -> dict[str, dict[str, float]]:
    """Expected is the mean of all ratings until then, or of the item's; 3 before the first."""
    errors: dict[str, list[float]] = {"mean": [], "item_mean": []}
    sums: dict[str | None, list[float]] = {}
    for row in stream:
        for name, key in (("mean", None), ("item_mean", row.item)):
            total = sums.get(key) or sums.get(None) or [3.0, 1.0]
            errors[name].append(total[0] / total[1] - (row.value or 0.0))
        for key in (None, row.item):
            total = sums.setdefault(key, [0.0, 0.0])
            total[0], total[1] = total[0] + (row.value or 0.0), total[1] + 1
    return {
        name: {"mae": round(float(np.abs(of).mean()), 4), "rmse": round(float(np.square(of).mean() ** 0.5), 4)}
        for name, of in errors.items()
    }


def _through(kafka: Kafka, stream: list[Row], folder: Path, progress: Any) -> dict[str, int]:
    asyncio.run(backfill(kafka, stream, "p4", lambda done, all: None))
    command = [sys.executable, "-m", "bench.quality.p4", "--as-worker", kafka.bootstrap]
    tail, deadline = Tail(kafka), time.monotonic() + 60 + len(stream) / 500
    with open(folder / "worker.log", "wb") as log, subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder, stdout=log, stderr=log
    ) as worker:  # fmt: skip
        try:
            while (done := tail.counted("ratings")) < len(stream):
                progress(done, len(stream))
                if worker.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the worker has {done} of {len(stream)}:\n{(folder / 'worker.log').read_text()[-2000:]}")
                time.sleep(0.3)
        finally:
            worker.kill()
    return {name: tail.counted(name) for name in Ratings().counts()}  # it has had all: nothing changes any more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp; value is a rating from 1 to 5")
    parser.add_argument("--asks", "--events", dest="events", type=int, help="only the first so many ratings, each of which is asked")
    parser.add_argument("--seed", type=int, default=1, help="of the order of events at one time")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_worker:
        never = Policy(volume_first=0, volume_every=0, schedule_s=0)
        run_worker(Kafka(args.as_worker, partitions=1), "127.0.0.1:9", "p4", never, Memory(), fold=Rated)
        return
    try:
        stream = rows(args.data, args.seed)[: args.events]
    except ValueError as error:
        parser.error(str(error))
    if not all(row.value is not None and 1 <= row.value <= 5 for row in stream):
        parser.error(f"{args.data} has rows whose value is no rating from 1 to 5: BiasedMF learns these")
    found = run(stream, args.seed, Progress("ratings"))
    print(file=sys.stderr)
    print(json.dumps(found) if args.json else "\n".join(f"{name:14} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
