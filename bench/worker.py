"""The whole worker on real Kafka: ingest with validation, fence, fold, state, commit; beside what one could write in an afternoon.

    python -m bench.worker [--data FILE] [--events N] [--json]

Three consumers of the same N interactions, each in a process of its own, one after the other, on a broker of their own:
`worker`  ours: `headrace worker`, four partitions;
`bare`    a confluent-kafka consume-transform-produce loop: the same decoding and learning, the same state records, no guarantee:
          no timeline, no fence, no transaction, no position that is committed with its effects;
`faust`   idiomatic faust-streaming: an agent over the topic, one table per source, `acks` as by default.

Figures: events per CPU-second of the process (so: on one core), CPU us an event, bytes of state an event. CPU seconds of the whole
process group from the first to the last effect, start-up left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from infra.bootstrap import DEMO_DATA, ROOT
from infra.broker import Broker
from infra.provisioning import provision
from infra.replay import Row, backfill, rows
from streams import topics
from streams.kafka import Kafka
from streams.standing import POSITION, Standing

PARTITIONS = 4
SLOWEST = 20_000  # events that Faust gets: more would take minutes
TICK = os.sysconf("SC_CLK_TCK")


# --- the other two, each as its own process --------------------------------------------------------------------------------
def bare(kafka: Kafka, events: int) -> None:
    """The loop without a guarantee. Prints `start` at the first event and `end` at the last."""
    from streams.fold import Fold, Log
    from streams.ingest import ingest
    from streams.timeline import encode

    consumer = Consumer(
        kafka.confluent() | {"group.id": "bare", "auto.offset.reset": "earliest", "enable.auto.commit": True, "fetch.min.bytes": 1 << 16}
    )
    producer = Producer(kafka.confluent() | {"linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    consumer.subscribe([kafka.prefix + topics.INTERACTIONS])
    folds = {p: Fold(p, kafka.partitions) for p in range(kafka.partitions)}
    done = 0
    while done < events:
        batches: dict[int, list[Log]] = {}
        for message in consumer.consume(2_000, 0.1):
            if message.error() is not None:
                continue
            if not done:
                print("start", flush=True)
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
    producer.flush(60)
    print("end", flush=True)
    time.sleep(60)


def idiomatic(kafka: Kafka, events: int) -> None:
    """Faust as its documentation shows it: a record, an agent, tables."""
    import faust

    from learners.online import Online
    from streams.ingest import ingest
    from streams.timeline import Interacted

    app = faust.App(
        "idiomatic", broker=f"kafka://{kafka.bootstrap}", store="memory://", topic_partitions=kafka.partitions, web_enabled=False,
        value_serializer="raw", datadir=tempfile.mkdtemp(prefix="headrace-faust-"), topic_disable_leader=True,
    )  # fmt: skip
    tables = {kind: app.Table(f"online-{kind}", default=bytes, value_serializer="raw") for kind in "pcus"}
    online, done = Online(), 0

    @app.agent(app.topic(kafka.prefix + topics.INTERACTIONS, value_serializer="raw", value_type=bytes, key_type=bytes))  # type: ignore[untyped-decorator]
    async def learn(stream: Any) -> None:
        nonlocal done
        async for event in stream.events():
            if not done:
                print("start", flush=True)
            done += 1
            message = event.message
            headers = [(k, v) for k, v in (message.headers or {}).items()] if isinstance(message.headers, dict) else message.headers or []
            record = ingest(0, message.partition, message.offset, int(message.timestamp * 1000), message.key, message.value, headers)
            if isinstance(record, Interacted):
                touched, _ = online.learn_one(record.user, record.item, record.at)
                for key in touched:
                    tables[key[0]][key] = online.dump(key)
            if done == events:
                print("end", flush=True)

    app.finalize()
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()


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


def measure(name: str, kafka: Kafka, events: int, folder: Path) -> dict[str, Any]:
    """Run one of the three over the first `events` interactions of the topic."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HEADRACE_TRITON__URL": "127.0.0.1:9",
        "HEADRACE_KAFKA": json.dumps({"bootstrap": kafka.bootstrap, "partitions": kafka.partitions, "prefix": kafka.prefix}),
    }  # fmt: skip
    ours = [sys.executable, "-m", "infra.cli", "worker"]
    command = ours if name == "worker" else [sys.executable, "-m", "bench.worker", "--as", name, "--events", str(events)]
    with (
        open(folder / f"{name}.log", "wb") as log,
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE if name != "worker" else log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            if name == "worker":
                tail = Tail(kafka)
                _until(lambda: tail.folded() > 0)
            else:
                _said(process, b"start")
            cpu, began, before = cpu_s(process.pid), time.monotonic(), tail.folded() if name == "worker" else 0
            if name == "worker":
                _until(lambda: tail.folded() >= events)
            else:
                _said(process, b"end")
            cpu, wall, n = cpu_s(process.pid) - cpu, time.monotonic() - began, events - before
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    return {"events": n, "cpu_us_per_event": round(cpu / n * 1e6, 1), "events_per_cpu_s": round(n / cpu), "events_per_s": round(n / wall)}


class Tail:
    """How many records the committed state says are folded; follows the state topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._consumer = Consumer(
            kafka.confluent() | {"group.id": "tail", "enable.auto.commit": False, "isolation.level": "read_committed"}
        )
        self._consumer.assign([TopicPartition(kafka.prefix + topics.ONLINE_STATE, p, 0) for p in range(kafka.partitions)])
        self._of: dict[int, int] = {}

    def folded(self) -> int:
        for message in self._consumer.consume(100_000, 0):
            if message.error() is None and message.key() == POSITION:
                self._of[message.partition() or 0] = Standing.load(message.value() or b"").counts.get("folded", 0)
        return sum(self._of.values())


def _until(check: Any, within_s: float = 300) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "not within 300 s"
        time.sleep(0.1)


def _said(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"ended before {word!r}; see its log")


def run(name: str, source: list[Row], folder: Path) -> dict[str, Any]:
    """A broker of its own, filled with the interactions, then the measurement."""
    broker = Broker.prepare(folder / f"kafka-{name}")
    with open(folder / f"kafka-{name}.log", "wb") as log, subprocess.Popen(broker.command(), stdout=log, stderr=log) as process:
        try:
            _until(broker.answers)
            kafka = Kafka(broker.bootstrap, partitions=PARTITIONS)
            provision(kafka)
            asyncio.run(backfill(kafka, source, "bench", lambda done, all: None))
            figures = measure(name, kafka, len(source), folder)
            if name != "faust":
                figures["state_bytes_per_event"] = round(bytes_in(broker.folder, f"{kafka.prefix}{topics.ONLINE_STATE}") / len(source))
            return figures
        finally:
            process.kill()


def first(data: Path, events: int, folder: Path) -> list[Row]:
    """The first `events` interactions of a file that is in order of time; the whole one may be too large to sort."""
    with gzip.open(data, "rt") if data.suffix == ".gz" else open(data) as text:
        (folder / "part.csv").write_text("".join(islice(text, events + 1)))
    return rows(folder / "part.csv")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    arguments.add_argument("--events", type=int, default=100_000, help="the first so many (100,000)")
    arguments.add_argument("--only", choices=["worker", "bare", "faust"], help="one of the three")
    arguments.add_argument("--as", dest="role", choices=["bare", "faust"], help=argparse.SUPPRESS)
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    if args.role:
        there = json.loads(os.environ["HEADRACE_KAFKA"])
        (bare if args.role == "bare" else idiomatic)(Kafka(there["bootstrap"], there["prefix"], there["partitions"]), args.events)
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    source = first(args.data, args.events, folder)
    figures = {}
    for name in [args.only] if args.only else ["worker", "bare", "faust"]:
        figures[name] = run(name, source[: SLOWEST if name == "faust" else None], folder)
        print(name, figures[name], file=sys.stderr, flush=True)
    if not args.only:
        speed = {name: f["events_per_cpu_s"] for name, f in figures.items()}
        figures["ratio"] = {"to_bare": round(speed["worker"] / speed["bare"], 2), "to_faust": round(speed["worker"] / speed["faust"], 1)}
    print(json.dumps(figures) if args.json else "\n".join(f"{name:8} {values}" for name, values in figures.items()))


if __name__ == "__main__":
    main()
