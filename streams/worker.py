"""The worker process: ingest, the fold of the partitions it holds, the monitor. Start as many as there are partitions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import GroupCoordinatorNotAvailableError, TopicAuthorizationFailedError

from feedback.policy import Policy
from learners.online import Memory
from streams import topics
from streams.fold import Fold
from streams.kafka import Kafka
from streams.reader import AWAY, NEVER, Follower, Ingester, remedy, stop_now
from streams.topology import App, topology

log = logging.getLogger("headrace.worker")
STOP_S = 15  # to commit what is in flight and leave the groups


def run(kafka: Kafka, triton: str, name: str, policy: Policy, memory: Memory, ready: Path | None = None, fold: type[Fold] = Fold) -> None:
    """Run until SIGTERM or SIGINT. `ready` is there while every partition that the groups gave us is open. `fold`: as `topology` has it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("aiokafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.ERROR)  # it warns of every rebalance
    asyncio.run(_serve(kafka, ready, lambda: topology(kafka, triton, name, policy, memory, fold)))


async def _serve(kafka: Kafka, ready: Path | None, made: Callable[[], tuple[App, list[Any]]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asked = asyncio.create_task(stop.wait())
    running = asyncio.create_task(_run(kafka, ready, made, asked))
    await asyncio.wait({asked, running}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({running}, timeout=STOP_S)
    log.info("stopped")
    logging.shutdown()
    os._exit(0)  # what is committed is committed; a client of a broker that is away may take for ever to close


async def _run(kafka: Kafka, ready: Path | None, made: Callable[[], tuple[App, list[Any]]], asked: asyncio.Task[Any]) -> None:
    client = await _reached(kafka, asked)
    if client is None:
        return
    try:
        await _fits(kafka, client)
    except (*NEVER, topics.WrongTopic) as error:
        stop_now(log, remedy(error))
    except AWAY as error:  # it went away again
        stop_now(log, f"cannot start: {error!r}")
    finally:
        await client.close()
    app, readers = made()
    app.flow_control.resume()  # without a Faust consumer nobody else does, and the first `put` would wait for ever
    try:
        await app.start()
    except Exception as error:
        stop_now(log, f"cannot start: {error!r}")
    log.info("started")
    waiting = asyncio.create_task(_announce(readers, ready))
    await asked
    waiting.cancel()
    await app.stop()


async def _reached(kafka: Kafka, asked: asyncio.Task[Any]) -> AIOKafkaClient | None:
    """A client, once Kafka answers; None where we were asked to stop before it did."""
    told = False
    while not asked.done():
        client = AIOKafkaClient(**kafka.aiokafka())
        try:
            await client.bootstrap()
            return client
        except AWAY as error:
            await client.close()
            if not told:
                log.warning("waiting for Kafka at %s: %r", kafka.bootstrap, error)
            told = True
            await asyncio.wait({asked}, timeout=1)
    return None


async def _fits(kafka: Kafka, client: AIOKafkaClient) -> None:
    """Raise where topics are missing, have another partition count, or are not ours to use: a consumer would only log it, and wait."""
    listed = topics.topics(kafka)
    await client.set_topics([kafka.prefix + topic.name for topic in listed])
    counts = {t.name: client.cluster.partitions_for_topic(kafka.prefix + t.name) for t in listed}
    refused = sorted(client.cluster.unauthorized_topics)
    if refused:
        raise TopicAuthorizationFailedError(*refused)
    missing = [name for name, partitions in counts.items() if not partitions]
    if missing:
        raise topics.WrongTopic(f"there is no topic {', '.join(kafka.prefix + name for name in missing)}: run `headrace topics --create`")
    topics.check(kafka, {name: len(partitions) for name, partitions in counts.items() if partitions})
    for group in ("ingest", "fold", "monitor"):
        with contextlib.suppress(GroupCoordinatorNotAvailableError):  # a new broker makes the topic of its groups just now
            await client.coordinator_lookup(CoordinationType.GROUP, kafka.prefix + group)


async def _announce(readers: list[Ingester | Follower], ready: Path | None) -> None:
    """`ready` is there, and touched every second, while every partition of ours is open; a probe may look at its age."""
    told = False
    while True:
        now = all(reader.is_ready for reader in readers)
        if now != told:
            log.info("ready" if now else "not ready")
            told = now
            if now:
                gc.collect()
                gc.freeze()  # what was imported and restored stays: to look through it all again stops the fold for 100 ms
        if ready is not None and now:
            ready.touch()
        elif ready is not None:
            ready.unlink(missing_ok=True)
        await asyncio.sleep(1.0 if now else 0.05)
