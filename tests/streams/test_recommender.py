"""Releases and answers: a version is asked for once its vocabulary is there, and a late one is looked for again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from serving.bundle import folder_of, seal
from serving.release import Releases
from serving.vocabulary import Vocabulary
from streams import recommender
from streams.kafka import Kafka
from streams.recommender import Recommender, Request

ASK = Request("ann", 2, recent=("tea",))


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Recommender]:
    """A recommender whose Kafka does not answer: it hears of releases by this test only."""
    made = Recommender(Kafka("127.0.0.1:9", partitions=1), str(tmp_path), temperature=0.0, boot_s=0.0)
    made.replica.as_of = {0: int(time.time() * 1000)}  # a fresh state: degraded is what has no model
    yield made
    made.close()


def bundle(repository: Path, version: int) -> str:
    folder = folder_of(repository, version)
    folder.mkdir(parents=True)
    (folder / "vocabulary.json").write_text(json.dumps(["tea", "cup"]))
    (folder / "popular.json").write_text(json.dumps(["cup"]))
    return seal(folder)


def live(version: int, sha256: str) -> Releases:
    releases = Releases()
    assert releases.apply(version, "candidate", sha256=sha256) is None
    assert releases.apply(version, "live") is None
    return releases


def sequence(version: int, histories: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    return np.full((len(histories), 1), 2, np.int64), np.ones((len(histories), 1), np.float32)


def test_answers_go_by_the_old_version_until_the_new_ones_vocabulary_is_there(
    serving: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases, while_loading, load = live(3, bundle(tmp_path, 3)), [], Vocabulary.load

    def loading(folder: Path, sha256: str | None, trusted: str, of: int) -> Vocabulary:
        answer = serving.answer([ASK], sequence)[0]
        while_loading.append((answer.version, answer.degraded))
        return load(folder, sha256, trusted, of)

    monkeypatch.setattr(Vocabulary, "load", loading)
    serving.replica.releases = releases  # as the replica has it at that moment
    serving._on_release(releases)
    assert while_loading == [(0, False)]
    answer = serving.answer([ASK], sequence)[0]
    assert (answer.version, answer.degraded) == (3, False)


def test_a_vocabulary_that_comes_late_is_looked_for_again(serving: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "BREAK_S", 0.0)
    elsewhere = tmp_path / "elsewhere"
    releases = live(3, bundle(elsewhere, 3))
    serving.replica.releases = releases
    serving._on_release(releases)
    answer = serving.answer([ASK], sequence)[0]
    assert (answer.version, answer.degraded) == (0, True)
    (elsewhere / "sequence-3").rename(tmp_path / "sequence-3")
    assert serving.answer([ASK], sequence)[0].version == 3


def test_a_vocabulary_that_is_not_the_named_one_is_not_served(serving: Recommender, tmp_path: Path) -> None:
    bundle(tmp_path, 3)
    serving._on_release(live(3, "0" * 64))
    assert serving.answer([ASK], sequence)[0].version == 0


def test_the_model_is_asked_with_the_users_choices_and_their_times_or_with_a_session_without_any(
    serving: Recommender, tmp_path: Path
) -> None:
    serving._on_release(live(3, bundle(tmp_path, 3)))
    view, asked = serving.replica.view, list[list[list[int]]]()
    for item, at in (("tea", 1e9), ("pot", 1e9 + 5), ("cup", 1e9 + 10)):
        view.online.learn_one("bob", item, at)
    view.watermark = 1e9 + 1_000

    def asking(version: int, histories: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        asked.extend(histories[:, :, -3:].tolist())
        return sequence(version, histories)

    serving.answer([Request("bob", 2), Request("bob", 2, recent=("cup", "tea"))], asking)
    assert asked == [[[0, 1, 2], [0, 4, 11]], [[0, 2, 1], [0, 0, 0]]]  # seconds to the next: 4 to 7, and 512 to 1,023
