"""Ranks of an answer's candidates by source, as bytes: most sources do not name most of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from learners.compiled import compiled

ABSENT = 255  # the rank of an item that a source did not name


def packed(ranks: npt.NDArray[np.uint8]) -> bytes:
    """Of uint8[n, sources], row-major: a byte, how many sources; a bit each, 1 where there is a rank; those ranks, a byte each."""
    data: bytes = _packed(ranks).tobytes()
    return data


@compiled
def _packed(ranks: Any) -> Any:
    flat = ranks.ravel()
    out, end = np.zeros(1 + (len(flat) + 7) // 8 + len(flat), np.uint8), 1 + (len(flat) + 7) // 8
    out[0] = ranks.shape[1]
    for place in range(len(flat)):
        if flat[place] != ABSENT:
            out[1 + place // 8] |= 128 >> place % 8
            out[end] = flat[place]
            end += 1
    return out[:end]


def unpacked(data: bytes, n: int) -> npt.NDArray[np.uint8]:
    """uint8[n, sources] of what `packed` gave; ValueError where it is not of n candidates, which is sure from 8 sources on.

    >>> ranks = np.array([[0, 255], [255, 255], [1, 0]], np.uint8)
    >>> len(packed(ranks)), unpacked(packed(ranks), 3).tolist() == ranks.tolist()
    (5, True)
    """
    if not data or not data[0]:
        raise ValueError("no ranks")
    sources, bits = data[0], np.frombuffer(data, np.uint8, offset=1)
    head = -(-n * sources // 8)
    named = np.unpackbits(bits[:head], count=n * sources).astype(np.bool_)
    if len(bits) - head != np.count_nonzero(named):
        raise ValueError(f"ranks: not {n} rows of {sources}")
    out = np.full(n * sources, ABSENT, np.uint8)
    out[named] = bits[head:]
    return out.reshape(n, sources)
