"""The worker process: ingest, the fold of the partitions it holds, the monitor. Start as many as there are partitions."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from feedback.policy import Policy
from streams.kafka import Kafka
from streams.reader import Follower, Ingester
from streams.topology import topology

log = logging.getLogger("headrace.worker")


def run(kafka: Kafka, triton: str, name: str, policy: Policy, ready: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. `ready` is there while every partition that the groups gave us is open."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("aiokafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.ERROR)  # it warns of every rebalance
    asyncio.run(_serve(kafka, triton, name, policy, ready))


async def _serve(kafka: Kafka, triton: str, name: str, policy: Policy, ready: Path | None) -> None:
    app, readers = topology(kafka, triton, name, policy)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app.flow_control.resume()  # without a Faust consumer nobody else does, and the first `put` would wait for ever
    await app.start()
    log.info("started %s", name)
    waiting = asyncio.create_task(_announce(readers, ready))
    await stop.wait()
    waiting.cancel()
    await app.stop()
    log.info("stopped")


async def _announce(readers: list[Ingester | Follower], ready: Path | None) -> None:
    """`ready` is there, and touched every second, while every partition of ours is open; a probe may look at its age."""
    told = False
    while True:
        now = all(reader.is_ready for reader in readers)
        if now != told:
            log.info("ready" if now else "not ready")
            told = now
        if ready is not None and now:
            ready.touch()
        elif ready is not None:
            ready.unlink(missing_ok=True)
        await asyncio.sleep(1.0 if now else 0.05)
