"""A member of one of our consumer groups, and how long its fetches wait."""

from __future__ import annotations

import time
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from streams.kafka import Kafka
from streams.partition import MAX_BATCH

SESSION_S = 6
PACED_BYTES = 1 << 16  # for which a fetch does not wait longer
QUIET_S = 2.0  # without a record, after which a fetch waits for the first one
# And for how long: a partition that is read again meanwhile waits for those that are not, as one fetch is under way at a time.
QUIET_MS = 100


class Paced(AIOKafkaConsumer):  # type: ignore[misc] # aiokafka carries no types
    """A fetch waits `pace_ms` for more while records come; for the first one where none do, so that who is idle asks ten times a second
    instead of a hundred. aiokafka has no setting for that, but reads its own at each fetch.

    Offsets are the caller's: it seeks, and a log that retention has cut under it raises instead of skipping.
    """

    def __init__(self, kafka: Kafka, group: str, name: str, pace_ms: int) -> None:
        super().__init__(
            **kafka.aiokafka(),
            group_id=kafka.prefix + group,
            client_id=name,  # assignors sort by it: a restarted worker gets the same partitions back
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            session_timeout_ms=SESSION_S * 1000,
            heartbeat_interval_ms=1500,
            rebalance_timeout_ms=20_000,
            fetch_max_wait_ms=pace_ms,
            fetch_min_bytes=PACED_BYTES,
            max_partition_fetch_bytes=MAX_BATCH,
            partition_assignment_strategy=[StickyPartitionAssignor],
        )
        self._pace_ms, self._heard = pace_ms, time.monotonic()

    async def getmany(self, *partitions: TopicPartition, **how: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
        """As aiokafka's."""
        found: dict[TopicPartition, list[ConsumerRecord]] = await super().getmany(*partitions, **how)
        now = time.monotonic()
        self._heard = now if found else self._heard
        quiet = now - self._heard > QUIET_S
        self._fetcher._fetch_max_wait_ms, self._fetcher._fetch_min_bytes = (QUIET_MS, 1) if quiet else (self._pace_ms, PACED_BYTES)
        return found
