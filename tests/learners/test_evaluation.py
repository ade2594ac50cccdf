"""Evaluation against brute force: ranks, NDCG and paired differences."""

from math import log2, sqrt
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.evaluation import interval, metrics, ndcg, paired, place, ranks
from learners.histories import ITEMS, Questions

LAST = 1 << 40
FEW = [-1.0, 0.0, 0.5, 2.0]  # few values: many ties


def asked(items: list[list[int]], answers: list[int], once: bool) -> Questions:
    n = len(answers)
    return Questions(
        np.stack([np.array(items, np.int64).reshape(n, len(items[0]) if n else 4)] * 2, 1),
        np.array(answers, np.int64),
        np.ones(n, np.int64),
        np.ones(n, np.int64),
        once,
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, Questions]:
    n, width = draw(st.integers(1, 8)), draw(st.integers(2, 12))
    scores = draw(st.lists(st.lists(st.sampled_from(FEW), min_size=width, max_size=width), min_size=n, max_size=n))
    items = draw(st.lists(st.lists(st.integers(0, width - 1), min_size=4, max_size=4), min_size=n, max_size=n))
    answers = draw(st.lists(st.integers(0, width + 2), min_size=n, max_size=n))
    return np.array(scores, np.float32), asked(items, answers, draw(st.booleans()))


def standing_before(scores: np.ndarray, history: set[int], answer: int, once: bool) -> int:
    if not 0 < answer < len(scores):
        return LAST
    rivals = set(range(1, len(scores))) - {answer} - (history if once else set())
    return sum(bool(scores[rival] >= scores[answer]) for rival in rivals)


@given(questions(), st.integers(1, 5))
def test_ranks_equal_counting_one_by_one(made: tuple[np.ndarray, Questions], batch: int) -> None:
    scores, asks = made
    at = 0

    def answer(histories: np.ndarray) -> np.ndarray:
        nonlocal at
        at += len(histories)
        return scores[at - len(histories) : at].copy()

    wanted = [
        standing_before(s, set(h.tolist()), int(a), asks.once)
        for s, h, a in zip(scores, asks.histories[:, ITEMS], asks.answers, strict=True)
    ]
    assert ranks(answer, asks, batch).tolist() == wanted


def test_ties_count_against_the_right_item() -> None:
    assert ranks(lambda h: np.zeros((len(h), 6), np.float32), asked([[0], [0]], [1, 5], False)).tolist() == [4, 4]


def test_padding_never_stands_before_anything() -> None:
    scores = np.array([[9.0, 1.0, 0.0]], np.float32)
    assert ranks(lambda h: scores.copy(), asked([[0]], [1], False)).tolist() == [0]


def test_what_the_history_holds_is_left_out_only_where_nothing_comes_back() -> None:
    scores = np.array([[0.0, 3.0, 2.0, 1.0]], np.float32)
    assert ranks(lambda h: scores.copy(), asked([[1, 2]], [3], True)).tolist() == [0]
    assert ranks(lambda h: scores.copy(), asked([[1, 2]], [3], False)).tolist() == [2]


def test_an_unknown_answer_and_one_whose_score_is_no_number_stand_last() -> None:
    scores = np.array([[0.0, np.nan, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]], np.float32)
    assert ranks(lambda h: scores.copy(), asked([[0]] * 3, [1, 0, 3], False)).tolist() == [LAST] * 3


def test_no_questions_give_no_ranks() -> None:
    assert ranks(lambda h: np.zeros((len(h), 3), np.float32), asked([], [], False)).tolist() == []


@given(st.lists(st.one_of(st.integers(0, 15), st.just(LAST)), max_size=20), st.integers(1, 12))
def test_ndcg_is_the_discount_of_the_one_right_item(given_ranks: list[int], k: int) -> None:
    wanted = [1 / log2(r + 2) if r < k else 0.0 for r in given_ranks]
    assert ndcg(np.array(given_ranks, np.int64), k).tolist() == pytest.approx(wanted)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_paired_equals_the_textbook(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(x) for x in zip(*pairs, strict=True))
    d = [x - y for x, y in pairs]
    error = stdev(d) / sqrt(len(d))
    found = paired(a, b, 1.5)
    assert found.n == len(d)
    assert (found.mean, found.lower, found.upper) == pytest.approx((fmean(d), fmean(d) - 1.5 * error, fmean(d) + 1.5 * error), abs=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_questions_bound_nothing(n: int) -> None:
    found = paired(np.ones(n), np.zeros(n))
    assert (found.n, found.mean, found.lower, found.upper) == (n, float(n), -np.inf, np.inf)


def test_the_default_bounds_hold_with_95_percent_each() -> None:
    rng = np.random.default_rng(1)
    found = [paired(d, np.zeros(50)) for d in rng.normal(0.3, 1.0, (2000, 50))]
    assert np.mean([f.upper < 0.3 for f in found]) == pytest.approx(0.05, abs=0.02)
    assert np.mean([f.lower > 0.3 for f in found]) == pytest.approx(0.05, abs=0.02)


def test_a_history_row_beyond_a_models_vocabulary_hides_nothing_of_it() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    assert ranks(lambda items: scores, asked([[7]], [1], once=True)).tolist() == [2]
    assert scores.tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_metrics_are_those_of_their_definitions() -> None:
    found = metrics(np.array([0, 1, 9, 10, 19, 1 << 40]))
    assert found["hr10"] == 0.5 and found["hr20"] == round(5 / 6, 4)
    assert found["ndcg10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 6, abs=1e-4)
    assert found["mrr10"] == pytest.approx((1 + 1 / 2 + 1 / 10) / 6, abs=1e-4)


def test_an_interval_covers_the_mean_and_is_wider_where_users_differ() -> None:
    values = np.repeat([0.0, 1.0], 200)
    low, high = interval(values, np.arange(400), 1)
    assert low < 0.5 < high and high - low == pytest.approx(2 * 1.96 * 0.5 / 20, abs=0.02)
    low, high = interval(values, np.repeat(np.arange(8), 50), 1)
    assert high - low > 0.4


def test_a_place_is_counted_from_0_and_ends_at_k() -> None:
    assert (place(["a", "b"], "b", 20), place(["a"], "z", 20), place([*map(str, range(40))], "30", 20)) == (1, 20, 20)
