"""Sequences: what each user chose last, in one flat array, for questions that look at hundreds of users at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 8  # items that a user has room for, doubled as they need it
NOTHING = np.uint32(0xFFFFFFFF)

Numbers = npt.NDArray[np.uint32]


class Sequences:
    """Numbers of items by a user's partition and number; a process that answers has them beside the profiles.

    >>> chosen = Sequences()
    >>> chosen.put(0, 7, 5, np.array([10, 11, 12], np.uint32))
    >>> chosen.last(0, np.array([7]), 2).tolist()
    [11, 12]
    >>> chosen.around(0, np.array([7]), np.array([4]), 1).tolist() == [[11, 12, NOTHING]]
    True
    """

    def __init__(self, partitions: int = 1) -> None:
        self._slot: list[dict[int, int]] = [{} for _ in range(partitions)]  # by the user's number
        self._at = np.zeros((4, 64), np.int32)  # by slot: where it starts, items it has room for, items, choices ever; slot 0 is nobody's
        self._slots = 1
        self._items = np.empty(1024, np.uint32)
        self._end = 0
        self._free_slots: list[int] = []
        self._free: dict[int, list[int]] = {}  # by room: where such a piece starts

    def put(self, partition: int, user: int, n: int, items: Numbers) -> None:
        """The user's last choices, oldest first, of `n` ever; replaces what was there."""
        slot = self._slot[partition].get(user)
        if slot is None:
            slot = self._slot[partition][user] = self._new_slot()
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
        slot = self._slot[partition].pop(user, None)
        if slot is not None:
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

    def _of(self, partition: int, users: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """int32[4, n]: start, room, items and choices ever of each user, zeros where one is not known."""
        find = self._slot[partition].get
        return self._at.take([find(user, 0) for user in users.tolist()], 1)

    def around(self, partition: int, users: npt.NDArray[np.integer], positions: npt.NDArray[np.integer], reach: int) -> Numbers:
        """uint32[n, 2 * reach + 1]: what each user chose around their choice after `positions` others, which is in the middle.

        `NOTHING` where nothing was chosen, or is not remembered.
        """
        start, _, size, n = self._of(partition, users)
        at = positions.astype(np.int32) - n + size
        size[(at < 0) | (at >= size)] = 0
        places = at[:, None] + np.arange(-reach, reach + 1, dtype=np.int32)
        inside = places.view(np.uint32) < size[:, None].astype(np.uint32)  # a negative one is large
        places += start[:, None]
        return np.where(inside, self._items.take(places, mode="clip"), NOTHING)

    def last(self, partition: int, users: npt.NDArray[np.integer], k: int) -> Numbers:
        """uint32[at most n * k]: the last `k` choices of each user, oldest first, one user after the other."""
        start, _, size, _ = self._of(partition, users).astype(np.int64)
        taken = np.minimum(size, k)
        before = np.cumsum(taken) - taken
        return self._items.take(np.repeat(start + size - taken - before, taken) + np.arange(taken.sum()))
