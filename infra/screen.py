"""The terminal: live figures above the story's lines; plain lines where the output is no terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.watch import Picture, recent

LINES = 14
PLAIN_S = 5.0


class Screen:
    """`say` adds a line; `show` keeps figures on the screen until it is cancelled. `quiet_stdout`: lines go to stderr."""

    def __init__(self, quiet_stdout: bool = False) -> None:
        self.console = Console(stderr=quiet_stdout, highlight=False)
        self.lines: deque[str] = deque(maxlen=LINES)
        self.began = time.time()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        line = f"{time.time() - self.began:6.1f} s  {text}"
        self.lines.append(line)
        if self._live is None:
            print(line, file=sys.stderr if self.console.stderr else sys.stdout, flush=True)

    async def show(self, story: Any) -> None:
        """Figures of a `demo.Story`, twice a second."""
        rate = Rate()
        if not self.console.is_terminal:
            while True:
                await asyncio.sleep(PLAIN_S)
                self.say(" · ".join(f"{name} {value}" for name, value in figures(story, rate)))
        self.lines.clear()  # those before stand above
        with Live(console=self.console, refresh_per_second=2, transient=False) as self._live:
            try:
                while True:
                    self._live.update(self._page(figures(story, rate)))
                    await asyncio.sleep(0.5)
            finally:
                self._live = None

    def _page(self, values: list[tuple[str, str]]) -> Group:
        table = Table.grid(padding=(0, 2))
        half = -(-len(values) // 2)
        for left, right in zip(values[:half], [*values[half:], ("", "")][:half], strict=True):
            table.add_row(Text(left[0], style="dim"), left[1], Text(right[0], style="dim"), right[1])
        story = "\n".join(self.lines)
        return Group(Panel(table, title="Headrace", title_align="left"), Text(story, overflow="fold"))


class Rate:
    """Events a second, from a count that rises."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, int]] = deque(maxlen=12)

    def of(self, count: int) -> float:
        self.seen.append((time.monotonic(), count))
        (t0, n0), (t1, n1) = self.seen[0], self.seen[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


def figures(story: Any, rate: Rate) -> list[tuple[str, str]]:
    """(name, value) of everything worth watching."""
    picture: Picture = story.picture
    tally = story.replay.tally
    hit, popular, asks = tally.hit_rates(time.time() - 30)
    folded = picture.total("interactions")
    fresh = sorted((story.freshness.quiet + story.freshness.training)[-50:])
    releases = picture.releases
    deep = recent(picture, "deep", releases.live)
    values = [
        ("events/s", f"{rate.of(tally.sent):.0f}"),
        ("events sent / learned", f"{tally.sent + story.sent} / {folded}"),
        ("lists that held the next choice", f"{hit:.1%} of {asks} in 30 s" if asks else "…"),
        ("… popular items would have", f"{popular:.1%}" if asks else "…"),
        (
            "event to list, p50 / p95 / max",
            " / ".join(f"{fresh[int(q * (len(fresh) - 1))]:.0f}" for q in (0.5, 0.95, 1)) + " ms" if fresh else "…",
        ),
        ("live model", f"version {releases.live}" if releases.live else "none yet"),
        ("… its whole list holds it", f"{deep.recall:.0%}" if deep.blocks else "…"),
        ("canary", f"version {releases.canary} for {releases.share:.0%} of users" if releases.canary else "–"),
        ("fine-tune", _training(story)),
        ("drift alerts", str(sum(a.status == "drift" for a in picture.alerts))),
        ("next", story.next),
    ]
    if tally.failed:
        values.append(("failed asks", str(tally.failed)))
    return values


def _training(story: Any) -> str:
    if not story.is_training:
        return "–"
    if story.picture.training is None:
        return "starting"
    version, step, steps = story.picture.training
    return f"version {version}: {step / steps:.0%}" if story.picture.releases.stages.get(version) == "requested" else "starting"
