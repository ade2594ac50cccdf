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

    def encode(self, items: Sequence[str], pauses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[2, LENGTH] (`learners.histories`) of the newest items that are known, right-aligned, zeros before them."""
        rows = np.fromiter(map(self.row.get, items, repeat(0)), np.int64, len(items))
        known = rows.nonzero()[0][-LENGTH:]
        out = np.zeros((2, LENGTH), np.int64)
        out[:, LENGTH - len(known) :] = rows[known], pauses[known]
        return out

    def decode(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Items and scores of the model's best rows, best first."""
        known = (rows > 0) & (rows <= len(self.items))
        return list(map(self.items.__getitem__, (rows[known] - 1).tolist())), scores[known]
