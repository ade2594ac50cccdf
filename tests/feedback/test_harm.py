"""Harm: found soon where there is some, hardly ever where there is none, however alike a user's answers are."""

from __future__ import annotations

import numpy as np
import pytest

from feedback.harm import BESIDE, Arm, Judged, Trial

RECALL = 0.35


def played(seed: int, canary: float, rounds: int, users: int = 1000, share: float = 0.05, apart: bool = False) -> int | None:
    """Judged answers of a canary with that recall until harm is found, None where it is not in so many rounds of 30 answers.

    Users differ (their recall is spread by a beta distribution, `apart`: more so, and with how often they ask), and some ask far more often
    than others.
    """
    rng = np.random.default_rng(seed)
    taste, often = rng.beta(2, 2 / RECALL - 2, users), rng.pareto(1.5, users) + 0.1
    if apart:
        taste, often = np.sort(rng.beta(0.5, 0.93, users)), np.sort(often)
    trial, on_trial = Trial(), rng.random(users) < share
    for _ in range(rounds):
        asked = rng.choice(users, 30, p=often / often.sum())
        chance = taste[asked] * np.where(on_trial[asked], canary / RECALL, 1.0)
        found = rng.random(30) < chance
        judged = [Judged(int(u), 0.5 * f, float(f)) for u, f in zip(asked, found, strict=True)]
        trial.add([j for j in judged if on_trial[j.user]], [j for j in judged if not on_trial[j.user]])
        if trial.is_harmful:
            return len(trial.mine.values)
    return None


def test_a_model_that_finds_nothing_is_harmful_within_a_few_answers() -> None:
    found = [played(seed, 0.0, 200) for seed in range(20)]
    assert sum(n is not None and n < 100 for n in found) >= 18 and None not in found, found


def test_half_as_good_is_found_in_some_hundred_answers() -> None:
    found = [played(seed, RECALL / 2, 600, share=0.2) for seed in range(10)]
    assert sum(n is not None for n in found) >= 9, found


def test_an_equal_model_is_hardly_ever_called_harmful_however_often_one_looks() -> None:
    assert sum(played(seed, RECALL, 200) is not None for seed in range(40)) <= 1


def test_a_better_model_is_not_harmful() -> None:
    assert not any(played(seed, 1.3 * RECALL, 200, share=0.2) for seed in range(10))


def test_answers_wait_for_those_they_are_held_against() -> None:
    trial = Trial()
    trial.add([Judged(1, 0.0, 0.0)] * 3, [])
    assert trial.evidence == pytest.approx(0.0)
    trial.add([], [Judged(n, 0.0, 1.0) for n in range(BESIDE - 1)])
    assert trial.evidence == pytest.approx(0.0)
    trial.add([], [Judged(99, 0.0, 1.0)])
    assert trial.evidence > 0.3


def test_the_same_users_answers_count_less_and_less() -> None:
    arm = Arm()
    arm.add([Judged(1, 1.0, 1.0), *[Judged(1, 0.0, 0.0)] * 3, Judged(2, 0.5, 0.0)])
    assert arm.weights[0] == arm.weights[4] == 1 and arm.weights[3] == pytest.approx(1 / 8)


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_nor_where_frequent_users_are_easier_and_tastes_far_apart(share: float) -> None:
    assert sum(played(seed, RECALL, 200, users=400, share=share, apart=True) is not None for seed in range(30)) <= 1


def test_figures_name_both_sides_and_say_nothing_where_there_is_nothing() -> None:
    trial = Trial()
    trial.add([Judged(1, 0.5, 1.0), Judged(2, 0.25, 0.0)], [])
    assert trial.figures() == {
        "judged": 2, "live_judged": 0, "evidence": 0.0, "canary_ndcg10": 0.375, "live_ndcg10": None, "canary_recall": 0.5,
        "live_recall": None, "canary_degraded": 0, "live_degraded": 0,
    }  # fmt: skip
