"""One version of the sequence model as it answers: its bundle, verified, in memory, and proven before anybody is answered by it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import get_native_id
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.inference import session
from learners.items import Items
from serving.bundle import Corrupt
from serving.recommend import Scored
from serving.vocabulary import Places, Vocabulary

TOLERANCE = 1e-3
REMEMBERED = 4_096  # histories whose list is kept, 2 kB each


@dataclass(frozen=True)
class Deep:
    """Vocabulary and weights of one bundle, which can so never mix with another's, and where its items are among the process's own."""

    vocabulary: Vocabulary
    places: Places
    _session: Any
    _lists: dict[bytes, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = field(default_factory=dict)  # by history, newest last

    @staticmethod
    def load(folder: Path, sha256: str | None, trusted: str, version: int, items: Items) -> Deep:
        """That of the bundle in `folder`, for a process with these items. Raises OSError, or `Corrupt` where it is not what its maker
        signed, or does not answer as it did there.
        """
        vocabulary = Vocabulary.load(folder, sha256, trusted, version)
        with ThreadPoolExecutor(1, initializer=_behind) as beside:
            return Deep(vocabulary, Places(vocabulary, items), beside.submit(_proven, folder).result())

    def rank(self, histories: npt.NDArray[np.int64]) -> list[Scored]:
        """Its list for each of int64[B, 2, LENGTH] (`learners.histories`): who asks again before anything happens gets the same again, as
        what a model says of a history never changes. Raises RuntimeError where it cannot.
        """
        keys = [history.tobytes() for history in histories]
        lists = [self._lists.get(key) for key in keys]
        if new := [place for place, found in enumerate(lists) if found is None]:
            try:
                items, scores = self._session.run(None, {"histories": histories[new]})
            except Exception as error:  # as above
                raise RuntimeError(str(error)) from None
            for place, known, values in zip(new, items, scores, strict=True):
                some = (known > 0) & (known <= len(self.vocabulary.items))  # it may have fewer than it names
                lists[place] = self._lists[keys[place]] = known[some], values[some]
            while len(self._lists) > REMEMBERED:
                del self._lists[next(iter(self._lists))]
        return [Scored(_Names(self.vocabulary.items, known), values, partial(self._rows, known)) for known, values in filter(None, lists)]

    def _rows(self, known: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self.places()[0][known]


class _Names(Sequence[str]):
    """Names of a vocabulary's rows, made when they are asked for."""

    def __init__(self, items: list[str], known: npt.NDArray[np.int64]) -> None:
        self._items, self._known = items, known

    def __getitem__(self, place: Any) -> Any:
        return self._items[self._known[place] - 1]

    def __len__(self) -> int:
        return len(self._known)


def _behind() -> None:
    """Answers come before this thread: on Linux a thread has a priority. Only for what does not hold Python's lock, as answers do."""
    with suppress(OSError):  # it may be lower already
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 10)


def _proven(folder: Path) -> Any:
    """The session of the folder's model, which answers the canary inputs as it did where it was made; else `Corrupt`."""
    try:
        canary = np.load(folder / "canary.npz", allow_pickle=False)
        made = session(str(folder / "model.onnx"))
        _, scores = made.run(None, {"histories": canary["histories"]})
        worst = float(np.abs(scores - canary["top_scores"]).max())
    except Exception as error:  # onnxruntime's have no base of their own
        raise Corrupt(f"{folder}: {error}") from None
    if not worst <= TOLERANCE:
        raise Corrupt(f"{folder / 'model.onnx'}: its scores of the canary inputs differ by {worst:.3g}")
    return made
