"""Profiles: what each user did last, and which items they have had. One user, one partition, one profile.

In memory a profile is its record, and nothing else: a million users of 50 choices are 0.36 GB, and none of it has to be
decoded to start, or encoded to be written.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.choices import BITS, MARK, NUMBER, SESSION, found, gap, packed
from learners.compiled import compiled
from learners.items import Items
from learners.sequences import Sequences

RECENT = 50  # the sequence model's window
KEPT = 512  # choices that are remembered; an item older than those may come back
LATE = 64  # items of late events that are remembered as had
SESSION_GAP = 1800.0  # s without an event end a session
HEAD = Struct("<IQIdH")  # the user's number, clock of the last event, choices ever in the sequence, their last time, items in it


Column = npt.NDArray[Any]
NONE = np.empty(0, np.int32)


class Head(NamedTuple):
    """A user's `place` (partition, number), choices that ever entered the sequence, and the time of the last of them, Unix s."""

    place: tuple[int, int]
    n: int
    last: float


class Profile(NamedTuple):
    """Rows of items, -1 for evicted ones: `chosen` what is remembered of the sequence, oldest first, `had` the late ones, too."""

    head: Head
    chosen: npt.NDArray[np.int32]
    had: npt.NDArray[np.int32]


@compiled
def remembered(partition: int, number: int, by_user: Any, chosen_at: Any, chosen: Any, rows: Any) -> Any:
    """Rows of the items that a user chose, oldest first, -1 for evicted ones, and how many of the last were chosen in one
    session; none where `number` is -1.

    `by_user` to `chosen`: `Profiles.tables`, `rows`: `Items.table`.
    """
    slot = by_user[partition, number] if 0 <= number < by_user.shape[1] else 0
    start, size = chosen_at[0, slot], chosen_at[2, slot]
    out, begun = np.empty(size, np.int32), 0
    for place in range(size):
        mark = np.int64(chosen[start + place])
        if place and mark >> BITS >= SESSION:
            begun = place
        item = mark & NUMBER
        out[place] = rows[partition, item] if item < rows.shape[1] else -1
    return out, size - begun


