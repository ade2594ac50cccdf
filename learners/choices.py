"""A choice in a user's record: the item's number, and how long after the choice before it was made; four bytes.

The gap is kept as a power of two: what is asked of it is whether a session went on, and about how long a pause was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MARK = 4  # bytes, little endian
BITS = 27  # of the item's number: 134 million new items a partition; those above are the gap's
NUMBER = (1 << BITS) - 1
SESSION = 12  # gaps from here on, of 2,048 s and more, end a session
LONGEST = 31


def gap(seconds: float) -> int:
    """0 for no time at all, then one more for each doubling: 1 s is 1, 2,047 s are 11, 2,048 s are 12."""
    return min(int(max(seconds, 0.0)).bit_length(), LONGEST)


def gaps(seconds: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """`gap` of each."""
    return np.asarray(np.minimum(np.frexp(np.floor(np.maximum(seconds, 0.0)))[1], LONGEST), np.int64)


def packed(number: int, gap: int) -> bytes:
    """The choice of the item of that number. Raises OverflowError where there are too many items."""
    if number > NUMBER:
        raise OverflowError(f"item number {number} of a partition; there may be {NUMBER + 1:,}: give it more partitions")
    return (number | gap << BITS).to_bytes(MARK, "little")


def found(record: bytes | bytearray, number: int, start: int, end: int) -> int:
    """Where an item stands among the choices at `start` to `end` of a record, whatever its gap; -1 where it does not."""
    low, high = (number & 0xFFFFFF).to_bytes(3, "little"), number >> 24
    place = record.find(low, start, end)
    while place >= 0 and ((place - start) % MARK or record[place + 3] & 7 != high):
        place = record.find(low, place + 1, end)
    return place
