"""The prober: where nobody asks, it asks for a few users a second, so that the quality of the lists stays known.

Its asks are marked in the impression log and nobody sees their lists; the users' next choices judge them like all.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from serving.client import AsyncClient
from streams.fold import Fold
from streams.reader import Follower

SILENCE_S = 5.0  # without an impression from anybody else, while interactions come
ASKS_S = 4.0


class Prober(faust.Service):  # type: ignore[misc] # faust carries no types
    """Watches the folds of one worker; asks Triton for the users they heard of last."""

    def __init__(self, url: str, follower: Follower, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._url, self._follower = url, follower
        self.asked = 0

    @faust.Service.task  # type: ignore[untyped-decorator] # faust carries no types
    async def _probe(self) -> None:
        client = AsyncClient(self._url, timeout_s=2.0)
        loop, others, since = asyncio.get_running_loop(), 0, 0.0
        try:
            while not self.should_stop:
                await asyncio.sleep(1 / ASKS_S)
                folds = [part.machine for part in self._follower.parts.values() if isinstance(part.machine, Fold)]
                heard = sum(f.standing.counts.get("impressions", 0) - f.standing.counts.get("probes", 0) for f in folds)
                if heard != others:
                    others, since = heard, loop.time()
                user = next((f.newest.pop() for f in folds if f.newest), None)
                if user is None or loop.time() - since < SILENCE_S:
                    continue
                try:
                    await client.recommend(user, probe=True)
                    self.asked += 1
                except Exception as error:  # no server, or none yet: there is nothing to judge then
                    self.log.info("probe: %s", str(error)[:120])
                    await asyncio.sleep(5)
        finally:
            await client.close()
