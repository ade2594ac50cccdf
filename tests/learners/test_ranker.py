"""The listwise ranker: it finds planted weights, in the order of its features, and survives the state topic exactly."""

import numpy as np

from learners.hidden import WIDTH
from learners.ranker import ListwiseRanker
from learners.weights import Weights, merged

NAMES = ("noise", "strong", "against", "weak")
PLANTED = np.array([0.0, 3.0, -2.0, 1.0])


def taught(slates: int, seed: int = 1, ranker: ListwiseRanker | None = None, context: int = 0) -> ListwiseRanker:
    ranker, numbers = ranker or ListwiseRanker(len(NAMES), 2), np.random.default_rng(seed)
    for _ in range(slates):
        slate = numbers.normal(size=(12, len(NAMES))).astype(np.float32)
        chosen = int(np.argmax(slate @ PLANTED + numbers.gumbel(size=12)))
        ranker.learn_slate(slate, chosen, context)
    return ranker


def linear(ranker: ListwiseRanker) -> np.ndarray:
    """[1 + contexts, features]"""
    scorer = merged([ranker.weights()])
    return np.zeros((3, len(NAMES))) if scorer is None else scorer.linear


def test_it_learns_the_planted_weights_in_the_order_of_the_names() -> None:
    weights = linear(taught(400))[:2].sum(0)
    assert np.dot(weights, PLANTED) / np.linalg.norm(weights) / np.linalg.norm(PLANTED) > 0.97
    assert np.argsort(weights).tolist() == np.argsort(PLANTED).tolist()


def test_before_the_first_slate_all_weights_are_zero() -> None:
    ranker = ListwiseRanker(len(NAMES), 2)
    assert merged([ranker.weights()]) is None and not linear(ranker).any()


def test_what_a_context_teaches_is_shared_and_added_to_that_context_alone() -> None:
    shared, first, second = linear(taught(50, context=1))
    assert shared.any() and second.any() and not first.any()
    opposed = taught(400)
    numbers = np.random.default_rng(2)
    for _ in range(400):
        slate = numbers.normal(size=(12, len(NAMES)))
        opposed.learn_slate(slate, int(np.argmin(slate @ PLANTED)), 1)
    shared, first, second = linear(opposed)
    assert np.dot(shared + first, PLANTED) > 0 > np.dot(shared + second, PLANTED)


def test_a_loaded_ranker_is_equal_and_learns_on_equally() -> None:
    ranker, again = taught(30), ListwiseRanker(len(NAMES), 2)
    again.load(ranker.dump())
    assert again.dump() == ranker.dump()
    assert again.slates == 30
    assert taught(30, 2, again).dump() == taught(30, 2, ranker).dump()


def test_its_record_is_readable_without_river() -> None:
    record = Weights.load(taught(5).dump())
    assert record == taught(5).weights() and record.slates == 5
    assert len(record.layers) == len(record.squares) == 4 * (3 * len(NAMES) + (1 + len(NAMES) + 2) * WIDTH)


def test_a_tombstone_forgets_all() -> None:
    ranker = taught(5)
    ranker.load(None)
    assert ranker.dump() == ListwiseRanker(len(NAMES), 2).dump()


def test_two_facts_may_mean_more_together_than_each_alone() -> None:
    """Only what is either strong or weak, not both and not neither, is chosen: no linear ranker can tell."""
    ranker, numbers = ListwiseRanker(2, 1), np.random.default_rng(1)
    for _ in range(3_000):
        slate = numbers.integers(0, 2, (12, 2)).astype(float)
        either = np.flatnonzero(slate[:, 0] != slate[:, 1])
        if len(either):
            ranker.learn_slate(slate, int(numbers.choice(either)), 0)
    scorer = merged([ranker.weights()])
    assert scorer is not None
    neither, one, other, both = scorer.scores(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), 0)
    assert min(one, other) > max(neither, both) + 1


def test_partitions_add_up_to_one_ranker() -> None:
    ranker, other = taught(300), taught(100, seed=5)
    values = np.random.default_rng(3).normal(size=(50, len(NAMES)))
    alone = merged([ranker.weights()])
    twice = merged([ranker.weights(), ranker.weights()])
    both = merged([ranker.weights(), other.weights()])
    assert alone is not None and twice is not None and both is not None
    assert np.allclose(alone.scores(values, 1), twice.scores(values, 1), atol=1e-4)
    assert np.corrcoef(both.scores(values, 0), values @ PLANTED)[0, 1] > 0.9
