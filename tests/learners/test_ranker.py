"""The listwise ranker: it finds planted weights, in the order of its features, and survives the state topic exactly."""

from random import Random

import numpy as np

from learners.ranker import NEGATIVES, ListwiseRanker
from learners.weights import Weights

NAMES = ("noise", "strong", "against", "weak")
PLANTED = np.array([0.0, 3.0, -2.0, 1.0])


def taught(slates: int, seed: int = 1, ranker: ListwiseRanker | None = None, context: int = 0) -> ListwiseRanker:
    ranker, rng, numbers = ranker or ListwiseRanker(NAMES, 2), Random(seed), np.random.default_rng(seed)
    for _ in range(slates):
        slate = numbers.normal(size=(12, len(NAMES))).astype(np.float32)
        chosen = int(np.argmax(slate @ PLANTED + numbers.gumbel(size=12)))
        ranker.learn_slate(slate, chosen, rng, context)
    return ranker


def test_it_learns_the_planted_weights_in_the_order_of_the_names() -> None:
    weights = taught(400).weights()[:2].sum(0)
    assert np.dot(weights, PLANTED) / np.linalg.norm(weights) / np.linalg.norm(PLANTED) > 0.97
    assert np.argsort(weights).tolist() == np.argsort(PLANTED).tolist()


def test_before_the_first_slate_all_weights_are_zero() -> None:
    ranker = ListwiseRanker(NAMES, 2)
    assert (ranker.weights().tolist(), ranker.slates) == ([[0.0] * 4] * 3, 0)


def test_what_a_context_teaches_is_shared_and_added_to_that_context_alone() -> None:
    shared, first, second = taught(50, context=1).weights()
    assert shared.any() and second.any() and not first.any()
    opposed, against = taught(400), Random(2)
    numbers = np.random.default_rng(2)
    for _ in range(400):
        slate = numbers.normal(size=(12, len(NAMES)))
        opposed.learn_slate(slate, int(np.argmin(slate @ PLANTED)), against, 1)
    shared, first, second = opposed.weights()
    assert np.dot(shared + first, PLANTED) > 0 > np.dot(shared + second, PLANTED)


def test_a_loaded_ranker_is_equal_and_learns_on_equally() -> None:
    ranker, again = taught(30), ListwiseRanker(NAMES, 2)
    again.load(ranker.dump())
    assert again.dump() == ranker.dump()
    assert again.slates == 30
    assert taught(30, 2, again).dump() == taught(30, 2, ranker).dump()


def test_its_record_is_readable_without_river() -> None:
    ranker = taught(5)
    record = Weights.load(ranker.dump())
    assert (record.slates, record.array().tolist()) == (5, ranker.weights().tolist())


def test_a_tombstone_forgets_all() -> None:
    ranker = taught(5)
    ranker.load(None)
    assert ranker.dump() == ListwiseRanker(NAMES, 2).dump()


def test_negatives_are_drawn_from_the_slate_by_the_rng_handed_in() -> None:
    slate = np.eye(30)
    one, other = ListwiseRanker([str(n) for n in range(30)], 1), ListwiseRanker([str(n) for n in range(30)], 1)
    one.learn_slate(slate, 0, Random(1), 0)
    other.learn_slate(slate, 0, Random(1), 0)
    assert one.dump() == other.dump()
    assert (one.weights()[0] < 0).sum() == NEGATIVES
    other.load(None)
    other.learn_slate(slate, 0, Random(2), 0)
    assert one.dump() != other.dump()
