"""Sequences of numbers in one flat array, for loops that look at hundreds of them at once: what each user chose, who chose each item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 8  # numbers that one has room for, doubled as it needs it

Numbers = npt.NDArray[np.uint32]


class Sequences:
    """A sequence of numbers for each partition and key, a small number; processes that answer have them.

    >>> chosen = Sequences()
    >>> chosen.put(0, 7, 5, np.array([10, 11, 12], np.uint32))
    >>> slots, at, numbers = chosen.tables()
    >>> start, room, size, n = at[:, slots[0, 7]].tolist()
    >>> numbers[start : start + size].tolist(), n, chosen.get(0, 7).tolist()
    ([10, 11, 12], 5, [10, 11, 12])
    """

    def __init__(self, partitions: int = 1) -> None:
        self._slot = np.zeros((partitions, 64), np.int32)  # by key; for each key that ever was
        self._at = np.zeros((4, 64), np.int32)  # by slot: where it starts, room, size, `n`; slot 0 is nobody's
        self._slots = 1
        self._numbers = np.empty(1024, np.uint32)
        self._end = 0
        self._free_slots: list[int] = []
        self._free: dict[int, list[int]] = {}  # by room: where such a piece starts

    def put(self, partition: int, key: int, n: int, numbers: Numbers) -> None:
        """The key's sequence, and `n` with it; replaces what was there."""
        more = key + 1 - self._slot.shape[1]
        if more > 0:
            room = max(more, self._slot.shape[1] // 2)
            self._slot = np.concatenate([self._slot, np.zeros((len(self._slot), room), np.int32)], 1)
        slot = int(self._slot[partition, key])
        if not slot:
            slot = self._slot[partition, key] = self._new_slot()
        start, room, _, _ = self._at[:, slot].tolist()
        size = len(numbers)
        if size > room:
            if room:
                self._free.setdefault(room, []).append(start)
            room = max(LEAST, 1 << (size - 1).bit_length())
            start = self._new_piece(room)
        self._numbers[start : start + size] = numbers
        self._at[:, slot] = start, room, size, n

    def get(self, partition: int, key: int) -> Numbers:
        """The key's sequence, empty where there is none."""
        slot = self._slot[partition, key] if key < self._slot.shape[1] else 0
        start, _, size, _ = self._at[:, slot].tolist()
        return self._numbers[start : start + size]

    def drop(self, partition: int, key: int) -> None:
        """Forget the key's sequence."""
        slot = int(self._slot[partition, key]) if key < self._slot.shape[1] else 0
        if slot:
            self._slot[partition, key] = 0
            start, room, _, _ = self._at[:, slot].tolist()
            self._free.setdefault(room, []).append(start)
            self._at[:, slot] = 0
            self._free_slots.append(slot)

    def _new_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        if self._slots == self._at.shape[1]:
            self._at = np.concatenate([self._at, np.zeros_like(self._at)], 1)
        self._slots += 1
        return self._slots - 1

    def _new_piece(self, room: int) -> int:
        free = self._free.get(room)
        if free:
            return free.pop()
        if self._end + room > len(self._numbers):
            self._numbers = np.concatenate([self._numbers, np.empty(max(room, len(self._numbers) // 2), np.uint32)])
        self._end += room
        return self._end - room

    def tables(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Numbers]:
        """Slots by partition and key, 0 for nobody, what `put` wrote by slot, and the numbers: for loops that look at many of them."""
        return self._slot, self._at, self._numbers
