"""The catalogue: which items may be shown. Open: an item exists from its first interaction until its tombstone."""

from __future__ import annotations

from collections.abc import Collection, Sequence


class Catalogue:
    """What `items.v1` said: titles, categories, hidden and removed items. Items it never named are simply shown."""

    def __init__(self) -> None:
        self.categories: dict[str, frozenset[str]] = {}
        self.unavailable: set[str] = set()
        self.announced: dict[str, float] = {}  # item -> published_at, or when it was announced (Unix s), newest last
        self._in: dict[str, set[str]] = {}  # category -> items

    def upsert(self, item: str, categories: Sequence[str], published: float, hidden: bool) -> None:
        self._recategorise(item, frozenset(categories))
        self.announced.pop(item, None)
        self.announced[item] = published
        (self.unavailable.add if hidden else self.unavailable.discard)(item)

    def remove(self, item: str) -> None:
        self.unavailable.add(item)
        self._recategorise(item, frozenset())
        self.categories.pop(item, None)
        self.announced.pop(item, None)

    def _recategorise(self, item: str, categories: frozenset[str]) -> None:
        for category in self.categories.get(item, frozenset()) - categories:
            self._in[category].discard(item)
            if not self._in[category]:
                del self._in[category]
        for category in categories:
            self._in.setdefault(category, set()).add(item)
        self.categories[item] = categories

    def members(self, categories: Collection[str]) -> set[str]:
        """Items of any of `categories`."""
        return set[str]().union(*(self._in.get(category, ()) for category in categories))

    def allows(self, item: str, wanted: Collection[str]) -> bool:
        """May `item` be shown to somebody who asked for the categories `wanted` (empty: any)?"""
        if item in self.unavailable:
            return False
        return not wanted or not self.categories.get(item, frozenset()).isdisjoint(wanted)

    def affinity(self, recent: Sequence[str]) -> dict[str, float]:
        """Category -> share of the history `recent` that is in it."""
        share: dict[str, float] = {}
        for item in recent:
            for category in self.categories.get(item, ()):
                share[category] = share.get(category, 0.0) + 1.0 / len(recent)
        return share
