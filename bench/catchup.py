"""A whole log, from its first record to learned and servable, with Triton answering meanwhile.

    python -m bench.catchup --data FILE [--asks-s N] [--json]

All events are in the input topic before the worker starts. Figures: seconds from the start of its process until the committed state has
every event (`learned_s`) and until an answer was made from all of it (`servable_s`, by the positions in its impression); of the answers
asked for meanwhile, how many, how many failed, and their latency in ms (p50, p99, largest).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from tritonclient.utils import InferenceServerException

from bench.fold import PARTITIONS, Tail, _until, cpu_s
from bench.memory import Worker
from infra.bootstrap import DEMO_DATA
from infra.broker import Broker
from infra.interactions import rows
from infra.provisioning import provision
from infra.replay import backfill
from infra.settings import Settings, Triton
from infra.tritonserver import TritonServer
from serving.client import Client
from streams import topics
from streams.kafka import Kafka


class Asker:
    """Asks for one user after the other at a steady rate, in a thread."""

    def __init__(self, url: str, users: list[str], asks_s: float) -> None:
        self.took: list[float] = []  # ms
        self.failed = 0
        self._url, self._users, self._pause = url, users, 1 / asks_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rng = np.random.default_rng(7)
        with Client(self._url) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    client.recommend(self._users[rng.integers(len(self._users))])
                    self.took.append((time.monotonic() - began) * 1000)
                except InferenceServerException:
                    self.failed += 1
                self._stop.wait(max(0.0, began + self._pause - time.monotonic()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


def servable(impressions: Consumer, wanted: dict[int, int]) -> bool:
    """Has an answer been made from the state at the positions `wanted`?"""
    for message in impressions.consume(1_000, 0):
        if message.error() is None:
            positions = json.loads(message.value() or b"{}").get("positions", {})
            if all(int(positions.get(str(p), 0)) >= n for p, n in wanted.items()):
                return True
    return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    arguments.add_argument("--asks-s", type=float, default=20, help="asks a second meanwhile (20)")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    try:
        source = rows(args.data)
    except ValueError as error:
        arguments.error(str(error))
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    broker, server = Broker.prepare(folder / "kafka"), TritonServer.prepare(folder / "models")
    with open(folder / "kafka.log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=PARTITIONS)
            provision(kafka)
            print(f"writing {len(source)} events to the log …", file=sys.stderr, flush=True)
            asyncio.run(backfill(kafka, source, "bench", lambda done, all: None))
            settings = Settings(kafka=kafka, triton=Triton(server.url, server.repository))
            environment = {**os.environ, **settings.environment(), **server.environment()}
            with open(folder / "triton.log", "wb") as log, subprocess.Popen(
                server.command(), env=environment, stdout=log, stderr=log, start_new_session=True
            ) as triton:  # fmt: skip
                try:
                    figures = measure(kafka, server.url, triton.pid, len(source), sorted({row.user for row in source}), args.asks_s, folder)
                finally:
                    os.killpg(triton.pid, signal.SIGKILL)
        finally:
            process.kill()
    shutil.rmtree(folder)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:12} {value}" for name, value in figures.items()))


def measure(kafka: Kafka, url: str, triton: int, events: int, users: list[str], asks_s: float, folder: Path) -> dict[str, Any]:
    def answers() -> bool:
        try:
            with Client(url) as client:
                return client.recommend(users[0]).degraded  # there is no state yet, it says so
        except InferenceServerException:
            return False

    _until(answers)
    impressions = Consumer(kafka.confluent() | {"group.id": "catchup", "enable.auto.commit": False})
    impressions.assign([TopicPartition(kafka.prefix + topics.RECOMMENDATIONS, p, 0) for p in range(kafka.partitions)])
    tail, asker, cpu = Tail(kafka), Asker(url, users, asks_s), cpu_s(triton)
    worker = Worker(kafka, folder)
    while (folded := tail.folded()) < events:
        print(f"\r{time.monotonic() - worker.began:5.0f} s  {folded} of {events} events", end="", file=sys.stderr, flush=True)
        assert worker.process.poll() is None, f"see {folder / 'worker.log'}"
        time.sleep(0.1)
    learned, wanted = time.monotonic() - worker.began, dict(tail.next)
    while not servable(impressions, wanted):
        time.sleep(0.02)
    served = time.monotonic() - worker.began
    print(file=sys.stderr)
    asker.close()
    worker_cpu, triton_cpu = cpu_s(os.getpgid(worker.process.pid)), cpu_s(triton) - cpu
    worker.end(signal.SIGTERM)
    p50, p99, largest = np.percentile(asker.took, [50, 99, 100])
    return {
        "events": events, "learned_s": round(learned, 1), "servable_s": round(served, 1), "events_per_s": round(events / served),
        "worker_cpu_s": round(worker_cpu, 1), "triton_cpu_s": round(triton_cpu, 1),
        "answers": len(asker.took), "failed": asker.failed, "ms": [round(float(ms), 1) for ms in (p50, p99, largest)],
    }  # fmt: skip


if __name__ == "__main__":
    main()
