"""Signals: prequential quality as block means. A block is one user's session, so that correlated asks count once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feedback.attribution import Block

FULL = 10  # judged asks that fill a block
IDLE_MS = 60_000  # a block nothing was added to for so long is closed


def add(
    block: Block | None,
    version: int,
    hits: npt.NDArray[np.bool_],
    ndcgs: npt.NDArray[np.float64],
    recalls: npt.NDArray[np.bool_],
    now_ms: int,
) -> tuple[Block | None, list[Block]]:
    """Add one judged ask; returns (the block still open, the blocks that this closed)."""
    closed = []
    if block is not None and block.version != version:
        closed.append(block)
        block = None
    if block is None:
        block = Block(version, 0, [0] * len(hits), [0.0] * len(ndcgs), [0] * len(recalls), now_ms)
    block.n += 1
    block.hits = [h + int(x) for h, x in zip(block.hits, hits, strict=True)]
    block.ndcgs = [s + float(x) for s, x in zip(block.ndcgs, ndcgs, strict=True)]
    block.recalls = [r + int(x) for r, x in zip(block.recalls, recalls, strict=True)]
    block.touched = now_ms
    if block.n >= FULL:
        closed.append(block)
        block = None
    return block, closed
