"""The vocabulary of one version of the sequence model: which item is in which row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from learners.histories import LENGTH
from learners.items import Items
from serving.bundle import verify

NEVER = -2  # no row, and no hash of a name


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
    """In which rows of a process (`learners.items`) a vocabulary's items are, and the other way round: looked up by name when first asked
    for, and again where another item has taken the row since, as far as the hash of its name tells.
    """

    def __init__(self, vocabulary: Vocabulary, items: Items) -> None:
        self._vocabulary, self._items = vocabulary, items
        self._rows = np.full((2, len(vocabulary.items) + 1), NEVER)  # by the vocabulary's row: the process's, and the name's hash
        self._known = np.full((2, 64), NEVER)  # by the process's row: the vocabulary's, 0 where it has none, and the name's hash

    def rows(self, known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The process's rows of the vocabulary's, -1 where it has none."""
        found, hashes = self._rows[:, known]
        ties = self._items.ties(max(len(self._items.names), 1))
        for place in ((found < 0) | (ties.take(found, mode="clip") != hashes)).nonzero()[0].tolist():
            found[place] = row = self._items.row.get(self._vocabulary.items[known[place] - 1], -1)
            self._rows[:, known[place]] = row, ties[row]
        return np.asarray(found)

    def known(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The vocabulary's rows of the process's, 0 where it has none."""
        names = self._items.names
        ties = self._items.ties(max(len(names), 1))
        if len(ties) > self._known.shape[1]:
            self._known = np.concatenate([self._known, np.full((2, len(ties)), NEVER)], 1)
        found, hashes = self._known[:, rows]
        for place in ((rows < 0) | (ties[rows] != hashes)).nonzero()[0].tolist():
            row = rows[place]
            found[place] = self._vocabulary.row.get(names[row], 0) if row >= 0 else 0
            if row >= 0:
                self._known[:, row] = found[place], ties[row]
        return np.asarray(found)


def encoded(known: npt.NDArray[np.int64], pauses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[2, LENGTH] (`learners.histories`) of the newest items of a history that are `known`, and not 0, on the right, zeros before."""
    some = known.nonzero()[0][-LENGTH:]
    out = np.zeros((2, LENGTH), np.int64)
    out[:, LENGTH - len(some) :] = known[some], pauses[some]
    return out
