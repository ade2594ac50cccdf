"""What a served list costs, and how many a machine serves, while events flow.

    python -m bench.lists [--data FILE] [--events N] [--events-s N …] [--clients N …] [--seconds S] [--no-deep] [--json]

Everything is real and on this machine: broker, worker, Triton with its replica, and the deep model that the trainer released after the
first events (the trainer is paused while we measure). Clients ask in a closed loop, for ten items each time, with requests that were
serialised before; they and the producer of the events share the cores with what is measured. For each rate of events and number of
clients: `lists_s`, `p50_ms` and `p99_ms` as the clients see them, `failed`, and `cpu_ms`: CPU of Triton's processes (server,
`recommend`) a list.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from bench.fold import cpu_s, first
from bench.load import K, ask
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row
from infra.replay import interaction
from infra.settings import Settings
from infra.stack import Stack
from serving.client import AsyncClient
from streams import topics
from streams.events import to_bytes

Say = Callable[[str], None]
ASKED = 2_000  # users, of those who came last


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def show(found: dict[str, Any], as_json: bool) -> None:
    """Results."""
    print(json.dumps(found) if as_json else "\n".join(f"{name:20} {value}" for name, value in found.items()))


class Flow:
    """Events at a steady rate, from a task of its own; their ids begin with `name`."""

    def __init__(self, stack: Stack, source: list[Row], name: str = "b") -> None:
        kafka = stack.settings.kafka
        self._producer, self._topic = Producer(kafka.confluent() | {"linger.ms": 5}), kafka.prefix + topics.INTERACTIONS
        self._source, self._name, self.sent = source, name, 0

    def send(self, n: int) -> None:
        """The next n of the source."""
        for _ in range(n):
            self.send_row(self._source[self.sent % len(self._source)])
        self._producer.poll(0)

    def send_row(self, row: Row) -> None:
        """One event."""
        event = interaction(row, f"{self._name}{self.sent}")
        while True:
            try:
                self._producer.produce(self._topic, to_bytes(event), key=event.user.encode())
                break
            except BufferError:
                self._producer.poll(0.1)
        self.sent += 1

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        self._producer.flush(30)

    async def run(self, events_s: float) -> None:
        began, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * events_s)
            self.send(due - sent)
            sent = due
            await asyncio.sleep(0.01)


def to_trainer(stack: Stack, number: signal.Signals) -> None:
    """Pause it, or let it go on."""
    if "trainer" in stack.supervisor.running:
        os.killpg(stack.supervisor.running["trainer"].pid, number)


def undisturbed(**rollout: Any) -> Settings:
    """Defaults, but after the first training none is asked for."""
    settings = Settings()
    policy = dataclasses.replace(settings.policy, volume_every=0, schedule_s=0, arl=1e300)
    return settings.model_copy(update={"policy": policy, "rollout": dataclasses.replace(settings.rollout, **rollout)})


@asynccontextmanager
async def released(
    source: list[Row], events: int, folder: Path, deep: bool, say: Say, settings: Settings | None = None
) -> AsyncIterator[tuple[Stack, Flow, list[str]]]:
    """A stack that has learned the first events and, if `deep`, released a model, its trainer paused; the flow that has sent them, and the
    users who came last, in any order.
    """
    stack = Stack(settings or Settings(), folder / "stack", say)
    try:
        await stack.start()
        flow, until = Flow(stack, source), time.monotonic() + 600
        flow.send(events)
        flow.flush()
        users = list(dict.fromkeys(row.user for row in reversed(source[:events])))[:ASKED]
        random.Random(1).shuffle(users)
        one = AsyncClient(stack.settings.triton.url)
        while not (made := await one.recommend(users[0], K)).is_personal or (made.model_version == 0 and deep):
            if time.monotonic() > until:
                raise SystemExit(f"nothing was learned, or no model released, within 600 s; see the logs in {stack.folder}")
            await asyncio.sleep(1)
        await one.close()
        to_trainer(stack, signal.SIGSTOP)
        yield stack, flow, users
    finally:
        to_trainer(stack, signal.SIGCONT)  # so that it can end
        await stack.stop()


async def measure(stack: Stack, flow: Flow, users: list[str], args: argparse.Namespace, say: Say) -> list[dict[str, Any]]:
    url, running = stack.settings.triton.url, stack.supervisor.running
    rows = list[dict[str, Any]]()
    await ask(url, users, 16, 3)  # warm
    for events_s in args.events_s:
        flowing = asyncio.create_task(flow.run(events_s)) if events_s else None
        for clients in args.clients:
            before, began = cpu_s(running["triton"].pid), time.monotonic()
            seen = await ask(url, users, clients, args.seconds)
            spent, took = cpu_s(running["triton"].pid) - before, time.monotonic() - began
            rows.append({"events_s": events_s, "clients": clients, "lists_s": round(seen["lists"] / args.seconds),
                         "cpu_ms": round(spent / max(seen["lists"], 1) * 1000, 2), "deep": args.deep, **seen})  # fmt: skip
            say(f"{rows[-1]}, {took:.0f} s")
        if flowing:
            flowing.cancel()
    return rows


async def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        source = first(args.data, 1_000_000, Path(folder))
        async with released(source, args.events, Path(folder), args.deep, say) as (stack, flow, users):
            return await measure(stack, flow, users, args, say)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--events", type=int, default=20_000, help="learned before anything is asked")
    parser.add_argument("--events-s", type=float, nargs="+", default=[0, 1_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--no-deep", dest="deep", action="store_false", help="do not wait for the deep model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = asyncio.run(run(args))
    print(json.dumps(rows) if args.json else "\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
