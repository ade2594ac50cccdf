"""The watchdog: ends a worker that has work and does none, with the reason; its supervisor starts it again.

A broker that does not answer is the broker's trouble, not ours: the time it is away does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import faust

from streams.consumer import SESSION_S
from streams.reader import AWAY, stop_now

PATIENCE_S = 2 * SESSION_S
EVERY_S = 2.0


class Watched(Protocol):
    """A reader: its consumer, and the partitions it holds."""

    consumer: Any

    def work(self) -> dict[Any, int]:
        """Partition -> other work done for it so far than reading it, such as records restored."""
        ...


@dataclass
class Patience:
    """For how long each partition has had work and done none. Pure: times (s) are arguments.

    Between two looks at most `2 * EVERY_S` count: a process that was paused has not been idle.
    """

    waited: dict[Any, float] = field(default_factory=dict)
    reached: dict[Any, tuple[int, int]] = field(default_factory=dict)
    looked: float = 0.0

    def lost(self, now: float, progress: dict[Any, tuple[int, int]], ends: dict[Any, int]) -> str | None:
        """The reason to give up, or None. `progress`: (next offset to read, other work done); `ends`: the log's next offsets."""
        passed, self.looked = min(now - self.looked, 2 * EVERY_S), now
        for place in self.waited.keys() - progress.keys():
            del self.waited[place], self.reached[place]
        for place, (position, done) in progress.items():
            before = self.reached.get(place, (-1, -1))
            self.reached[place] = max(position, before[0]), max(done, before[1])
            if position >= ends.get(place, 0) or self.reached[place] != before:
                self.waited[place] = 0.0
                continue
            self.waited[place] += passed
            if self.waited[place] > PATIENCE_S:
                return f"{place} stands at {position} of {ends[place]} for {self.waited[place]:.0f} s though the broker answers"
        return None

    def forgive(self) -> None:
        """The broker has not answered: what was not done until now does not count."""
        self.waited = dict.fromkeys(self.waited, 0.0)


class Watchdog(faust.Service):  # type: ignore[misc] # faust carries no types
    """Looks after the readers of one worker."""

    def __init__(self, readers: Sequence[Watched], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._readers = readers

    @faust.Service.task  # type: ignore[untyped-decorator] # faust carries no types
    async def _watch(self) -> None:
        patiences = [Patience() for _ in self._readers]
        while not self.should_stop:
            await asyncio.sleep(EVERY_S)
            for reader, patience in zip(self._readers, patiences, strict=True):
                work = reader.work()
                try:
                    ends = await asyncio.wait_for(reader.consumer.end_offsets(list(work)), EVERY_S) if work else {}
                    progress = {place: (await reader.consumer.position(place), done) for place, done in work.items()}
                except AWAY:  # or the partition has just been taken away
                    patience.forgive()
                    continue
                reason = patience.lost(time.monotonic(), progress, ends)
                if reason is not None:
                    stop_now(self.log, reason)
