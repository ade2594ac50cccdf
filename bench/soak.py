"""A worker for a long time under a steady load: does its memory, its cost or its lag grow?

    python -m bench.soak [--data FILE] [--minutes M] [--events-s N] [--json]

Real broker, one worker, four partitions, bounds of memory so low that they are reached within minutes: from then on users and items are
evicted as fast as new ones come, and what still grows is a leak. A sample every five seconds; slopes are fitted (least squares) over what
comes in the second half (the windows of event ids take 400,000 events to fill): `rss_mb_per_hour` with its standard error, the worker's
share of a core in the first and the last fifth, the largest lag (records acknowledged and not yet visible in the committed state).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

from bench.fold import PARTITIONS, Tail, _until, cpu_s, first
from bench.memory import Worker
from infra.bootstrap import DEMO_DATA
from infra.broker import Broker
from infra.interactions import Row
from infra.provisioning import provision
from infra.replay import interaction
from streams import topics
from streams.events import to_bytes
from streams.kafka import Kafka

EVERY_S = 5.0
BOUNDS = {"users": 500, "items": 1_000, "ledgers": 500}


def drive(kafka: Kafka, source: list[Row], events_s: float, seconds: float, worker: Worker) -> list[tuple[float, float, float, int]]:
    """Send the rows again and again; returns samples (s, memory in MB, CPU s, lag in records)."""
    producer, tail = Producer(kafka.confluent() | {"linger.ms": 5}), Tail(kafka)
    samples: list[tuple[float, float, float, int]] = []
    began, sent, sampled = time.monotonic(), 0, 0.0
    topic, acknowledged = kafka.prefix + topics.INTERACTIONS, 0

    def told(error: Any, message: Any) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    while (now := time.monotonic() - began) < seconds:
        while sent < now * events_s:
            row, lap = source[sent % len(source)], sent // len(source)
            event = interaction(row._replace(user=f"{row.user}-{lap}"), f"e{sent}")  # each lap brings users of its own
            producer.produce(topic, to_bytes(event), key=event.user.encode(), on_delivery=told)
            sent += 1
            producer.poll(0)
        producer.poll(0.005)
        folded = tail.folded()
        if now - sampled >= EVERY_S:
            sampled = now
            samples.append((now, worker.memory_mb("VmRSS"), cpu_s(os.getpgid(worker.process.pid)), acknowledged - folded))
            print(f"\r{now:6.0f} s  {samples[-1][1]:4.0f} MB  lag {samples[-1][3]:6}", end="", file=sys.stderr, flush=True)
    producer.flush(30)
    _until(lambda: tail.folded() >= acknowledged)
    return samples


def slope(samples: list[tuple[float, float, float, int]]) -> dict[str, Any]:
    """What the samples say."""
    table = np.array(samples)
    settled = table[len(table) // 2 :]
    hours, memory = settled[:, 0] / 3600, settled[:, 1]
    (per_hour, _), covariance = np.polyfit(hours, memory, 1, cov=True)
    fifth = max(len(table) // 5, 2)
    return {
        "rss_mb": {"settled": float(settled[0, 1]), "last": float(table[-1, 1]), "max": float(table[:, 1].max())},
        "rss_mb_per_hour": [round(float(per_hour), 1), round(float(covariance[0, 0] ** 0.5), 1)],
        "cpu_share": [round(float(np.ptp(part[:, 2]) / np.ptp(part[:, 0])), 3) for part in (table[:fifth], table[-fifth:])],
        "lag": {"p50": float(np.median(table[:, 3])), "max": float(table[:, 3].max())},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    arguments.add_argument("--minutes", type=float, default=20)
    arguments.add_argument("--events-s", type=float, default=1_000)
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    source = first(args.data, 1_000_000, folder)
    broker = Broker.prepare(folder / "kafka")
    os.environ["HEADRACE_MEMORY"] = json.dumps(BOUNDS)
    with open(folder / "kafka.log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=PARTITIONS)
            provision(kafka)
            worker = Worker(kafka, folder)
            _until(worker.ready.exists)
            samples = drive(kafka, source, args.events_s, args.minutes * 60, worker)
            worker.end(signal.SIGTERM)
        finally:
            process.kill()
    figures = {"minutes": args.minutes, "events_s": args.events_s, "bounds": BOUNDS, **slope(samples)}
    shutil.rmtree(folder)
    print(file=sys.stderr)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:16} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
