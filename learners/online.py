"""The online layer: every source that learns from each interaction, as one. A fold holds one partition, a replica all.

Its records on the state topic: `i·item` (the item's number, and what each source knows of it) and `u·user`.
"""

from __future__ import annotations

from struct import Struct

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from learners.items import Items
from learners.occurrences import ENTRY, Occurrences
from learners.popularity import RECORD, Popularity
from learners.profiles import Column, Profiles

USER, ITEM = "u·".encode(), "i·".encode()
_HEAD = Struct("<I")  # the item's number
_COUNTED = _HEAD.size + RECORD.size


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Memory:
    """How much one partition remembers. At one more per cent, those that were heard of longest ago are forgotten.

    `users`: about 0.4 kB each with 50 choices, 2.4 kB at most. `items`: 4.2 kB at most, all partitions together, and 0.3 kB in
    each. `ledgers`: users with answers that wait for a verdict, about 5 kB each, 20 kB at most.
    """

    users: int = Field(default=1_000_000, ge=100)
    items: int = Field(default=200_000, ge=100)
    ledgers: int = Field(default=20_000, ge=100)


class Online:
    """Popularity, profiles, and occurrences with what is read from them; `shards` as in `Popularity`.

    `serves`: it will be asked to rank; a fold only learns, and is smaller so.
    """

    def __init__(self, partitions: int = 1, shards: int = 1, memory: Memory | None = None, serves: bool = True) -> None:
        self.memory = memory or Memory()
        self.items = Items(partitions)
        self.popularity = Popularity(self.items, partitions, shards)
        self.profiles = Profiles(self.items, partitions, serves)
        self.occurrences = Occurrences(self.items, partitions, shards, serves)
        self._serves = serves
        self._cold: dict[int, bytes] = {}  # row -> its record as it was loaded, taken apart when it is first needed
        self._changed_items: dict[int, None] = {}  # rows, in the order of the first change
        self._changed_users: dict[str, None] = {}
        self._evicted: list[str] = []  # items

    def learn_one(self, user: str, item: str, at: float) -> tuple[int, bool, bool]:
        """Learn one choice at event time `at` (Unix s).

        Returns (choices in the user's sequence before it, it entered that sequence, it was a repeat).
        """
        items, changed, known = self.items, self._changed_items, self.items.next
        row = items.learn(item)
        if row in self._cold:
            self._warm(row)
        self.popularity.learn_one(row, at)
        number, seen, entered, repeat = self.profiles.learn_one(user, items.number[row], at, self.popularity.clock[0])
        self._changed_users[user] = changed[row] = None
        if entered:
            self.occurrences.learn_one(row, number, seen)
        if items.next != known:
            self._evict_items()
        if not seen:
            self._evict_users()
        return seen, entered, repeat

    def _evict_users(self) -> None:
        if len(self.profiles) > self.memory.users * 1.01:
            for user in self.profiles.oldest(len(self.profiles) - self.memory.users):
                self.profiles.load(0, user, None)
                self._changed_users[user] = None

    def _evict_items(self) -> None:
        if len(self.items) <= self.memory.items * 1.01:
            return
        for row in list(self._cold):
            self._warm(row)
        for row in self.popularity.oldest(len(self.items) - self.memory.items).tolist():
            name = self.items.names[row]
            self._forget(0, row)
            self.items.remove(name)
            self._changed_items.pop(row, None)
            self._evicted.append(name)

    def _forget(self, partition: int, row: int) -> None:
        for source in (self.popularity, self.occurrences):
            source.load(partition, row, None)

    def tables(self) -> tuple[Column, Column, Column, Column, Column, Column, Column]:
        """For loops that look around in many histories: `Occurrences.tables`, `Profiles.tables`, and rows of items by their numbers."""
        return *self.occurrences.tables(), *self.profiles.tables(), self.items.table

    def forget(self, user: str) -> None:
        """Remove a user; the counts they added to stay, they name nobody."""
        place = self.profiles.number(user)
        if place is not None:
            mark = ENTRY.pack(place[1], 0)[:4]
            for row in [row for row, record in self._cold.items() if mark in record]:
                self._warm(row)
            self._changed_items |= dict.fromkeys(self.occurrences.forget(place[1]))
            self._changed_users[user] = None
            self.profiles.load(0, user, None)

    def changes(self) -> dict[bytes, bytes | None]:
        """The records for the state topic that have changed since they were last asked for; None is a tombstone."""
        names = self.items.names
        records: dict[bytes, bytes | None] = {ITEM + name.encode(): None for name in self._evicted}
        records |= {ITEM + names[row].encode(): self._item(row) for row in self._changed_items}
        records |= {USER + user.encode(): self.profiles.dump(user) for user in self._changed_users}
        self._changed_items, self._changed_users, self._evicted = {}, {}, []
        return records

    def _item(self, row: int) -> bytes:
        return _HEAD.pack(self.items.number[row]) + self.popularity.dump(row) + self.occurrences.dump(row)

    def load(self, partition: int, key: bytes, value: bytes | None) -> bool:
        """Take one record over from the state topic; False where the key is of another kind."""
        kind = key[:3]
        if kind == USER:
            self.profiles.load(partition, key[3:].decode(), value)
        elif kind == ITEM:
            self._load_item(partition, key[3:].decode(), value)
        else:
            return False
        return True

    def _load_item(self, partition: int, name: str, value: bytes | None) -> None:
        if value is None:
            row = self.items.row.get(name)
            if row is not None:
                self._cold.pop(row, None)
                self._forget(partition, row)
                if not self.popularity.known(row):
                    self.items.remove(name)
            return
        row = self.items.place(partition, _HEAD.unpack_from(value)[0], name)
        if self._serves:
            self._take(partition, row, value)
        else:
            self._cold[row] = value

    def _warm(self, row: int) -> None:
        self._take(0, row, self._cold.pop(row))

    def _take(self, partition: int, row: int, value: bytes) -> None:
        self.popularity.load(partition, row, value[_HEAD.size : _COUNTED])
        self.occurrences.load(partition, row, value[_COUNTED:])
