"""Decayed popularity: half-lives in events, shards, growth, order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.items import Items
from learners.popularity import HALF_LIVES, Popularity


class Popular(Popularity):
    """Popularity that is told names."""

    def __init__(self, shards: int = 1) -> None:
        super().__init__(Items(), 1, shards)

    def learn(self, item: str, at: float = 0.0) -> None:
        self.learn_one(self.items.learn(item), at)


def test_a_count_halves_after_a_half_life_of_other_choices() -> None:
    popular = Popular()
    popular.learn("a", 0.0)
    for _ in range(HALF_LIVES[0]):
        popular.learn("b", 0.0)
    scores = popular.scores()[popular.items.row["a"]]
    assert scores[:2] == pytest.approx([0.5, 0.5 ** (100 / 500)], rel=1e-5)
    assert scores[-1] == pytest.approx(1.0)


def test_the_clock_of_a_shard_runs_that_much_slower() -> None:
    popular = Popular(shards=4)
    popular.learn("a", 0.0)
    for _ in range(25):
        popular.learn("b", 0.0)
    assert popular.scores()[popular.items.row["a"], 0] == pytest.approx(0.5, rel=1e-5)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=150))
def test_scores_equal_the_sum_of_decayed_choices(choices: list[int]) -> None:
    popular = Popular()
    for item in choices:
        popular.learn(str(item), 0.0)
    ages = np.arange(len(choices))[::-1]
    for column, half_life in enumerate(HALF_LIVES):
        wanted = {str(i): float((0.5 ** (ages[np.array(choices) == i] / half_life)).sum()) for i in set(choices)}
        assert dict(zip(popular.items.names, popular.scores()[:, column].tolist(), strict=True)) == pytest.approx(wanted, rel=1e-4)


def test_a_short_half_life_prefers_what_is_chosen_now_and_the_longest_what_was_chosen_most() -> None:
    popular = Popular()
    for item in ["old"] * 600 + ["new"] * 300:
        popular.learn(item, 0.0)
    assert popular.rank(0, 1) == ["new"]
    assert popular.rank(len(HALF_LIVES) - 1, 1) == ["old"]


def test_ties_rank_by_name_and_k_cuts() -> None:
    popular = Popular()
    for item in ("c", "a", "b"):
        popular.load(0, popular.items.learn(item), None)
    assert popular.rank(4, 2) == ["a", "b"]


def test_growth_beyond_the_first_rows_keeps_every_count_and_time() -> None:
    popular = Popular()
    for n in range(300):
        popular.learn(f"i{n}", float(n))
    popular.learn("i7", 3.0)
    assert popular.n().tolist() == [2 if n == 7 else 1 for n in range(300)]
    assert popular.first_seen().tolist() == [3.0 if n == 7 else float(n) for n in range(300)]
    assert popular.scores()[:, -1] == pytest.approx(popular.n().astype(float))


def test_a_forgotten_item_counts_nothing() -> None:
    popular = Popular()
    popular.learn("a", 5.0)
    popular.load(0, popular.items.row["a"], None)
    assert popular.n().tolist() == [0]
    assert popular.scores().tolist() == [[0.0] * len(HALF_LIVES)]
    assert popular.first_seen().tolist() == [np.inf]


def test_an_empty_state_ranks_nothing() -> None:
    popular = Popular()
    assert (popular.rank(0, 5), popular.first_seen().tolist(), popular.scores().shape) == ([], [], (0, len(HALF_LIVES)))


def test_the_oldest_are_those_chosen_longest_ago() -> None:
    popular = Popular()
    for item in "abcab":
        popular.learn(item)
    assert popular.oldest(1).tolist() == [popular.items.row["c"]]
