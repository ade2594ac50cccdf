"""Profiles: what each user did last, and which items they have had. One user, one partition, one profile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import msgspec

RECENT = 50  # the sequence model's window
CONSUMED = 512  # 4-byte hashes of the items a user had; an item older than that may come back
SESSION_GAP = 1800.0  # s without an event end a session


class Profile(msgspec.Struct, array_like=True):
    """`recent` item ids, oldest first; `n` of all that entered it; `had` little-endian uint32 hashes; times in Unix s."""

    recent: list[str] = []
    n: int = 0
    had: bytes = b""
    last: float = 0.0

    def has_had(self, item: str) -> bool:
        mark = item_hash(item)
        place = self.had.find(mark)
        while place > 0 and place % 4:  # found across two hashes
            place = self.had.find(mark, place + 1)
        return place >= 0


@lru_cache(1 << 16)
def item_hash(item: str) -> bytes:
    return crc32(item.encode()).to_bytes(4, "little")


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(Profile)


class Profiles:
    """Profiles by user.

    >>> users = Profiles()
    >>> users.learn_one("u", "a", 0.0), users.learn_one("u", "a", 1.0)
    ((True, False), (True, True))
    >>> users.get("u").recent, users.get("u").n
    (['a', 'a'], 2)
    """

    kind = "u"

    def __init__(self) -> None:
        self._of: dict[str, Profile] = {}

    def get(self, user: str) -> Profile | None:
        return self._of.get(user)

    def learn_one(self, user: str, item: str, at: float) -> tuple[bool, bool]:
        """Append a choice at event time `at`; returns (entered the sequence, the user had had the item before).

        An event older than the last one by more than a session is late: it counts as had, the sequence stays.
        """
        profile = self._of.get(user)
        if profile is None:
            profile = self._of[user] = Profile()
        repeat = profile.has_had(item)
        if not repeat:
            profile.had = (profile.had + item_hash(item))[-4 * CONSUMED :]
        if at < profile.last - SESSION_GAP:
            return False, repeat
        profile.recent = [*profile.recent[1 - RECENT :], item]
        profile.n += 1
        profile.last = max(profile.last, at)
        return True, repeat

    def after(self, user: str, seen: int) -> str | None:
        """The user's first choice after the first `seen` ones; None where there is none yet, or it is too long ago."""
        profile = self._of.get(user)
        if profile is None or not 0 < profile.n - seen <= len(profile.recent):
            return None
        return profile.recent[seen - profile.n]

    def dump(self, user: str) -> bytes | None:
        profile = self._of.get(user)
        return None if profile is None else _packer.encode(profile)

    def load(self, partition: int, user: str, value: bytes | None) -> None:
        if value is None:
            self._of.pop(user, None)
        else:
            self._of[user] = _unpacker.decode(value)

    def rank(self, user: str, k: int) -> list[str]:
        """The user's own last k different items, newest first: what a stream with repeats brings back."""
        profile = self._of.get(user)
        return list(dict.fromkeys(reversed(profile.recent)))[:k] if profile else []

    def recent(self, user: str) -> Sequence[str]:
        profile = self._of.get(user)
        return profile.recent if profile else ()

    def __len__(self) -> int:
        return len(self._of)
