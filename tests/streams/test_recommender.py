"""Releases and answers: a version is asked for once it is in memory, proven, and the one that was named; a late one is looked for again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from learners.export import export
from learners.histories import LENGTH
from learners.sequence import SequenceModel
from learners.training import Training
from serving import deep
from serving.bundle import LOADING, assemble, folder_of, seal
from serving.deep import Deep
from serving.recommend import Scored
from serving.release import Releases
from streams import recommender
from streams.kafka import Kafka
from streams.recommender import Recommender, Request

ASK = Request("ann", 2, recent=("tea",))
Bundle = Callable[..., str]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Recommender]:
    """A recommender whose Kafka does not answer: it hears of releases by this test only."""
    made = Recommender(Kafka("127.0.0.1:9", partitions=1), str(tmp_path), temperature=0.0, boot_s=0.0)
    made.replica.as_of = {0: int(time.time() * 1000)}  # a fresh state: degraded is what has no model
    yield made
    made.close()


@pytest.fixture(scope="module")
def exported() -> tuple[bytes, dict[str, npt.NDArray[np.generic]]]:
    torch.manual_seed(1)
    model = SequenceModel(2, Training(dim=16, blocks=1, heads=2))
    onnx, canary, _ = export(model, np.ones((2, 2, LENGTH), np.int64))
    return onnx, canary


@pytest.fixture
def bundle(tmp_path: Path, exported: tuple[bytes, dict[str, npt.NDArray[np.generic]]]) -> Bundle:
    """Puts a bundle into the repository, or elsewhere; returns its hash."""

    def build(version: int, repository: Path = tmp_path, canary_off: float = 0.0) -> str:
        onnx, canary = exported
        folder = folder_of(repository, version)
        folder.mkdir(parents=True)
        wanted: dict[str, Any] = {**canary, "top_scores": np.asarray(canary["top_scores"]) + canary_off}
        assemble(folder, onnx, wanted, ["tea", "cup"], ["cup"], {"version": version}, lambda file: file.touch())
        return seal(folder)

    return build


def follow(serving: Recommender, releases: Releases) -> None:
    """What happens when the replica has heard of a release."""
    serving.replica.releases = releases
    serving._follow()


def live(version: int, sha256: str) -> Releases:
    releases = Releases()
    assert releases.apply(version, "candidate", sha256=sha256) is None
    assert releases.apply(version, "live") is None
    return releases


def test_answers_go_by_the_old_version_until_the_new_one_is_in_memory(
    serving: Recommender, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases, while_loading, load = live(3, bundle(3)), [], Deep.load

    def loading(*args: Any) -> Deep:
        answer = serving.answer([ASK])[0]
        while_loading.append((answer.version, answer.degraded))
        return load(*args)

    monkeypatch.setattr(Deep, "load", loading)
    follow(serving, releases)
    assert while_loading == [(0, False)]
    answer = serving.answer([ASK])[0]
    assert (answer.version, answer.degraded) == (3, False)


def test_a_version_that_comes_late_is_looked_for_again(
    serving: Recommender, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "BREAK_S", 0.0)
    elsewhere = tmp_path / "elsewhere"
    follow(serving, live(3, bundle(3, elsewhere)))
    answer = serving.answer([ASK])[0]
    assert (answer.version, answer.degraded) == (0, True)
    (elsewhere / "sequence").rename(tmp_path / "sequence")
    serving.answer([ASK])
    serving._follow_later().result(10)
    assert serving.answer([ASK])[0].version == 3


def test_a_bundle_that_is_not_the_named_one_is_not_served(serving: Recommender, bundle: Bundle) -> None:
    bundle(3)
    follow(serving, live(3, "0" * 64))
    assert serving.answer([ASK])[0].version == 0


def test_who_asks_by_a_version_has_it_loaded_before_it_is_named_and_nobody_else_is_answered_by_it(
    serving: Recommender, bundle: Bundle
) -> None:
    bundle(3)
    assert serving.missing(3) == f"version 3 {LOADING}"
    deadline = time.monotonic() + 10
    while (why := serving.missing(3)) is not None and time.monotonic() < deadline:
        assert why.endswith(LOADING)
        time.sleep(0.01)
    by_version = Request("ann", 2, recent=("tea",), version=3)
    assert [(a.version, a.id == "") for a in serving.answer([by_version, ASK])] == [(3, True), (0, False)]
    serving._follow()
    assert serving.missing(3) is None


def test_who_asks_by_a_version_that_is_not_as_its_maker_says_hears_why(serving: Recommender, bundle: Bundle) -> None:
    assert "No such file" in str(serving.missing(9))
    bundle(4, canary_off=0.5)
    assert serving.missing(4) == f"version 4 {LOADING}"
    serving._loader.submit(int).result(10)
    assert "scores of the canary inputs differ by 0.5" in str(serving.missing(4))
    assert serving.missing(4) == f"version 4 {LOADING}"  # whoever asks again has it looked at again


def test_another_bundle_of_the_same_number_takes_the_place_of_the_first(serving: Recommender, bundle: Bundle, tmp_path: Path) -> None:
    first = bundle(3)
    follow(serving, live(3, first))
    folder = folder_of(tmp_path, 3)
    (folder / "card.json").write_text("{}")
    second = seal(folder)
    assert serving.missing(3) == f"version 3 {LOADING}"
    serving._loader.submit(int).result(10)
    assert serving.missing(3) is None
    assert serving._models[3].vocabulary.sha256 == second != first


def test_what_may_come_back_stays_in_memory_and_what_may_not_does_not(serving: Recommender, bundle: Bundle, tmp_path: Path) -> None:
    releases = Releases()
    for version in range(1, 6):
        assert releases.apply(version, "candidate", sha256=bundle(version)) is None
        assert releases.apply(version, "live") is None
        follow(serving, releases)
    assert sorted(serving._models) == [3, 4, 5]
    shutil.rmtree(folder_of(tmp_path, 2))  # as the trainer does with what is no longer kept
    assert releases.apply(5, "rolled_back") is None
    follow(serving, releases)
    assert sorted(serving._models) == [3, 4] and serving._load_again == 0  # it is not missed until it is live


def test_a_version_that_fails_is_left_alone_and_no_other_is(serving: Recommender, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    releases = live(3, bundle(3))
    releases.apply(4, "candidate", sha256=bundle(4))
    releases.apply(4, "canary", share=0.5)
    follow(serving, releases)
    users = [Request(f"u{n}", 2, recent=("tea",)) for n in range(40)]
    both = serving.answer(users)
    assert {a.version for a in both} == {3, 4} and not any(a.degraded for a in both)
    broken, rank = serving._models[4], Deep.rank

    def failing(model: Deep, histories: npt.NDArray[np.int64]) -> list[Scored]:
        return rank(model, histories if model is not broken else histories[:, :1])  # a shape that it does not take

    monkeypatch.setattr(Deep, "rank", failing)
    for _ in range(2):
        assert [(a.version or 4, a.degraded) for a in serving.answer(users)] == [(a.version, a.version == 4) for a in both]
    asked = list[Deep]()

    def all_failing(model: Deep, histories: npt.NDArray[np.int64]) -> list[Scored]:
        asked.append(model)
        return rank(model, histories[:, :1])

    monkeypatch.setattr(Deep, "rank", all_failing)
    for _ in range(3):
        assert all(a.degraded for a in serving.answer(users))
    assert asked == [serving._models[3]]  # once, and the one that failed before not at all


def test_what_the_model_says_of_a_history_is_remembered_until_others_were_asked(
    serving: Recommender, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(serving, live(3, bundle(3)))
    model, asked = serving._models[3], list[int]()

    class Counting:
        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            asked.append(len(feed["histories"]))
            items, scores = model._session.run(names, feed)
            ends = ((0, 0), (1, 1))  # padding before, and after a row that it has not
            return np.pad(items, ends, constant_values=(0, 99)), np.pad(scores, ends)

    counted = Deep(model.vocabulary, model.places, Counting())
    histories = np.zeros((5, 2, LENGTH), np.int64)
    histories[:, 0, -1], histories[:, 1, -1] = [1, 2, 1, 2, 1], [5, 5, 6, 5, 7]

    def lists(*places: int) -> list[tuple[list[str], list[float], list[int]]]:
        return [(list(found.items), found.scores.tolist(), list(found.rows())) for found in counted.rank(histories[list(places)])]

    first = lists(0, 1, 2)
    assert all(sorted(items) == sorted(model.vocabulary.items) and len(items) == len(scores) for items, scores, _ in first)
    assert lists(2, 3, 0) == [first[2], first[1], first[0]] and asked == [3]
    monkeypatch.setattr(deep, "REMEMBERED", 3)
    assert lists(4, 0)[1] == first[0] and asked == [3, 1]
    assert lists(0, 4)[0] == first[0] and asked == [3, 1, 1]  # the oldest had to go


def test_the_model_is_asked_with_the_users_choices_and_their_times_or_with_a_session_without_any(
    serving: Recommender, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(serving, live(3, bundle(3)))
    view, asked, rank = serving.replica.view, list[list[list[int]]](), Deep.rank
    for item, at in (("tea", 1e9), ("pot", 1e9 + 5), ("cup", 1e9 + 10)):
        view.online.learn_one("bob", item, at)
    view.watermark = 1e9 + 1_000

    def asking(model: Deep, histories: npt.NDArray[np.int64]) -> list[Scored]:
        asked.extend(histories[:, :, -3:].tolist())
        return rank(model, histories)

    monkeypatch.setattr(Deep, "rank", asking)
    serving.answer([Request("bob", 2), Request("bob", 2, recent=("cup", "tea"))])
    assert asked == [[[0, 1, 2], [0, 4, 11]], [[0, 2, 1], [0, 0, 0]]]  # seconds to the next: 4 to 7, and 512 to 1,023
