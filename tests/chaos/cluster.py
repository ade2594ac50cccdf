"""A broker and workers that share nothing but the broker, and what can be done to them."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import Signals

from confluent_kafka import Consumer, TopicPartition

from infra.broker import Broker
from infra.ports import HOST, free_ports
from infra.provisioning import provision
from streams import topics
from streams.kafka import Kafka
from streams.standing import POSITION, Standing
from tests.chaos.proxy import Proxy

SEEN_S = 0.5
AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""


class Cluster:
    """`kafka` reaches the broker directly; the workers reach it through `proxy`. One folder and log a process in `folder`."""

    def __init__(self, folder: Path, partitions: int = 4) -> None:
        self.folder = folder
        self.broker = Broker.prepare(folder / "kafka")
        inner, outer = free_ports(2)
        file = self.broker.folder / "server.properties"
        door = f"PLAINTEXT://{HOST}:{self.broker.port}"
        text = file.read_text().replace(f"listeners={door},", f"listeners={door},WORKERS://{HOST}:{inner},")
        text = text.replace(f"advertised.listeners={door}", f"advertised.listeners={door},WORKERS://{HOST}:{outer}")
        text = text.replace("security.protocol.map=", "security.protocol.map=WORKERS:PLAINTEXT,")
        file.write_text(text + AUTHORIZER)
        self.proxy = Proxy(outer, inner)
        self.kafka = Kafka(self.broker.bootstrap, partitions=partitions)
        self.settings = {"bootstrap": f"{HOST}:{outer}", "partitions": partitions}
        self._broker: subprocess.Popen[bytes] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = 0

    # --- broker ------------------------------------------------------------------------------------------------------
    def start_broker(self) -> None:
        with open(self.folder / "kafka.log", "ab") as out:
            self._broker = subprocess.Popen(self.broker.command(), stdout=out, stderr=out)
        wait(self.broker.answers, 60)

    def kill_broker(self) -> None:
        assert self._broker is not None
        self._broker.kill()
        self._broker.wait()

    def fill_disk(self) -> None:
        """The broker's writes fail until it halts, as on a full disk."""
        assert self._broker is not None
        with self.no_writes(self._broker.pid):
            self._broker.wait(30)

    @staticmethod
    @contextmanager
    def no_writes(pid: int) -> Iterator[None]:
        """The process cannot write to files meanwhile."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    # --- workers -----------------------------------------------------------------------------------------------------
    def start_worker(self, name: str, environment: dict[str, str] | None = None) -> None:
        """Also again, after it has ended: what a supervisor does."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        (place / "ready").unlink(missing_ok=True)
        with open(place / "log", "ab") as out:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker", "--name", name, "--ready", str(place / "ready")],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, cwd=place,
                env={
                    **os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent), "OMP_NUM_THREADS": "1",
                    "HEADRACE_KAFKA": json.dumps(self.settings), "HEADRACE_TRITON__URL": f"{HOST}:9",
                    **(environment or {}),
                },
            )  # fmt: skip

    def is_ready(self, name: str) -> bool:
        return (self.folder / name / "ready").exists()

    def signal(self, name: str, number: Signals) -> None:
        self.workers[name].send_signal(number)

    def end(self, name: str, number: Signals, within_s: float = 20) -> int:
        self.signal(name, number)
        return self.workers[name].wait(within_s)

    def corrupt(self, name: str) -> None:
        """Every file that the worker left in its folder becomes noise."""
        for path in (self.folder / name).rglob("*"):
            if path.is_file() and path.name != "log":
                path.write_bytes(random.randbytes(4096))

    def revive(self) -> None:
        """Start again what has ended by itself: a fenced or cut off worker may stop with its reason."""
        for name, worker in self.workers.items():
            if worker.poll() is not None:
                self.restarts += 1
                self.start_worker(name)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
            worker.wait()
        if self._broker is not None:
            self.kill_broker()
        self.proxy.close()


class Effects:
    """When the committed state of each partition last advanced, as any reader of committed records sees it."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka, self._stop = kafka, threading.Event()
        self.next = dict.fromkeys(range(kafka.partitions), 0)
        self.at = dict.fromkeys(range(kafka.partitions), 0.0)  # monotonic s
        self._thread = threading.Thread(target=self._run, name="effects", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        consumer = Consumer(
            self._kafka.confluent()
            | {"group.id": "effects", "enable.auto.commit": False, "isolation.level": "read_committed",
               "reconnect.backoff.max.ms": 200, "fetch.wait.max.ms": 20}
        )  # fmt: skip
        topic = self._kafka.prefix + topics.ONLINE_STATE
        consumer.assign([TopicPartition(topic, p, 0) for p in range(self._kafka.partitions)])
        while not self._stop.is_set():
            for message in consumer.consume(200, 0.02):
                if message.error() is None and message.key() == POSITION:
                    standing = Standing.load(message.value() or b"")
                    partition = message.partition() or 0
                    if standing.next > self.next[partition]:
                        self.next[partition], self.at[partition] = standing.next, time.monotonic()
        consumer.close()

    def after(self, moment: float, within_s: float) -> float:
        """Seconds from a fault at `moment` until every partition has had an effect that the fault did not let through.

        What was committed just before the fault may be seen just after it: the first `SEEN_S` do not count.
        """
        wait(lambda: all(at > moment + SEEN_S for at in self.at.values()), within_s, 0.01)
        return max(self.at.values()) - moment

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)


def wait(check: Callable[[], object], within_s: float, pause: float = 0.05) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s} s: {check}"
        time.sleep(pause)


def prepare(folder: Path, workers: int, partitions: int = 4) -> Cluster:
    """A cluster with its topics and `workers` ready workers."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, partitions)
    try:
        cluster.start_broker()
        provision(cluster.kafka)
        for n in range(workers):
            cluster.start_worker(f"worker-{n}")
        wait(lambda: all(cluster.is_ready(name) for name in cluster.workers), 60)
    except BaseException:
        cluster.close()
        raise
    return cluster
