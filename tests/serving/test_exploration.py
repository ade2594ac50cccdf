"""Plackett-Luce: what is drawn, how often, and what is said about it."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.exploration import plackett_luce

SCORES = np.array([1.0, 0.2, -0.5, 0.7], np.float32)


def chain(scores: np.ndarray, order: tuple[int, ...], temperature: float) -> list[float]:
    """Each draw's probability given those before it."""
    odds = np.exp(scores.astype(float) / temperature)
    return [float(odds[row] / (odds.sum() - odds[list(order[:place])].sum())) for place, row in enumerate(order)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_lists_come_as_often_as_their_propensities_say(temperature: float) -> None:
    rng, n = np.random.default_rng(1), 8_000
    found: dict[tuple[int, ...], int] = {}
    said: dict[tuple[int, ...], float] = {}
    for _ in range(n):
        drawn, propensities = plackett_luce(SCORES, 2, temperature, rng)
        key = tuple(drawn.tolist())
        found[key] = found.get(key, 0) + 1
        said[key] = float(np.prod(propensities))
    for key in permutations(range(4), 2):
        p = float(np.prod(chain(SCORES, key, temperature)))
        assert said[key] == pytest.approx(p, rel=1e-5)
        assert found[key] / n == pytest.approx(p, abs=4.5 * (p * (1 - p) / n) ** 0.5)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_products_of_the_conditionals_sum_to_one_over_all_permutations(n: int) -> None:
    rng, said = np.random.default_rng(2), {}
    while len(said) < len(list(permutations(range(n)))):
        drawn, propensities = plackett_luce(SCORES[:n], n, 2.0, rng)
        said[tuple(drawn.tolist())] = float(np.prod(propensities, dtype=np.float64))
    assert sum(said.values()) == pytest.approx(1.0, abs=1e-6)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=12), st.integers(0, 15), st.floats(0.5, 5), st.integers(0, 99))
def test_propensities_are_the_conditionals_of_what_was_drawn(scores: list[float], k: int, temperature: float, seed: int) -> None:
    values = np.array(scores, np.float32)
    drawn, propensities = plackett_luce(values, k, temperature, np.random.default_rng(seed))
    assert len(drawn) == len(propensities) == min(k, len(scores))
    assert len(set(drawn.tolist())) == len(drawn)
    assert propensities.tolist() == pytest.approx(chain(values, tuple(drawn.tolist()), temperature), rel=1e-4)


@given(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), max_size=12), st.integers(0, 15), st.sampled_from([0.0, -1.0]))
def test_temperature_zero_is_the_ranking(scores: list[float], k: int, temperature: float) -> None:
    drawn, propensities = plackett_luce(np.array(sorted(scores, reverse=True), np.float32), k, temperature, np.random.default_rng(1))
    assert drawn.tolist() == list(range(len(scores)))[:k]
    assert propensities.tolist() == [1.0] * min(k, len(scores))


def test_a_hot_temperature_draws_uniformly_and_a_cold_one_nearly_ranks() -> None:
    rng = np.random.default_rng(3)
    assert plackett_luce(SCORES, 1, 1e6, rng)[1] == pytest.approx([0.25], rel=1e-4)
    firsts = [plackett_luce(SCORES, 1, 0.02, rng)[0][0] for _ in range(200)]
    assert set(firsts) == {0}


def test_the_same_seed_draws_the_same_list() -> None:
    one, two = (plackett_luce(np.zeros(50, np.float32), 10, 1.0, np.random.default_rng(7))[0].tolist() for _ in range(2))
    assert one == two
    assert one != plackett_luce(np.zeros(50, np.float32), 10, 1.0, np.random.default_rng(8))[0].tolist()


def test_propensities_are_exact_where_one_item_outweighs_all_others() -> None:
    for temperature in (0.05, 0.005):
        scores = np.float32([3, 1, 0.97, 0.95])
        rows, propensities = plackett_luce(scores, 4, temperature, np.random.default_rng(1))
        left = scores.astype(np.float64) / temperature
        for place, row in enumerate(rows):
            rest = rows[place:]
            assert propensities[place] == pytest.approx(np.exp(left[row] - np.logaddexp.reduce(left[rest])), rel=1e-4)
    assert len(plackett_luce(np.empty(0, np.float32), 5, 1.0, np.random.default_rng(1))[0]) == 0
