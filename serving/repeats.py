"""Does this stream bring items back? Decided from the stream itself: nobody has to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 750  # events of known users before anything is decided
RARE = 0.005  # hide what a user has had once the share of repeats is below this, with 95 % confidence
BACK = 0.01  # and show it again once the recent share is above this
FADE = 0.998


@dataclass
class Repeats:
    """Of the events of known users: `n` all, `repeated` of an item the user had had, `recent` a faded share."""

    n: int = 0
    repeated: int = 0
    recent: float = 0.0

    def learn(self, repeat: bool) -> None:
        """Count one event of a known user."""
        self.n += 1
        self.repeated += repeat
        self.recent = self.recent * FADE + repeat * (1 - FADE)


def never_happen(partitions: Sequence[Repeats]) -> bool:
    """True once the stream of all `partitions` has shown that users do not come back to an item.

    The bound is the rule of succession's upper 95 % (Wilson); with no repeat at all, 750 events give 0.5 %.
    """
    n = sum(p.n for p in partitions)
    repeated = sum(p.repeated for p in partitions)
    if n < ENOUGH or sum(p.recent * p.n for p in partitions) >= BACK * n:
        return False
    share, z = repeated / n, 1.96
    upper = (share + z * z / (2 * n) + z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5) / (1 + z * z / n)
    return bool(upper < RARE + 1e-3)
