"""How far a long run is, on stderr, in one line that is written over and over."""

from __future__ import annotations

import sys
import time


class Progress:
    """Call it with what is done of how much; what was done before the first call (a run that goes on) says nothing about speed."""

    def __init__(self, unit: str) -> None:
        self._unit, self._began, self._first = unit, time.monotonic(), -1

    def __call__(self, done: int, all: int, now: str = "") -> None:
        if self._first < 0:
            self._first, self._began = done, time.monotonic()
        took = time.monotonic() - self._began
        left = f", {took * (all - done) / (done - self._first):.0f} s left" if done > self._first else ""
        print(f"\r{done} of {all} {self._unit}{left}   {now:50}", end="", file=sys.stderr, flush=True)