class Profiles:
    """Profiles by user, `partitions` of them side by side; item numbers are those of `items`.

    `serves`: what many users chose can be looked up at once, by their numbers, for as much memory again.

    >>> items = Items()
    >>> users, tea = Profiles(items), items.number[items.learn("tea")]
    >>> users.learn_one("u", tea, 0.0, clock=1), users.learn_one("u", tea, 1.0, clock=2)
    ((0, 0, True, False), (0, 1, True, True))
    >>> users.recent("u"), users.get("u").head.n
    (['tea', 'tea'], 2)
    """

    def __init__(self, items: Items, partitions: int = 1, serves: bool = True) -> None:
        self.items = items
        self.next = 0  # the first partition's next new number
        self._of: list[dict[str, bytes]] = [{} for _ in range(partitions)]
        self._sequences = Sequences(partitions) if serves else None

    def learn_one(self, user: str, item: int, at: float, clock: int) -> tuple[int, int, bool, bool]:
        """Append a choice of the item of that number at event time `at` and partition's `clock`.

        Returns (the user's number, choices in the sequence so far, entered it, the user had had the item). An event older than the
        last one by more than a session is late: it counts as had, the sequence stays.
        """
        start = HEAD.size
        record = self._of[0].get(user)
        if record is None:
            number, self.next = self.next, self.next + 1
            self._keep(0, user, HEAD.pack(number, clock, 1, at, 1) + packed(item, 0))
            return number, 0, True, False
        number, _, n, last, size = HEAD.unpack_from(record)
        end = start + MARK * size
        repeat = found(record, item, start, len(record)) >= 0
        late = record[end:]
        if at < last - SESSION_GAP:
            late = late if repeat else (late + packed(item, 0))[-MARK * LATE :]
            self._keep(0, user, HEAD.pack(number, clock, n, last, size) + record[start:end] + late)
            return number, n, False, repeat
        if size == KEPT:
            start, size = start + MARK, size - 1
        mark = packed(item, gap(at - last))
        self._keep(0, user, HEAD.pack(number, clock, n + 1, max(last, at), size + 1) + record[start:end] + mark + late)
        return number, n, True, repeat

    def _keep(self, partition: int, user: str, record: bytes) -> None:
        self._of[partition][user] = record
        if self._sequences is not None:
            number, _, n, _, size = HEAD.unpack_from(record)
            self._sequences.put(partition, number, n, np.frombuffer(record, "<u4", size, HEAD.size))

    def _found(self, user: str) -> tuple[int, bytes] | None:
        for partition, profiles in enumerate(self._of):
            record = profiles.get(user)
            if record is not None:
                return partition, record
        return None

    def _names(self, partition: int, record: bytes, start: int, n: int) -> list[str]:
        names, rows = self.items.names, self.items.rows(partition, np.frombuffer(record, "<u4", n, start) & np.uint32(NUMBER)).tolist()
        return [names[row] for row in rows if row >= 0]

    def get(self, user: str) -> Profile | None:
        place = self._found(user)
        if place is None:
            return None
        partition, record = place
        number, _, n, last, size = HEAD.unpack_from(record)
        rows = self.items.rows(partition, np.frombuffer(record, "<u4", offset=HEAD.size) & np.uint32(NUMBER))
        return Profile(Head((partition, number), n, last), rows[:size], rows)

    def head(self, user: str) -> Head | None:
        """What every answer to the user needs, read without their choices."""
        place = self._found(user)
        if place is None:
            return None
        number, _, n, last, _ = HEAD.unpack_from(place[1])
        return Head((place[0], number), n, last)

    def late(self, user: str) -> npt.NDArray[np.int32]:
        """Rows of the items that the user had and that are not in their sequence: `Profile.had` after `Profile.chosen`."""
        place = self._found(user)
        if place is None or len(place[1]) == HEAD.size + MARK * HEAD.unpack_from(place[1])[4]:
            return NONE
        profile = self.get(user)
        assert profile is not None
        return profile.had[len(profile.chosen) :]

    def number(self, user: str) -> tuple[int, int] | None:
        """(the user's partition, and number in it)."""
        head = self.head(user)
        return head.place if head else None

    def seen(self, user: str) -> int:
        """How many choices ever entered the user's sequence."""
        head = self.head(user)
        return head.n if head else 0

    def recent(self, user: str) -> list[str]:
        """The user's last items, oldest first."""
        profile = self.get(user)
        return [self.items.names[row] for row in profile.chosen[-RECENT:].tolist() if row >= 0] if profile else []

    def tables(self) -> tuple[Column, Column, Column]:
        """`Sequences.tables` of the choices (`learners.choices`) by the users' numbers, with how many a user made ever."""
        assert self._sequences is not None, "made not to serve"
        return self._sequences.tables()

    def after(self, user: str, seen: int) -> str | None:
        """The user's first choice after the first `seen` ones; None where there is none yet, or it is too long ago."""
        place = self._found(user)
        if place is None:
            return None
        partition, record = place
        _, _, n, _, size = HEAD.unpack_from(record)
        if not 0 < n - seen <= size:
            return None
        name = self._names(partition, record, HEAD.size + MARK * (size - (n - seen)), 1)
        return name[0] if name else None

    def oldest(self, k: int) -> list[str]:
        """The k users of the first partition whose last event is longest ago."""
        clocks = np.fromiter((HEAD.unpack_from(record)[1] for record in self._of[0].values()), np.uint64, len(self._of[0]))
        places = set(np.argpartition(clocks, k - 1)[:k].tolist())
        return [user for place, user in enumerate(self._of[0]) if place in places]

    def dump(self, user: str, partition: int = 0) -> bytes | None:
        return self._of[partition].get(user)

    def load(self, partition: int, user: str, value: bytes | None) -> None:
        """Take a dumped record over; None forgets the user."""
        old = self._of[partition].pop(user, None)
        if old is not None and self._sequences is not None and (value is None or value[:4] != old[:4]):  # who comes back has a new number
            self._sequences.drop(partition, HEAD.unpack_from(old)[0])
        if value is not None:
            self._keep(partition, user, value)

    def __len__(self) -> int:
        return sum(len(profiles) for profiles in self._of)
