"""The vocabulary of one version of the sequence model: which item is in which row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.choices import BITS, NUMBER, gap
from learners.compiled import compiled
from learners.histories import LENGTH
from learners.items import Items
from learners.online import Online
from learners.profiles import RECENT
from serving.bundle import verify


@dataclass(frozen=True)
class Vocabulary:
    """Items of one version in the order of their rows; row 0 is padding, so item i has row i + 1."""

    items: list[str]
    row: dict[str, int]
    popular: list[str]
    sha256: str = ""  # of the bundle's manifest

    @staticmethod
    def load(folder: Path, sha256: str | None = None, trusted: str = "", version: int = 0) -> Vocabulary:
        """That of the bundle in `folder`, which is first verified as a whole, weights and all. Raises OSError or `Corrupt`."""
        found = verify(folder, sha256, trusted, version)
        items, popular = (json.loads((folder / name).read_bytes()) for name in ("vocabulary.json", "popular.json"))
        return Vocabulary(items, {item: row for row, item in enumerate(items, 1)}, popular, found)

    def named(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64[n]: rows of the items called so, 0 where there is none."""
        return np.fromiter(map(self.row.get, items, repeat(0)), np.int64, len(items))


class Places:
    """In which rows of a process (`learners.items`) the items of a vocabulary are, and the other way round."""

    def __init__(self, vocabulary: Vocabulary, items: Items) -> None:
        self._vocabulary, self._items = vocabulary, items
        self._rows = np.full(len(vocabulary.items) + 1, -1)  # by the vocabulary's row
        self._known = np.zeros(64, np.int64)  # by the process's row
        self._changes = 0  # of the process's items that are known here

    def __call__(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The process's rows by the vocabulary's, -1 where it has none, and the vocabulary's by the process's, 0 where it has none."""
        items = self._items
        if items.changes != self._changes:
            before, self._changes, names = self._changes, items.changes, items.names
            more = len(names) - len(self._known)
            if more > 0:
                self._known = np.concatenate([self._known, np.zeros(more + len(self._known) // 2, np.int64)])
            for row in np.flatnonzero(items.since(len(names)) > before).tolist():
                was, known = self._known[row], self._vocabulary.row.get(names[row], 0)
                if self._rows[was] == row:
                    self._rows[was] = -1
                if known:
                    self._rows[known] = row
                self._known[row] = known
        return self._rows, self._known


def histories_of(online: Online, users: Sequence[str], now: float, known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[users, 2, LENGTH]: what the model reads of each at that time (Unix s); nothing of somebody unknown, or of "".

    `known`: the vocabulary's rows by those of the state (`Places`).
    """
    heads = [online.profiles.head(user) if user else None for user in users]
    places = np.array([head.place if head else (-1, -1) for head in heads])
    pauses = np.array([gap(now - head.last) + 1 if head else 0 for head in heads])
    return np.asarray(read(places, pauses, known, *online.profiles.tables(), online.items.table))


@compiled
def read(places: Any, pauses: Any, known: Any, by_user: Any, chosen_at: Any, chosen: Any, rows: Any) -> Any:
    """int64[B, 2, LENGTH] (`learners.histories`): of what the users in these places (partition, number), -1 for nobody, chose last, the
    items that the vocabulary has, on the right, and the pause after each, after the last of all `pauses`. `known`: the vocabulary's rows
    by the process's; the rest as in `learners.profiles.remembered`.
    """
    out = np.zeros((len(places), 2, LENGTH), np.int64)
    for each in range(len(places)):
        partition, number = places[each]
        slot = by_user[partition, number] if 0 <= number < by_user.shape[1] else 0
        start, size = chosen_at[0, slot], chosen_at[2, slot]
        at, pause = LENGTH, pauses[each]
        for place in range(start + size - 1, start + max(size - RECENT, 0) - 1, -1):
            mark = np.int64(chosen[place])
            item = mark & NUMBER
            row = rows[partition, item] if item < rows.shape[1] else -1
            if at and 0 <= row < len(known) and known[row]:
                at -= 1
                out[each, 0, at], out[each, 1, at] = known[row], pause
            pause = (mark >> BITS) + 1
    return out


def encoded(known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same of a session that came without times; `known`: its rows of the vocabulary, 0 where it has none."""
    some = known[known > 0][-LENGTH:]
    out = np.zeros((2, LENGTH), np.int64)
    out[0, LENGTH - len(some) :] = some
    return out
