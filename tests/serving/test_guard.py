"""The guard: who leads before there is evidence, and when the ranker has earned it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.features import RANKER, SOURCES
from serving.guard import ENOUGH, FADE, NOISE, Guard, dcg, merged

SINGLE = [s for s in range(len(SOURCES)) if s != RANKER]
figures = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=len(SOURCES), max_size=len(SOURCES))


def taught(means: list[float], asks: int) -> Guard:
    guard = Guard()
    for _ in range(asks):
        guard.learn(np.array(means))
    return guard


@pytest.mark.parametrize("asks", [0, 40])
def test_without_evidence_covisitation_leads_and_every_source_but_the_ranker_fills(asks: int) -> None:
    means = [0.0] * len(SOURCES)
    means[RANKER], means[SOURCES.index("fresh")] = 1.0, 0.9
    order = taught(means, asks).order()
    assert [SOURCES[s] for s in order[:2]] == ["covisited", "after"]
    assert sorted(order) == SINGLE


@given(figures)
def test_with_evidence_the_best_source_leads_and_the_ranker_only_where_it_is_not_below_it(means: list[float]) -> None:
    order = taught(means, 60).order()
    best = max(means[s] for s in SINGLE)
    assert (order[0] == RANKER) == (means[RANKER] >= best)  # those drawn differ by more than noise
    rest = [s for s in order if s != RANKER]
    assert sorted(rest) == SINGLE
    assert [means[s] for s in rest] == sorted((means[s] for s in rest), reverse=True)
    assert RANKER not in order[1:]


@pytest.mark.parametrize(("lost", "leads"), [(0.0, True), (0.9 * NOISE, True), (1.1 * NOISE, False)])
def test_what_may_be_noise_is_no_evidence_against_the_ranker(lost: float, leads: bool) -> None:
    means = [0.1] * len(SOURCES)
    means[RANKER] = 0.1 * (1 - lost)
    assert (taught(means, 60).order()[0] == RANKER) is leads


def test_evidence_is_enough_from_the_fiftieth_judged_ask() -> None:
    means = [0.1] * len(SOURCES)
    means[SOURCES.index("history")] = 0.5
    asks = next(n for n in range(200) if taught(means, n).weight >= ENOUGH)
    assert ENOUGH <= asks < 1.1 * ENOUGH
    assert SOURCES[taught(means, asks - 1).order()[0]] == "covisited"
    assert SOURCES[taught(means, asks).order()[0]] == "history"


def test_old_evidence_fades() -> None:
    old, new = [0.0] * len(SOURCES), [0.0] * len(SOURCES)
    old[0], new[1] = 1.0, 1.0
    guard = taught(old, 2000)
    for _ in range(1000):
        guard.learn(np.array(new))
    assert guard.order()[0] == 1
    assert guard.means()[0] == pytest.approx(FADE**1000, rel=0.2)
    assert guard.weight < 1 / (1 - FADE)


def test_partitions_merge_by_addition() -> None:
    one, other = [0.2] * len(SOURCES), [0.8] * len(SOURCES)
    both = merged([taught(one, 30), taught(other, 30)])
    assert both.weight == pytest.approx(2 * taught(one, 30).weight)
    assert both.means() == pytest.approx(np.full(len(SOURCES), 0.5))
    assert merged([]).weight == 0.0
    alone = taught(one, 60)
    assert merged([alone]).order() == alone.order()


def test_a_guard_made_of_its_sums_is_equal() -> None:
    guard = taught([0.3] * len(SOURCES), 70)
    again = Guard(guard.sums.tolist(), guard.weight)
    guard.learn(np.ones(len(SOURCES)))
    again.learn(np.ones(len(SOURCES)))
    assert (again.sums.tolist(), again.weight) == (guard.sums.tolist(), guard.weight)


def test_learning_leaves_a_fresh_guard_fresh() -> None:
    taught([1.0] * len(SOURCES), 3)
    assert not Guard().sums.any()


def test_ndcg_of_one_relevant_item() -> None:
    ranks = np.array([0, 1, 9, 10, 254, 255], np.uint8)
    assert dcg(ranks).tolist() == pytest.approx([1.0, 1 / np.log2(3), 1 / np.log2(11), 0.0, 0.0, 0.0])
