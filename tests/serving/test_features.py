"""Features: one column a fact, finite, what float16 can hold, whatever the sources say."""

from inspect import signature

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.ranks import ABSENT
from serving.client import PERSONAL
from serving.features import COMPARED, DEEP, FEATURES, POPULAR, RANKER, SOURCES, features


def facts(n: int, **given_: object) -> list[np.ndarray]:
    """Nothing is known of n candidates but what is given."""
    known = {name: np.zeros(n) for name in signature(features).parameters}
    known |= {"compared": np.zeros((len(COMPARED), n), np.float32), "popularity": np.zeros((5, n)), "deep": np.full(n, np.nan)}
    for name, column in given_.items():
        if name in COMPARED:
            known["compared"][COMPARED.index(name)] = column
        else:
            known[name] = np.asarray(column, float)
    return list(known.values())


def columns(values: np.ndarray) -> dict[str, list[float]]:
    return {name: values[:, at].astype(float).tolist() for at, name in enumerate(FEATURES)}


def test_the_order_of_sources_and_features_is_part_of_the_wire_format() -> None:
    """Append only: logged impressions and the ranker's state are read by it."""
    assert SOURCES[:12] == (
        "deep", "after", "covisited", "neighbours", "popular_100", "popular_500", "popular_2000", "popular_10000",
        "popular_ever", "fresh", "history", "ranker",
    )  # fmt: skip
    assert FEATURES[:24] == (
        "deep_score", "deep_rank", "next_share", "after_share", "after_rank", "after_log", "last_share", "covisited_share",
        "covisited_rank", "covisited_log", "neighbours_share", "neighbours_rank", "neighbours_log", "popular_100", "popular_500",
        "popular_2000", "popular_10000", "popular_ever", "freshness", "age", "idle", "own", "own_last", "affinity",
    )  # fmt: skip
    assert (DEEP, RANKER, POPULAR) == (0, 11, (4, 5, 6, 7, 8))


@given(st.integers(0, 12), st.integers(0, 99), st.booleans())
def test_values_are_finite_float16_one_row_an_item_whatever_the_sources_say(n: int, seed: int, deep: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = {name: rng.exponential(100, n) * rng.integers(0, 2, n) for name in COMPARED}
    found = features(
        *facts(
            n, **counts, popularity=rng.random((5, n)), age_days=rng.exponential(1e4, n), idle=np.where(rng.random(n) < 0.5, np.inf, 1e7),
            own=rng.integers(0, 50, n), own_ever=rng.integers(0, 600, n), own_since=rng.integers(0, 600, n), affinity=rng.random(n),
            deep=np.where(rng.random(n) < 0.5, rng.normal(0, 1e5, n), np.nan) if deep else np.full(n, np.nan),
        )
    )  # fmt: skip
    assert (found.shape, found.dtype) == ((n, len(FEATURES)), np.float32)
    assert np.array_equal(found, found.astype(np.float16))  # what is logged is what was scored
    assert np.isfinite(found).all()
    assert np.abs(found).max(initial=0.0) < 20


def test_each_value_stands_in_its_column() -> None:
    popularity = np.zeros((3, 5))
    popularity[1], popularity[2, 0] = [1.0, 0.5, 0.1, 0.0, 1.0], 1.0
    found = columns(
        features(
            *facts(
                3, deep=[3.0, 1.0, np.nan], deep_rank=[0, 1, ABSENT], next=[0, 0.5, 0.125], after=[0, 1, 1], last=[1, 0, 4],
                covisited=[0, 8, 2], taste=[3, 0, 12], ease=[-1, 2, 0.5], basket=[0, 2, 6], neighbours=[9, 4, 1], popularity=popularity.T,
                age_days=[0.0, 1.0, 3.0], idle=[0, 99, np.inf],
                own=[0, 1, 0], own_ever=[0, 3, 1], own_since=[0, 2, 60], affinity=[0.25, 0, 0],
            )
        )
    )  # fmt: skip
    near = {name: pytest.approx(values, abs=2e-3) for name, values in {
        "deep_score": [0.5, -0.5, -1.0], "deep_rank": [1.0, 0.5, 0.0], "next_share": [0, 1, 0.5],
        "after_share": [0, 1, 1], "after_rank": [0, 1, 1], "after_log": np.log1p([0, 10, 10]),
        "last_share": [0.5, 0, 1], "covisited_share": [0, 1, 0.5], "covisited_rank": [0, 1, 0.5], "covisited_log": np.log1p([0, 80, 20]),
        "neighbours_share": [1, 2 / 3, 1 / 3], "neighbours_rank": [1, 1 / 2, 1 / 3], "neighbours_log": np.log1p([90, 40, 10]),
        "popular_100": [0, 1, 1], "popular_500": [0, np.log(51) / np.log(101), 0], "popular_2000": [0, np.log(11) / np.log(101), 0],
        "popular_10000": [0, 0, 0], "popular_ever": [0, 1, 0],
        "freshness": [1, 0.5, 0.25], "age": np.log1p([0, 1, 3]) / 5, "idle": np.log1p([0, 99, 1e9]) / 10,
        "own": [0, np.log(2), 0], "own_last": [0, 0.5, 1 / 60], "affinity": [0.25, 0, 0],
        **{f"popular_{name}_share": popularity[:, at] for at, name in enumerate(("100", "500", "2000", "10000", "ever"))},
        "own_ever": np.log1p([0, 3, 1]), "own_since": np.log1p([0, 2, 60]) / 6,
        "taste_share": [0.5, 0, 1], "taste_rank": [0.5, 0, 1], "taste_log": np.log1p([30, 0, 120]),
        "ease_share": [0, 1, 0.5], "ease_rank": [0, 1, 0.5], "ease_log": np.log1p([0, 20, 5]),
        "basket_share": [0, np.sqrt(1 / 3), 1], "basket_rank": [0, 0.5, 1], "basket_log": np.log1p([0, 20, 60]),
    }.items()}  # fmt: skip
    assert found == near and found.keys() == set(FEATURES)


def test_equal_facts_give_equal_values_in_whatever_order_the_candidates_stand() -> None:
    rng = np.random.default_rng(3)
    after = rng.integers(0, 4, 50).astype(float)
    order = rng.permutation(50)
    assert np.array_equal(features(*facts(50, after=after))[order], features(*facts(50, after=after[order])))


def test_without_a_deep_model_its_columns_are_zero_for_all() -> None:
    assert not features(*facts(2))[:, :18].any()


def test_a_client_takes_every_source_that_starts_from_the_user_for_personal() -> None:
    shared = {"fresh", "ranker", *(SOURCES[place] for place in POPULAR)}
    assert set(PERSONAL) == set(SOURCES) - shared
