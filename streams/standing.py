"""Where one partition's state stands: the record that is committed with every batch."""

from __future__ import annotations

import msgspec

from serving.features import SOURCES

POSITION = b"position"
FORMAT = 11  # of all records on the state topic


class Incompatible(Exception):
    """The state on the topic was written by another format or other settings."""


def incompatible(found: str, shape: str) -> Incompatible:
    """What to do about a state that was written with `found`, and that a fold of that shape cannot continue."""
    return Incompatible(
        f"the online state was written with {found}, this worker has {FORMAT} and {shape}; delete the topic online-state.v1 and run "
        "`headrace topics --create`: the workers then rebuild it from the timeline"
    )


class Standing(msgspec.Struct, kw_only=True):
    """Position and totals of one partition. A new name needs a default; anything else a new `FORMAT`.

    `next`: first timeline offset not folded. `as_of`: time (Unix ms) up to which the input had been read. `clock`: interactions
    counted. `items`, `users`: numbers given. `watermark`: newest event time, Unix s. `fences`: "input/partition" -> highest
    offset applied. `ids`: event ids that ever entered the window. `second`: broker second of the last metrics; `closed` blocks
    since, (version, asks, hits, ndcgs, recalls), the last three per source and as shown; `answers` judged since, (assigned version,
    `feedback.harm.Judged`).
    """

    format: int = FORMAT
    shape: str = ""
    next: int = 0
    as_of: int = 0
    clock: int = 0
    items: int = 0
    users: int = 0
    watermark: float = 0.0
    fences: dict[str, int] = {}
    ids: int = 0
    counts: dict[str, int] = {}
    repeats: tuple[int, int, float] = (0, 0, 0.0)
    guard: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(SOURCES))
    judged: float = 0.0
    second: int = 0
    closed: list[tuple[int, int, list[float], list[float], list[float]]] = []
    answers: list[tuple[int, tuple[int, float, float, int]]] = []

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def load(value: bytes) -> Standing:
        return msgspec.msgpack.decode(value, type=Standing)

    def check(self, shape: str) -> None:
        """Raise `Incompatible` where this state cannot be continued by a fold of that shape."""
        if self.format != FORMAT or self.shape != shape:
            raise incompatible(f"format {self.format} and settings {self.shape}", shape)
