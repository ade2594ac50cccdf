"""Reading a compacted partition, as committed, from an offset to its end: how a state comes back.

By librdkafka: it fetches and decodes beside Python, and a message costs half of what one of aiokafka's does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaConnectionError, for_code
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka import Kafka

AT_ONCE = 1_000  # messages; other tasks wait for so many
PATIENCE_S = 1.0
# The queue bounds the memory; when it is full librdkafka looks again after `fetch.queue.backoff.ms` (by default 1 s: half the speed).
SETTINGS: dict[str, Any] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "check.crcs": True,
    "queued.max.messages.kbytes": 4 << 10,
    "fetch.message.max.bytes": 1 << 20,
    "fetch.queue.backoff.ms": 2,
    "fetch.wait.max.ms": 10,
}


async def read(kafka: Kafka, place: tuple[str, int, int], turn: asyncio.Lock, take: Callable[[list[Message]], None]) -> tuple[int, int]:
    """Hand what (topic, partition) holds from an offset on (or from the first that is there) to `take`.

    Returns where it ends, and where the log does: further, where a transaction is open or hangs.

    One reader has the `turn`, so that the first of several states is back after its share of the time; one that is given
    nothing for a second passes it on. Raises aiokafka's errors, as the other clients of a worker do; a topic that is not there,
    or a broker, is waited for.
    """
    reader = Consumer(kafka.confluent() | SETTINGS | {"group.id": f"{kafka.prefix}fold"})  # librdkafka wants one; it is not joined
    clock = asyncio.get_running_loop().time
    try:
        reader.assign([TopicPartition(*place)])
        end = -1
        while end < 0:
            async with turn:
                given = clock()
                while end < 0 and clock() < given + PATIENCE_S:
                    messages = reader.consume(AT_ONCE, 0)
                    good = [message for message in messages if message.error() is None]
                    if good:
                        take(good)
                        given = clock()
                    for message in messages if len(good) < len(messages) else ():
                        error = message.error()
                        if error is None:
                            end = -1  # it ended before, where a transaction was being ended that we are given now
                        elif error.code() == KafkaError._PARTITION_EOF:
                            end = message.offset() or 0
                        else:
                            _refuse(error)
                    await asyncio.sleep(0 if good else 0.002)
        return end, reader.get_watermark_offsets(TopicPartition(*place[:2]), cached=True)[1]
    except KafkaException as error:
        _refuse(error.args[0])
        raise KafkaConnectionError(str(error)) from error
    finally:
        reader.close()


def _refuse(error: KafkaError) -> None:
    """Raise aiokafka's error of the same number, unless librdkafka will get over it."""
    if error.code() > 0 and not error.retriable():
        raise for_code(error.code())(error.str())
    if error.fatal():
        raise KafkaConnectionError(error.str())
