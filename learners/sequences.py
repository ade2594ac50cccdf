"""Sequences: what each user chose last, in one flat array, for questions that look at hundreds of users at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 8  # items that a user has room for, doubled as they need it

Numbers = npt.NDArray[np.uint32]


class Sequences:
    """Numbers of items by a user's partition and number; a process that answers has them beside the profiles.

    >>> chosen = Sequences()
    >>> chosen.put(0, 7, 5, np.array([10, 11, 12], np.uint32))
    >>> slots, at, items = chosen.tables(0)
    >>> start, room, size, n = at[:, slots[7]].tolist()
    >>> items[start : start + size].tolist(), n
    ([10, 11, 12], 5)
    """

    def __init__(self, partitions: int = 1) -> None:
        self._slot = [np.zeros(64, np.int32) for _ in range(partitions)]  # by the user's number; for each number ever given
        self._at = np.zeros((4, 64), np.int32)  # by slot: where it starts, items it has room for, items, choices ever; slot 0 is nobody's
        self._slots = 1
        self._items = np.empty(1024, np.uint32)
        self._end = 0
        self._free_slots: list[int] = []
        self._free: dict[int, list[int]] = {}  # by room: where such a piece starts

    def put(self, partition: int, user: int, n: int, items: Numbers) -> None:
        """The user's last choices, oldest first, of `n` ever; replaces what was there."""
        slots = self._slot[partition]
        if user >= len(slots):
            slots = self._slot[partition] = np.concatenate([slots, np.zeros(max(user + 1, len(slots) // 2), np.int32)])
        slot = int(slots[user])
        if not slot:
            slot = slots[user] = self._new_slot()
        start, room, _, _ = self._at[:, slot].tolist()
        size = len(items)
        if size > room:
            if room:
                self._free.setdefault(room, []).append(start)
            room = max(LEAST, 1 << (size - 1).bit_length())
            start = self._new_piece(room)
        self._items[start : start + size] = items
        self._at[:, slot] = start, room, size, n

    def drop(self, partition: int, user: int) -> None:
        """Forget the user."""
        slots = self._slot[partition]
        slot = int(slots[user]) if user < len(slots) else 0
        if slot:
            slots[user] = 0
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
        if self._end + room > len(self._items):
            self._items = np.concatenate([self._items, np.empty(max(room, len(self._items) // 2), np.uint32)])
        self._end += room
        return self._end - room

    def tables(self, partition: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Numbers]:
        """Slots by the users' numbers, 0 for nobody, what `put` wrote by slot, and the items: for loops that look at many users."""
        return self._slot[partition], self._at, self._items
