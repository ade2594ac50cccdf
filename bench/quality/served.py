"""P1 as it is served: the same asks through Kafka, a worker and Triton, beside the run in process. They should be worth the same.

    python -m bench.quality.served --data FILE [--asks N] [--events N] [--seed S] [--json]

Everything is real and on this machine (`headrace up` without a deep model). An event is sent once the list that is shown before it has
been answered; a list is asked for once the committed state holds all that was sent. Reported are both runs, of as many partitions, the
difference on the same asks with its 95 % interval (by users), and how many lists are equal item for item: what differs are refreshes by
the clock instead of by events, and which of the unshown candidates an answer happens to log, from which the ranker learns.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.fold import Tail
from bench.lists import Flow
from bench.quality import p1
from bench.quality.progress import Progress
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row, rows
from infra.settings import Settings
from infra.stack import Stack
from learners.evaluation import interval, metrics, place
from serving.client import AsyncClient

NEWS_S = 30  # within which what was sent is in the committed state
REPLICA_S = 0.02  # from the commit to Triton's replica


async def ask(stack: Stack, stream: list[Row], shown: set[int], progress: Any) -> dict[int, list[str]]:
    """The lists at the events `shown`, as served."""
    flow, tail, client = Flow(stack, stream), Tail(stack.settings.kafka), AsyncClient(stack.settings.triton.url)
    found = dict[int, list[str]]()
    try:
        for n, row in enumerate(stream):
            if n in shown:
                flow.flush()
                until = time.monotonic() + NEWS_S
                while tail.counted("interactions") < n:
                    if time.monotonic() > until:
                        raise SystemExit(f"of {n} events {tail.counted('interactions')} are in the state after {NEWS_S} s")
                    await asyncio.sleep(0.005)
                await asyncio.sleep(REPLICA_S)
                found[n] = (await client.recommend(row.user, p1.K)).items
            flow.send(1)
            if n % 500 == 0:
                progress(n, len(stream), "served")
    finally:
        await client.close()
    return found


async def served(stream: list[Row], shown: set[int], progress: Any) -> dict[int, list[str]]:
    settings = Settings()
    never = dataclasses.replace(settings.policy, volume_first=0, volume_every=0, schedule_s=0)
    with tempfile.TemporaryDirectory(prefix="headrace-served-") as folder:
        stack = Stack(settings.model_copy(update={"policy": never}), Path(folder) / "stack", lambda line: None)
        try:
            await stack.start()
            return await ask(stack, stream, shown, progress)
        finally:
            await stack.stop()


def run(stream: list[Row], asks: int, seed: int, progress: Any = lambda done, all, now="": None) -> dict[str, Any]:
    """The figures of one stream."""
    asked, shown = p1.chosen(stream, asks, seed)
    theirs = asyncio.run(served(stream, shown, progress))
    ours = dict[int, list[str]]()
    partitions = Settings().kafka.partitions
    in_process = p1.run(stream, asks, seed, progress=progress, told=lambda n, items: ours.update({n: items}), partitions=partitions)
    order = sorted(asked)
    users = np.array([stream[n].user for n in order])
    places = {
        name: np.array([place(of[n], stream[n].item, p1.K) for n in order]) for name, of in (("served", theirs), ("in_process", ours))
    }
    hits = {name: (values < 10).astype(float) for name, values in places.items()}
    return {
        **metrics(places["served"]),
        "ci95": interval(hits["served"], users, seed),
        "in_process": {**metrics(places["in_process"]), "ci95": in_process["ci95"]},
        "difference": [
            round(float((hits["served"] - hits["in_process"]).mean()), 4), *interval(hits["served"] - hits["in_process"], users, seed)
        ],
        "equal_lists": round(float(np.mean([theirs[n] == ours[n] for n in order])), 4),
        "asks": len(order),
        "seed": seed,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--asks", type=int, default=4_000)
    parser.add_argument("--events", type=int, help="only the first so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        found = run(rows(args.data, args.seed)[: args.events], args.asks, args.seed, Progress("events"))
    except ValueError as error:
        parser.error(str(error))
    print(file=sys.stderr)
    print(json.dumps(found) if args.json else "\n".join(f"{name:14} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
