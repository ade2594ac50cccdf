"""What an event costs: the whole worker on real Kafka, beside what one could write in an afternoon; and as the state grows.

    python -m bench.fold [--data FILE] [--events N] [--json] [--plot FILE.svg]

Three consumers of the same N interactions, each in a process of its own, one after the other, on a broker of their own:
`worker`  ours: `headrace worker`, four partitions: ingest with validation, timeline, fence, fold, state and position in transactions;
`bare`    a confluent-kafka consume-transform-produce loop: the same decoding and learning, the same state records, no guarantee:
          no timeline, no transaction, no position that is committed with its effects;
`faust`   idiomatic faust-streaming: an agent over the topic, one table per source.

All have the log before them when they start, and are measured from their first tenth to the end, so that neither the sender nor the
start is in it. Figures: events per CPU-second of the consumer's process group (so: on one core), CPU us an event, bytes of state an
event. The broker shares the machine. `worker` and `bare` take turns, three rounds; medians.

`growth`: CPU us an event of the fold alone, in process, with 1, 10 and 100 times the users and items in its state: the median of 40
batches of 500, the three in turn; `at_10x`, `at_100x`: by how much the whole worker's event grows with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from infra.bootstrap import DEMO_DATA, ROOT
from infra.broker import Broker
from infra.interactions import Row, rows
from infra.provisioning import provision
from infra.replay import backfill
from streams import topics
from streams.fold import Fold, Log
from streams.kafka import Kafka
from streams.reader import BATCH
from streams.standing import POSITION, Standing
from streams.timeline import Interacted, Source, encode

PARTITIONS = 4
ROUNDS = 3
SLOWEST = 20_000  # events that Faust gets: more would take minutes
TICK = os.sysconf("SC_CLK_TCK")


# --- the other two, each as its own process --------------------------------------------------------------------------------
def bare(kafka: Kafka, events: int) -> None:
    """The loop without a guarantee. Prints `start` once it has its partitions and `end` after the last event."""
    from streams.ingest import ingest

    consumer = Consumer(
        kafka.confluent() | {"group.id": "bare", "auto.offset.reset": "earliest", "enable.auto.commit": True, "fetch.min.bytes": 1 << 16}
    )
    producer = Producer(kafka.confluent() | {"linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    consumer.subscribe([kafka.prefix + topics.INTERACTIONS])
    folds = {p: Fold(p, kafka.partitions) for p in range(kafka.partitions)}
    done = 0
    while done < events:
        began = done >= events // 10
        batches: dict[int, list[Log]] = {}
        for message in consumer.consume(2_000, 0.1):
            if message.error() is not None:
                continue
            done += 1
            partition, offset, appended = message.partition() or 0, message.offset() or 0, message.timestamp()[1]
            record = ingest(0, partition, offset, appended, message.key(), message.value(), message.headers() or [])
            if record is not None:
                batches.setdefault(partition, []).append(Log(offset, appended, message.key(), encode(record)))
        for partition, logs in batches.items():
            for key, value in folds[partition].fold(logs).touched.items():
                while True:
                    try:
                        producer.produce(kafka.prefix + topics.ONLINE_STATE, value, key=key, partition=partition)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.poll(0)
        if done >= events // 10 and not began:
            print("start", done, flush=True)
    producer.flush(60)
    print("end", flush=True)
    time.sleep(60)


def idiomatic(kafka: Kafka, events: int) -> None:
    """Faust as its documentation shows it: a record, an agent, tables."""
    import faust

    from learners.online import Online
    from streams.ingest import ingest

    app = faust.App(
        "idiomatic", broker=f"kafka://{kafka.bootstrap}", store="memory://", topic_partitions=kafka.partitions, web_enabled=False,
        value_serializer="raw", datadir=tempfile.mkdtemp(prefix="headrace-faust-"), topic_disable_leader=True,
    )  # fmt: skip
    table = app.Table("online", default=bytes, key_type=bytes, value_type=bytes)
    online, done = Online(), 0

    @app.agent(app.topic(kafka.prefix + topics.INTERACTIONS, value_serializer="raw", value_type=bytes, key_type=bytes))  # type: ignore[untyped-decorator] # faust carries no types
    async def learn(stream: Any) -> None:
        nonlocal done
        async for event in stream.events():
            done += 1
            message = event.message
            headers = [(k, v) for k, v in (message.headers or {}).items()] if isinstance(message.headers, dict) else message.headers or []
            record = ingest(0, message.partition, message.offset, int(message.timestamp * 1000), message.key, message.value, headers)
            if isinstance(record, Interacted):
                online.learn_one(record.user, record.item, record.at)
                for key, value in online.changes().items():
                    table[key] = value
            if done == events // 10:
                print("start", done, flush=True)
            if done == events:
                print("end", flush=True)

    app.finalize()
    faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()


# --- measuring -------------------------------------------------------------------------------------------------------------
def cpu_s(group: int) -> float:
    """CPU seconds that the processes of a group have used."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def bytes_in(folder: Path, topic: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"data/{topic}-*/*.log"))


def measure(name: str, kafka: Kafka, source: list[Row], folder: Path) -> dict[str, Any]:
    """Send the interactions, start one of the three, wait until it has had them all."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HEADRACE_TRITON__URL": "127.0.0.1:9",
        "HEADRACE_KAFKA": json.dumps({"bootstrap": kafka.bootstrap, "partitions": kafka.partitions, "prefix": kafka.prefix}),
    }  # fmt: skip
    events = len(source)
    ours = [sys.executable, "-m", "infra.cli", "worker", "--ready", str(folder / "ready")]
    command = ours if name == "worker" else [sys.executable, "-m", "bench.fold", "--as", name, "--events", str(events)]
    asyncio.run(backfill(kafka, source, "bench", lambda done, all: None))
    with (
        open(folder / f"{name}.log", "wb") as log,
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE if name != "worker" else log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            tail = Tail(kafka)
            if name == "worker":
                _until(lambda: tail.folded() >= events // 10)
                before = tail.folded()
            else:
                before = int(_said(process, b"start"))
            cpu, began = cpu_s(process.pid), time.monotonic()
            if name == "worker":
                _until(lambda: tail.folded() >= events)
            else:
                _said(process, b"end")
            cpu, wall = cpu_s(process.pid) - cpu, time.monotonic() - began
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    measured = events - before
    speed = {
        "cpu_us_per_event": round(cpu / measured * 1e6, 1),
        "events_per_cpu_s": round(measured / cpu),
        "events_per_s": round(measured / wall),
    }
    return {"events": events, **speed}


class Tail:
    """What the committed state says of itself; follows the state topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._consumer = Consumer(
            kafka.confluent() | {"group.id": "tail", "enable.auto.commit": False, "isolation.level": "read_committed"}
        )
        self._consumer.assign([TopicPartition(kafka.prefix + topics.ONLINE_STATE, p, 0) for p in range(kafka.partitions)])
        self._of: dict[int, dict[str, int]] = {}
        self.next: dict[int, int] = {}  # timeline offset that each partition's state stands at

    def counted(self, what: str) -> int:
        """How many of these all partitions have counted."""
        for message in self._consumer.consume(100_000, 0):
            if message.error() is None and message.key() == POSITION:
                standing = Standing.load(message.value() or b"")
                self._of[message.partition() or 0] = standing.counts
                self.next[message.partition() or 0] = standing.next
        return sum(counts.get(what, 0) for counts in self._of.values())

    def folded(self) -> int:
        """How many records are folded."""
        return self.counted("folded")


def _until(check: Any, within_s: float = 300) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "not within 300 s"
        time.sleep(0.02)


def _said(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """Wait for a line that begins so; returns what is behind the word."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line[len(word) :]
    raise AssertionError(f"ended before {word!r}; see its log")


@contextmanager
def own_broker(folder: Path, partitions: int) -> Iterator[tuple[Broker, Kafka]]:
    """A broker with our topics that lives in a folder of its own, its log beside it; gone afterwards."""
    broker = Broker.prepare(folder)
    with open(folder.with_suffix(".log"), "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=partitions)
            provision(kafka)
            yield broker, kafka
        finally:
            process.kill()


def run(name: str, source: list[Row], folder: Path) -> dict[str, Any]:
    """A broker of its own, filled with the interactions, then the measurement."""
    shutil.rmtree(folder / f"kafka-{name}", ignore_errors=True)  # of the round before
    with own_broker(folder / f"kafka-{name}", PARTITIONS) as (broker, kafka):
        figures = measure(name, kafka, source, folder)
        if name != "faust":
            figures["state_bytes_per_event"] = round(bytes_in(broker.folder, f"{kafka.prefix}{topics.ONLINE_STATE}") / len(source))
        return figures


def growth(factors: tuple[int, ...] = (1, 10, 100), rounds: int = 40) -> dict[str, dict[str, float]]:
    """The fold alone: states of `factor` times 5,000 users and 2,000 items, then batches of each in turn: the same luck for all."""
    rngs, folds = {factor: random.Random(factor) for factor in factors}, {factor: Fold(0, 1) for factor in factors}
    took: dict[int, list[float]] = {factor: [] for factor in factors}
    written = dict.fromkeys(factors, 0)

    def batch(factor: int, start: int, counts: bool) -> None:
        rng, logs = rngs[factor], []
        for n in range(start, start + BATCH):
            user, item = f"u{rng.randrange(5_000 * factor)}", f"i{int(rng.paretovariate(0.8)) % (2_000 * factor)}"
            logs.append(Log(n, n, b"", encode(Interacted(Source(0, 0, n, n), user, item, "view", float(n), id=f"e{n}"))))
        began = time.process_time()
        touched = folds[factor].fold(logs).touched
        if counts:
            took[factor].append(time.process_time() - began)
            written[factor] += sum(len(k) + len(v or b"") for k, v in touched.items())

    for factor in factors:
        for start in range(0, 10_000 * factor, BATCH):
            batch(factor, start, counts=False)
    for number in range(rounds):
        for factor in factors:
            batch(factor, 10_000 * factor + number * BATCH, counts=True)
    return {
        f"{factor}x": {
            "users": 5_000 * factor,
            "items": 2_000 * factor,
            "cpu_us_per_event": round(median(took[factor]) / BATCH * 1e6, 1),
            "bytes_per_event": round(written[factor] / rounds / BATCH),
        }
        for factor in factors
    }


def first(data: Path, events: int, folder: Path) -> list[Row]:
    """The first `events` interactions of a file that is in order of time; the whole one may be too large to sort."""
    with gzip.open(data, "rt") if data.suffix == ".gz" else open(data) as text:
        (folder / "part.csv").write_text("".join(islice(text, events + 1)))
    return rows(folder / "part.csv")


def plot(figures: dict[str, Any], file: Path) -> None:
    """What an event costs in each of the three, and in the fold as its state grows."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    left_right, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = ["bare", "worker", "faust"]
    bars = left.bar(names, [figures[name]["cpu_us_per_event"] for name in names], color=["#9aa5b1", "#2f6fb2", "#c98a3b"])
    left.bar_label(bars, fmt="%.0f")
    left.set(yscale="log", ylabel="CPU µs an event", title="Consumers of the same events")
    grown = list(figures["growth"].values())
    right.plot([g["users"] for g in grown], [g["cpu_us_per_event"] for g in grown], "o-", color="#2f6fb2")
    right.set(xscale="log", ylim=(0, None), xlabel="users in the state", ylabel="CPU µs an event", title="The fold alone")
    left_right.savefig(file, metadata={"Date": None})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    arguments.add_argument("--events", type=int, default=100_000, help="the first so many (100,000)")
    arguments.add_argument("--only", choices=["worker", "bare", "faust", "growth"], help="one of them")
    arguments.add_argument("--as", dest="role", choices=["bare", "faust"], help=argparse.SUPPRESS)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (SVG); not with --only")
    args = arguments.parse_args()
    if args.role:
        there = json.loads(os.environ["HEADRACE_KAFKA"])
        (bare if args.role == "bare" else idiomatic)(Kafka(there["bootstrap"], there["prefix"], there["partitions"]), args.events)
        return
    if args.events < 1_000:
        arguments.error(f"--events is {args.events}; below 1,000 there is nothing to measure")
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    source = first(args.data, args.events, folder)
    rounds: dict[str, list[dict[str, Any]]] = {}
    for name in [args.only] if args.only else [*["worker", "bare"] * ROUNDS, "faust"]:
        if name != "growth":
            rounds.setdefault(name, []).append(run(name, source[: SLOWEST if name == "faust" else None], folder))
            print(name, rounds[name][-1], file=sys.stderr, flush=True)
    figures: dict[str, Any] = {name: {key: median(each[key] for each in took) for key in took[0]} for name, took in rounds.items()}
    if args.only in (None, "growth"):
        figures["growth"] = growth()
    if not args.only:
        speed = {name: figures[name]["events_per_cpu_s"] for name in ("worker", "bare", "faust")}
        cost = {factor: figures["growth"][factor]["cpu_us_per_event"] for factor in ("1x", "10x", "100x")}
        whole = figures["worker"]["cpu_us_per_event"]
        figures["ratios"] = {
            "worker_to_bare": round(speed["worker"] / speed["bare"], 2), "worker_to_faust": round(speed["worker"] / speed["faust"], 1),
            "at_10x": round(1 + (cost["10x"] - cost["1x"]) / whole, 2), "at_100x": round(1 + (cost["100x"] - cost["1x"]) / whole, 2),
        }  # fmt: skip
        if args.plot:
            plot(figures, args.plot)
    shutil.rmtree(folder)
    print(json.dumps(figures) if args.json else "\n".join(f"{name:8} {values}" for name, values in figures.items()))


if __name__ == "__main__":
    main()
