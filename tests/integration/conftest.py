"""The local stack, started once per test run as a user starts it, and what tests do with it. Stories come first."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from infra.bootstrap import DEMO_DATA, JARS, TRITON
from serving.client import Client, Recommended
from streams import topics
from streams.kafka import Kafka

ROOT = Path(__file__).parent.parent.parent
HEADRACE = str(ROOT / ".venv" / "bin" / "headrace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A story has the machine for itself: it runs before the stack of the other tests starts."""
    items.sort(key=lambda item: "test_story" not in item.nodeid)


def lacking() -> str | None:
    if not JARS.exists() or not (TRITON / "bin" / "python").exists():
        return "no Kafka or no Triton here: make setup"
    return None if DEMO_DATA.exists() else "no demo data here: make setup"


@dataclass
class Running:
    """A stack that runs, and its three doors."""

    kafka: Kafka
    triton: str
    folder: Path
    process: subprocess.Popen[str]
    client: Client
    producer: KafkaProducer = field(init=False)

    def __post_init__(self) -> None:
        self.producer = KafkaProducer(**self.kafka.kafka_python(), acks="all", linger_ms=0, max_request_size=2 << 20)

    def send(self, topic: str, value: Any, key: str | None = None, **more: Any) -> None:
        """Send and wait for the acknowledgement."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.producer.send(self.kafka.prefix + topic, key=key.encode() if key else None, value=raw, **more).get(timeout=10)

    def click(self, user: str, item: str, **more: Any) -> None:
        self.send(topics.INTERACTIONS, interaction(user, item, **more), user)

    def ask(self, user: str, k: int = 10, **more: Any) -> Recommended:
        return self.client.recommend(user, k, **more)

    def run(self, *command: str, timeout: float = 60, code: int = 0, input: str | None = None) -> str:
        """A `headrace` command against this stack; returns what it printed."""
        done = subprocess.run(
            [HEADRACE, *command, "--kafka", self.kafka.bootstrap, "--triton", self.triton],
            capture_output=True, text=True, timeout=timeout, input=input, cwd=self.folder,
            env={**os.environ, "HEADRACE_KAFKA__PARTITIONS": str(self.kafka.partitions)},
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def interaction(user: str, item: str, **more: Any) -> dict[str, Any]:
    return {"user": user, "item": item, "kind": "click", "at": datetime.now(UTC).isoformat(), **more}


def until(check: Callable[[], Any], timeout: float = 10.0, pause: float = 0.02) -> Any:
    """What `check` says once it says something, within `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        said = check()
        if said:
            return said
        assert time.monotonic() < deadline, f"not within {timeout} s: {check}"
        time.sleep(pause)


def start(folder: Path, *flags: str, environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], str, str]:
    """`headrace up` until it is up: (process, Kafka's address, Triton's)."""
    process = subprocess.Popen(
        [HEADRACE, "up", "--dir", str(folder), *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(r"up: Kafka (\S+), Triton (\S+)", line)
        if found:
            return process, found[1], found[2]
    raise AssertionError("the stack did not come up:\n" + "".join(said))


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Signal it, wait for its end; returns its exit code."""
    process.send_signal(number)
    code = process.wait(timeout=15)
    assert process.stdout is not None
    process.stdout.close()
    return code


def processes_of(folder: Path) -> dict[int, str]:
    """Pid and command line of every process that names `folder` or lives on its environment."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_text().replace("\0", " ")
            if str(folder) in line or str(folder) in (place / "environ").read_text():
                found[int(place.name)] = line
        except OSError:
            continue
    return found


def send(folder: Path, pattern: str, number: signal.Signals) -> bool:
    """Signal the one process of the stack in `folder` whose command line matches; False where there is none."""
    for pid, line in processes_of(folder).items():
        if re.search(pattern, line):
            os.kill(pid, number)
            return True
    return False


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if reason := lacking():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("stack") / "up"
    policy = json.dumps({"volume_first": 0, "volume_every": 0, "schedule_s": 0})
    environment = {"HEADRACE_POLICY": policy, "HEADRACE_KAFKA__PARTITIONS": "2", "HEADRACE_ROLLOUT__DEADLINE_S": "2"}
    process, kafka, triton = start(folder, environment=environment)
    try:
        with Client(triton) as client:
            running = Running(Kafka(kafka, partitions=2), triton, folder, process, client)
            yield running
            running.producer.close()
    finally:
        end(process, signal.SIGINT)
