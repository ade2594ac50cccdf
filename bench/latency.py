"""What each hop adds between a user's event and the state that answers are made from, at low and at high rates.

    python -m bench.latency [--rates N …] [--seconds S] [--json]

Real broker, one worker, four partitions. Times are the broker's (append times, ms), so one clock measures all: `ingest` from the input
topic to the timeline, `fold` from there to the committed state, `seen` until a reader of committed records has it (its clock is the
same machine's). `batch`: events of one commit; nobody sets a linger, the fetch paces: at low rates a commit waits for nothing, at
high rates it takes along what came meanwhile. `cpu_us`: of the worker, an event.
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
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.fold import PARTITIONS, _until, cpu_s, first
from bench.memory import Worker
from infra.bootstrap import DEMO_DATA
from infra.broker import Broker
from infra.interactions import Row
from infra.provisioning import provision
from infra.replay import interaction
from infra.state import timeline
from streams import topics
from streams.events import to_bytes
from streams.kafka import Kafka
from streams.standing import POSITION, Standing
from streams.timeline import decode


class Reader:
    """Reads the committed state as Triton's replica does; remembers each position with when it was written and seen (ms)."""

    def __init__(self, kafka: Kafka) -> None:
        self.positions: list[tuple[int, int, int, float]] = []  # partition, next offset, appended, seen
        self._stop, self._kafka = threading.Event(), kafka
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        consumer = Consumer(
            self._kafka.confluent()
            | {"group.id": "latency", "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 10}
        )
        consumer.assign([TopicPartition(self._kafka.prefix + topics.ONLINE_STATE, p, 0) for p in range(self._kafka.partitions)])
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            for m in [message, *consumer.consume(200, 0)] if message else []:
                if m.error() is None and m.key() == POSITION:
                    standing = Standing.load(m.value() or b"")
                    self.positions.append((m.partition() or 0, standing.next, m.timestamp()[1], time.time() * 1000))
        consumer.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)


def measure(kafka: Kafka, source: list[Row], rate: float, seconds: float, worker: Worker, start: int) -> dict[str, Any]:
    """Send at `rate` for `seconds`, then look at when each of these records was where."""
    producer, reader = Producer(kafka.confluent() | {"linger.ms": 0}), Reader(kafka)
    before = {p: sum(1 for _ in timeline(kafka, p)) for p in range(kafka.partitions)}
    began, sent, cpu = time.monotonic(), 0, cpu_s(worker.process.pid)
    while (now := time.monotonic() - began) < seconds:
        while sent < now * rate:
            row = source[(start + sent) % len(source)]
            producer.produce(kafka.prefix + topics.INTERACTIONS, to_bytes(interaction(row, f"e{start + sent}")), key=row.user.encode())
            sent += 1
        producer.poll(0.001)
    producer.flush(30)
    time.sleep(2)
    cpu = cpu_s(worker.process.pid) - cpu
    reader.close()
    hops: dict[str, list[float]] = {"ingest": [], "fold": [], "seen": [], "all": []}
    batches = []
    for p in range(kafka.partitions):
        positions = sorted({(n, a, s) for partition, n, a, s in reader.positions if partition == p})
        nexts = np.array([n for n, _, _ in positions])
        batches += [b for b in np.diff(np.unique(nexts)).tolist() if b]
        for log in timeline(kafka, p):
            if log.offset < before[p]:
                continue
            appended = decode(log.value).source.appended
            _, written, seen = positions[int(np.searchsorted(nexts, log.offset + 1))]
            for hop, took in (("ingest", log.timestamp - appended), ("fold", written - log.timestamp), ("seen", seen - written)):
                hops[hop].append(took)
            hops["all"].append(seen - appended)
    return {
        "events_s": rate,
        "events": sent,
        **{hop: [round(float(np.percentile(times, q)), 1) for q in (50, 99)] for hop, times in hops.items()},
        "batch": [round(float(np.percentile(batches, q)), 1) for q in (50, 99)],
        "cpu_us": round(cpu / sent * 1e6),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    arguments.add_argument("--rates", type=float, nargs="+", default=[10, 100, 1_000, 3_000], help="events a second")
    arguments.add_argument("--seconds", type=float, default=20)
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    source, figures = first(args.data, 1_000_000, folder), []
    broker = Broker.prepare(folder / "kafka")
    os.environ.pop("HEADRACE_MEMORY", None)
    with open(folder / "kafka.log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=PARTITIONS)
            provision(kafka)
            worker, start = Worker(kafka, folder), 0
            _until(worker.ready.exists)
            for rate in [100, *args.rates]:  # the first one warms up
                figures.append(measure(kafka, source, rate, args.seconds, worker, start))
                start += figures[-1]["events"]
                print(figures[-1], file=sys.stderr, flush=True)
            worker.end(signal.SIGTERM)
        finally:
            process.kill()
    shutil.rmtree(folder)
    print(json.dumps(figures[1:]) if args.json else "\n".join(str(line) for line in figures[1:]))


if __name__ == "__main__":
    main()
