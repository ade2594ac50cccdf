"""Drift: has the quality of a signal fallen, beyond doubt and beyond what is worth a retraining?

A mixture of e-processes (Shiryaev-Roberts) on the loss, 1 - quality, of session blocks. After a warm-up it knows the
usual loss; from then on each block multiplies the bets that the loss is higher than that plus a margin. Shin, Ramdas,
Rinaldo: E-detectors, 2023: the mean number of blocks until a false alarm is at least `arl`.
"""

from __future__ import annotations

import math

import msgspec
from river import base

BETS = (0.05, 0.1, 0.2, 0.4, 0.8)  # in units of 1 / standard deviation
WARNING = 10.0  # an e-value this much smaller than drift's is a warning: ten times as many false ones
RECENT = 0.05  # weight of the newest block in `now`


class DriftState(msgspec.Struct):
    """All that a detector knows; `starts[k]` is the mark at which bet k last had nothing to show."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    now: float = 0.0
    products: list[float] = []
    sums: list[float] = []
    starts: list[dict[str, int]] = []
    status: str = "quiet"
    calm: int = 0


class MixtureESR(base.DriftDetector):  # type: ignore[misc] # river carries no types
    """River-style detector of a fall in a quality in [0, 1].

    `warm_up` blocks to learn the usual quality from; a fall smaller than the share `margin` of it is not drift;
    `arl`: least mean number of blocks to a false alarm.

    >>> detector = MixtureESR(warm_up=50, margin=.1, arl=1e4)
    >>> for _ in range(400): detector.update(.30)
    >>> detector.drift_detected
    False
    >>> for block in range(50):
    ...     detector.update(.10 if block % 2 else .12)
    ...     if detector.drift_detected: break
    >>> detector.drift_detected
    True
    """

    def __init__(self, warm_up: int = 150, margin: float = 0.2, arl: float = 1e4, state: DriftState | None = None) -> None:
        super().__init__()
        self.warm_up, self.margin, self.arl = warm_up, margin, arl
        self.state = state or DriftState(products=[0.0] * len(BETS), sums=[0.0] * len(BETS), starts=[{} for _ in BETS])

    def update(self, x: float, mark: dict[str, int] | None = None) -> None:
        """Take the quality `x` of one block; `mark` says where in the log it lies (for `change_point`)."""
        s = self.state
        self._drift_detected = False
        s.n += 1
        if s.n <= self.warm_up:
            change = x - s.mean
            s.mean += change / s.n
            s.squares += change * (x - s.mean)
            s.now = s.mean
            return
        s.now += RECENT * (x - s.now)
        spread = max(math.sqrt(s.squares / self.warm_up), 1e-3)
        usual = min(1.0 - s.mean * (1.0 - self.margin) + spread / math.sqrt(self.warm_up), 1.0)
        if usual >= 1.0:
            return  # the usual quality is nothing: it cannot fall
        excess = (1.0 - x) - usual
        for k, bet in enumerate(BETS):
            factor = 1.0 + min(bet / spread, 0.95 / usual) * excess
            s.products[k] = min((s.products[k] + 1.0) * factor, 1e300)
            if s.sums[k] == 0.0:
                s.starts[k] = mark or {}
            s.sums[k] = max(s.sums[k] + math.log(factor), 0.0)
        self._drift_detected = self.evidence >= math.log(self.arl)

    @property
    def armed(self) -> bool:
        """Has it seen enough to speak?"""
        return self.state.n >= self.warm_up

    @property
    def evidence(self) -> float:
        """ln of the mixture e-value, 0 where there is none; drift at ln(arl)."""
        return math.log(max(sum(self.state.products) / len(BETS), 1.0))

    @property
    def effect(self) -> float:
        """The faded mean of the last blocks minus the usual quality."""
        return self.state.now - self.state.mean

    @property
    def change_point(self) -> dict[str, int]:
        """The mark at which the change most likely began: where the strongest bet last had nothing to show."""
        return self.state.starts[max(range(len(BETS)), key=lambda k: self.state.products[k])]

    def transition(self) -> str | None:
        """The new status (warning, drift, cleared) where the last update changed it, else None."""
        s, before = self.state, self.state.status
        limit = math.log(self.arl)
        if before in ("quiet", "warning") and self.evidence >= limit:
            s.status, s.calm = "drift", 0
        elif before == "quiet" and self.armed and self.evidence >= limit - math.log(WARNING):
            s.status = "warning"
        elif before in ("drift", "warning") and self.armed:
            s.calm = s.calm + 1 if s.now >= s.mean * (1.0 - self.margin / 2) else 0
            if s.calm >= 20:  # hysteresis
                self.state.products, self.state.sums, s.calm = [0.0] * len(BETS), [0.0] * len(BETS), 0
                s.status = "quiet"
        if s.status == before:
            return None
        return "cleared" if s.status == "quiet" else s.status
