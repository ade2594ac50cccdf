"""Items as numbers: records name items by small numbers instead of by their ids, which may be long.

Each partition numbers its items in the order in which they first came, and never gives a number twice: what still names
an item that was evicted then names nobody. A process keeps all partitions' items in rows of its own tables.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import repeat
from sys import intern
from zlib import crc32

import numpy as np
import numpy.typing as npt


class Items:
    """Names, rows, and the numbers of `partitions` partitions; the first is the one that learns.

    >>> items = Items()
    >>> items.learn("tea"), items.learn("cup"), items.learn("tea")
    (0, 1, 0)
    >>> [items.names[row] for row in items.rows(0, np.array([1], np.uint32))]
    ['cup']
    """

    def __init__(self, partitions: int = 1) -> None:
        self.row: dict[str, int] = {}
        self.names: list[str] = []  # by row; "" where there is none any more
        self.number = array("I")  # by row: in the first partition
        self.next = 0  # the first partition's next new number
        self.table = np.full((partitions, 64), -1, np.int32)  # by partition and number: row, -1 where there is none, as in the last place
        self.changes = 0  # of what stands in a row
        self._free: list[int] = []
        self._ties = np.zeros(64, np.int64)  # by row: the name's hash
        self._alive = np.zeros(64, np.bool_)  # by row: has it a name?
        self._since = np.zeros(64, np.int64)  # by row: which change gave it what it has

    def learn(self, name: str) -> int:
        """The item's row; a new item gets the first partition's next number."""
        row = self.row.get(name)
        if row is None:
            row = self.place(0, self.next, name)
            self.next += 1
        return row

    def place(self, partition: int, number: int, name: str) -> int:
        """The row of an item that has that number in that partition."""
        row = self.row.get(name)
        if row is None:
            name = intern(name)  # other partitions have the same items
            if self._free:
                row = self._free.pop()
                self.names[row] = name
            else:
                row = len(self.names)
                self.names.append(name)
                self.number.append(0)
                if row >= len(self._ties):
                    self._ties, self._alive, self._since = (
                        np.concatenate([a, np.zeros(len(a) // 2, a.dtype)]) for a in (self._ties, self._alive, self._since)
                    )
            self.row[name] = row
            self._ties[row], self._alive[row] = crc32(name.encode()), True
            self._changed(row)
        more = number + 2 - self.table.shape[1]
        if more > 0:  # replaced, never resized: another thread may be reading
            room = max(more, self.table.shape[1] // 2)
            self.table = np.concatenate([self.table, np.full((len(self.table), room), -1, np.int32)], 1)
        self.table[partition, number] = row
        if partition == 0:
            self.number[row] = number
        return row

    def _changed(self, row: int) -> None:
        self._since[row] = self.changes + 1
        self.changes += 1

    def since(self, n: int) -> npt.NDArray[np.int64]:
        """int64[n]: which of the `changes`, counting from 1, gave each of the first n rows what it has; not to be written."""
        return self._since[:n]

    def named(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64[n]: rows of the items called so, -1 where there is none."""
        return np.fromiter(map(self.row.get, names, repeat(-1)), np.int64, len(names))

    def rows(self, partition: int, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        """int32[n]: rows of that partition's numbers, -1 where there is none any more."""
        return np.asarray(self.table[partition].take(numbers, mode="clip"))

    def ties(self, n: int) -> npt.NDArray[np.int64]:
        """Hashes of the names in the first n rows, by which equals are put in order."""
        return self._ties[:n]

    def alive(self, n: int) -> npt.NDArray[np.bool_]:
        """bool[n]: which of the first n rows hold an item; not to be written."""
        return self._alive[:n]

    def remove(self, name: str) -> None:
        """Free the item's row; its numbers name nobody from now on."""
        row = self.row.pop(name)
        for partition, of in enumerate(self.table):
            if partition == 0 and of[self.number[row]] == row:
                of[self.number[row]] = -1
            else:
                of[of == row] = -1
        self.names[row] = ""
        self._alive[row] = False
        self._changed(row)
        self._free.append(row)

    def __len__(self) -> int:
        return len(self.row)
