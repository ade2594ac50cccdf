"""What a large state costs: memory of a worker that holds all of it, and how long it takes to be back after a restart.

    python -m bench.memory [--users N] [--items N] [--events N] [--json]

The state is made by the fold's own code, written to the state topic, and read from there by a real worker on a real broker. Figures:
memory once all partitions are open (`rss`), the largest on the way (`peak`), after as many further events as `--more` says; seconds
from the start of the process to the first effect in the first and in the last of the partitions, after SIGTERM and after SIGKILL.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

from bench.fold import PARTITIONS, Tail, _until, bytes_in
from infra.bootstrap import ROOT
from infra.broker import Broker
from infra.provisioning import provision
from streams import topics
from streams.events import Interaction, to_bytes, utc
from streams.fold import Fold
from streams.kafka import Kafka
from streams.once import FRESH, WINDOW
from streams.timeline import Interacted, Source

NOW = 1.7e9


def user(n: int) -> str:
    return f"u{n:07}"


def fill(kafka: Kafka, partition: int, users: int, items: int, events: int) -> int:
    """Make the state of one partition and write it to its topic; returns the bytes of its records."""
    rng, fold = np.random.default_rng(partition), Fold(partition, kafka.partitions)
    online, written = fold.online, 0
    producer = Producer(kafka.confluent() | {"linger.ms": 50, "queue.buffering.max.kbytes": 1 << 16, "batch.size": 1 << 20})

    def write(records: dict[bytes, bytes | None]) -> None:
        nonlocal written
        for key, value in records.items():
            written += len(key) + len(value or b"")
            while True:
                try:
                    producer.produce(kafka.prefix + topics.ONLINE_STATE, value, key=key, partition=partition)
                    break
                except BufferError:
                    producer.poll(0.5)
            producer.poll(0)

    # Zipf-like over the whole catalogue: a few items have most of the choices, all have some.
    names = [name for name in map(user, range(users)) if topics.partition_of(name, kafka.partitions) == partition]
    choices = (items ** rng.random((len(names), events)) - 1).astype(np.int64) % items
    for name, chosen in zip(names, choices, strict=True):
        for n, item in enumerate(chosen.tolist()):
            online.learn_one(name, f"i{item:06}", NOW + n)
    # The position: nothing of a timeline is folded yet, and a full window of event ids.
    ids = (Interacted(Source(0, 0, n, 0), "", "", "view", NOW, id=f"e{n}") for n in range(WINDOW))
    assert all(fold.once.verdict(record) == FRESH for record in ids)
    fold.once.fences = {}
    write(online.changes())
    write({f"x·{chunk}".encode(): value for chunk, value in fold.once.changes()})
    write(dict([fold.position(0, int(NOW * 1000))]))
    producer.flush(60)
    return written


class Worker:
    """A worker process of ours."""

    def __init__(self, kafka: Kafka, folder: Path) -> None:
        self.ready, self.began = folder / "ready", time.monotonic()
        self.ready.unlink(missing_ok=True)
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HEADRACE_TRITON__URL": "127.0.0.1:9",
            "HEADRACE_KAFKA": json.dumps({"bootstrap": kafka.bootstrap, "partitions": kafka.partitions, "prefix": kafka.prefix}),
        }  # fmt: skip
        with open(folder / "worker.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker", "--ready", str(self.ready)],
                env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        atexit.register(self.process.kill)

    def memory_mb(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) // 1024

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


class Sender:
    """Sends clicks of known users to all partitions."""

    def __init__(self, kafka: Kafka, users: int, items: int) -> None:
        self._producer = Producer(kafka.confluent() | {"linger.ms": 5})
        self._topic, self._users, self._items = kafka.prefix + topics.INTERACTIONS, users, items
        self._rng, self.sent = np.random.default_rng(5), 0

    def send(self, n: int) -> None:
        for _ in range(n):
            self.sent += 1
            who = user(int(self._rng.integers(self._users)))
            item = f"i{self._rng.integers(self._items):06}"
            event = Interaction(id=f"n{self.sent}", user=who, item=item, kind="view", at=utc(NOW + 100 + self.sent))
            self._producer.produce(self._topic, to_bytes(event), key=who.encode())
            self._producer.poll(0)
        self._producer.flush(30)


def restarted(kafka: Kafka, folder: Path, sender: Sender, tail: Tail) -> tuple[Worker, dict[str, float]]:
    """Start a worker with events waiting for it; seconds until the first partition, and the last, has an effect of them."""
    for _ in range(10):  # until the former worker's last commit is seen
        tail.folded()
        time.sleep(0.1)
    before = dict(tail.next)
    sender.send(400)
    worker, first = Worker(kafka, folder), 0.0
    while True:
        tail.folded()
        moved = [p for p in range(kafka.partitions) if tail.next.get(p, 0) > before.get(p, 0)]
        first = first or (time.monotonic() - worker.began if moved else 0.0)
        if len(moved) == kafka.partitions:
            return worker, {"first_s": round(first, 1), "all_s": round(time.monotonic() - worker.began, 1)}
        assert worker.process.poll() is None and time.monotonic() < worker.began + 120, f"see {folder / 'worker.log'}"
        time.sleep(0.02)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--users", type=int, default=1_000_000)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--events", type=int, default=50, help="of each user (50)")
    arguments.add_argument("--more", type=int, default=50_000, help="events after the restart (50,000)")
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    broker = Broker.prepare(folder / "kafka")
    figures: dict[str, Any] = {"users": args.users, "items": args.items, "events_a_user": args.events}
    with open(folder / "kafka.log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=PARTITIONS)
            provision(kafka)
            began = time.monotonic()
            print("making the state …", file=sys.stderr, flush=True)
            with get_context("spawn").Pool(2) as pool:
                written = pool.starmap(fill, [(kafka, p, args.users, args.items, args.events) for p in range(PARTITIONS)], chunksize=1)
            figures |= {"made_in_s": round(time.monotonic() - began), "records_mb": sum(written) >> 20}
            figures["topic_mb"] = bytes_in(broker.folder, f"{kafka.prefix}{topics.ONLINE_STATE}") >> 20
            sender, tail = Sender(kafka, args.users, args.items), Tail(kafka)
            while not tail.folded() and len(tail.next) < PARTITIONS:
                time.sleep(0.1)
            print(figures, file=sys.stderr, flush=True)
            worker, figures["start"] = restarted(kafka, folder, sender, tail)
            figures["rss_mb"], figures["peak_mb"] = worker.memory_mb("VmRSS"), worker.memory_mb("VmHWM")
            print(figures, file=sys.stderr, flush=True)
            sender.send(args.more)
            _until(lambda: tail.folded() >= sender.sent)
            figures["rss_after_more_mb"] = worker.memory_mb("VmRSS")
            for number in (signal.SIGTERM, signal.SIGKILL):
                worker.end(number)
                worker, figures[f"after_{number.name.lower()}"] = restarted(kafka, folder, sender, tail)
            worker.end(signal.SIGKILL)
        finally:
            process.kill()
    shutil.rmtree(folder)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:20} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
