"""Off-policy values: those of a policy that was not the one that drew, found again; and no value where there is no support."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from learners.evaluation import Scores
from learners.histories import LENGTH, Questions
from serving.off_policy import Drawn, estimated

ITEMS, N = 5, 6_000
ROW = {f"i{n}": n for n in range(1, ITEMS + 1)}
CHANCE = np.array([0.05, 0.1, 0.2, 0.25, 0.4])  # that an item is what the user chooses


def always(item: int) -> Scores:
    """A model that expects that item."""

    def scores(histories: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        values = np.zeros((len(histories), ITEMS + 1), np.float32)
        values[:, item] = 1.0
        return values

    return scores


def asked_of(answers: npt.NDArray[np.int64]) -> Questions:
    n = len(answers)
    return Questions(
        histories=np.ones((n, 2, LENGTH), np.int64), answers=answers, lengths=np.arange(n), popularity=np.zeros(n, np.int64), once=False,
        choices=[("u", i) for i in range(n)],
    )  # fmt: skip


def drawn_by(odds: npt.NDArray[np.float64], n: int, rng: np.random.Generator) -> dict[tuple[str, int], Drawn]:
    firsts = rng.choice(ITEMS, n, p=odds)
    return {("u", i): Drawn(f"i{first + 1}", float(odds[first]), list(ROW)) for i, first in enumerate(firsts)}


@pytest.mark.parametrize("item", [1, 3, 5])
def test_a_policys_hit_rate_is_found_from_anothers_draws(item: int) -> None:
    rng = np.random.default_rng(item)
    asked = asked_of(rng.choice(ITEMS, N, p=CHANCE) + 1)
    found = estimated({"candidate": always(item)}, asked, drawn_by(np.array([0.4, 0.3, 0.1, 0.1, 0.1]), N, rng), ROW)
    assert found["answers"] == N and found["candidate"]["effective"] > 500
    for estimator in ("snips", "dr"):
        assert found["candidate"][estimator] == pytest.approx(CHANCE[item - 1], abs=0.05)


def test_without_drawn_answers_it_says_why_there_is_no_value() -> None:
    assert "temperature" in estimated({"candidate": always(1)}, asked_of(np.array([1, 2])), {}, ROW)["why_not"]


def test_with_little_support_it_says_how_little() -> None:
    rng = np.random.default_rng(1)
    found = estimated({"live": always(5)}, asked_of(np.ones(300, np.int64)), drawn_by(np.array([0.5, 0.5, 0, 0, 0]), 300, rng), ROW)
    assert found == {"answers": 300, "why_not": "live: 0 effective answers, 50 are wanted"}


def test_candidates_that_a_model_does_not_know_cannot_be_its_first() -> None:
    drawn = {("u", i): Drawn("new", 0.5, ["new", "i2"]) for i in range(100)}
    assert "0 effective" in estimated({"candidate": always(2)}, asked_of(np.ones(100, np.int64)), drawn, ROW)["why_not"]
