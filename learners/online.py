"""The online layer: every source that learns from each interaction, as one. A fold holds one partition, a replica all."""

from __future__ import annotations

from learners.covisitation import CoVisitation
from learners.neighbours import Neighbours
from learners.popularity import Popularity
from learners.profiles import Profiles


class Online:
    """Popularity, co-visitation, session neighbours and profiles; `shards` as in `Popularity`.

    A record's key is its source's kind (one letter), a middle dot and the id: `p·item`, `c·item`, `s·item`, `u·user`.
    """

    def __init__(self, partitions: int = 1, shards: int = 1) -> None:
        self.popularity = Popularity(partitions, shards)
        self.pairs = CoVisitation(partitions)
        self.profiles = Profiles()
        self.neighbours = Neighbours(partitions)
        self._sources = {s.kind: s for s in (self.popularity, self.pairs, self.profiles, self.neighbours)}

    def learn_one(self, user: str, item: str, at: float) -> tuple[set[str], bool]:
        """Learn one choice at event time `at` (Unix s); returns (keys of the records it changed, it was a repeat)."""
        recent = self.profiles.recent(user)
        entered, repeat = self.profiles.learn_one(user, item, at)
        self.popularity.learn_one(item, at)
        touched = {f"u·{user}", f"p·{item}"}
        if entered:
            self.neighbours.learn_one(user, item)
            touched.add(f"s·{item}")
            touched.update([f"c·{other}" for other in self.pairs.learn_one(item, recent)])
        return touched, repeat

    def forget(self, user: str) -> set[str]:
        """Remove a user; the counts they added to stay, they name nobody. Returns the keys of the changed records."""
        self.profiles.load(0, user, None)
        return {f"u·{user}", *(f"s·{item}" for item in self.neighbours.forget(user))}

    def dump(self, key: str) -> bytes | None:
        """The record of `key` for the state topic; None is a tombstone."""
        return self._sources[key[0]].dump(key[2:])

    def load(self, partition: int, key: str, value: bytes | None) -> bool:
        """Take one record over from the state topic; False where the key is of another kind."""
        kind, _, name = key.partition("·")
        source = self._sources.get(kind)
        if source is None:
            return False
        source.load(partition, name, value)
        return True
