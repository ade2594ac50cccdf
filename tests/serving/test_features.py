"""Features: the union of the sources' lists, and finite float16 values whatever they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.features import ABSENT, DEEP, FEATURES, POPULAR, RANKER, SOURCES, Candidates, features, union

Scored = list[tuple[str, float]]
names = st.sampled_from([f"i{n}" for n in range(15)])


def listed(low: float) -> st.SearchStrategy[Scored]:
    scores = st.floats(low, 1e6, width=32)
    pairs = st.lists(st.tuples(names, scores), max_size=10, unique_by=lambda p: p[0])
    return pairs.map(lambda ps: sorted(ps, key=lambda p: -p[1]))


lists = st.tuples(*(listed(-1e6 if name == "deep" else 0.0) for name in SOURCES))


def valued(candidates: Candidates, **given_: np.ndarray) -> np.ndarray:
    n = len(candidates.items)
    columns = {"popularity": np.zeros((n, 5)), "age_days": np.zeros(n), "own": np.zeros(n), "affinity": np.zeros(n)} | given_
    return features(candidates, **{name: np.asarray(column, np.float32) for name, column in columns.items()})


def test_the_order_of_sources_and_features_is_part_of_the_wire_format() -> None:
    """Append only: logged impressions and the ranker's state are read by it."""
    assert SOURCES[:12] == (
        "deep", "after", "covisited", "neighbours", "popular_100", "popular_500", "popular_2000", "popular_10000",
        "popular_ever", "fresh", "history", "ranker",
    )  # fmt: skip
    assert FEATURES[:17] == (
        "deep_score", "deep_rank", "after_share", "after_rank", "covisited_share", "covisited_rank", "neighbours_share",
        "neighbours_rank", "popular_100", "popular_500", "popular_2000", "popular_10000", "popular_ever", "trend",
        "freshness", "own", "affinity",
    )  # fmt: skip
    assert (DEEP, RANKER, POPULAR) == (0, 11, (4, 5, 6, 7, 8))


@given(lists)
def test_a_union_holds_every_named_item_once_with_each_sources_rank_and_score(named: tuple[Scored, ...]) -> None:
    found = union(named)
    assert found.items == list(dict.fromkeys(item for entries in named for item, _ in entries))
    assert (found.ranks.dtype, found.scores.dtype) == (np.uint8, np.float32)
    assert found.ranks.shape == found.scores.shape == (len(found.items), len(SOURCES))
    for source, entries in enumerate(named):
        place = {item: (rank, score) for rank, (item, score) in enumerate(entries)}
        for row, item in enumerate(found.items):
            assert (found.ranks[row, source], found.scores[row, source]) == place.get(item, (ABSENT, 0.0))


def test_a_rank_beyond_a_byte_is_not_absence() -> None:
    found = union([[(f"i{n}", 0.0) for n in range(300)]])
    assert found.ranks[253:256, 0].tolist() == [253, 254, 254]
    assert found.ranks[299, 0] == ABSENT - 1


@given(lists, st.integers(0, 99))
def test_values_are_finite_float16_one_row_an_item_whatever_the_sources_say(named: tuple[Scored, ...], seed: int) -> None:
    candidates, rng = union(named), np.random.default_rng(seed)
    n = len(candidates.items)
    found = valued(
        candidates, popularity=rng.random((n, 5)), age_days=rng.exponential(1e4, n), own=rng.integers(0, 50, n), affinity=rng.random(n)
    )
    assert (found.shape, found.dtype) == ((n, len(FEATURES)), np.float16)
    assert np.isfinite(found).all()
    assert np.abs(found).max(initial=0.0) < 20


def test_each_value_stands_in_its_column() -> None:
    named: list[Scored] = [[] for _ in SOURCES]
    named[DEEP] = [("a", 3.0), ("b", 1.0)]
    named[SOURCES.index("covisited")] = [("b", 8.0), ("c", 2.0)]
    candidates = union(named)
    assert candidates.items == ["a", "b", "c"]
    popularity = np.zeros((3, 5))
    popularity[1], popularity[2, 0] = [1.0, 0.5, 0.1, 0.0, 1.0], 1.0
    found = valued(candidates, popularity=popularity, age_days=[0.0, 1.0, 3.0], own=[0, 1, 0], affinity=[0.25, 0, 0])
    column = {name: found[:, at].astype(float).tolist() for at, name in enumerate(FEATURES)}
    assert column["deep_score"] == [0.5, -0.5, -1.0]
    assert column["deep_rank"] == [1.0, 0.5, 0.0]
    assert column["covisited_share"] == [0.0, 1.0, 0.5]
    assert column["covisited_rank"] == [0.0, 1.0, 0.5]
    assert column["after_share"] == column["after_rank"] == column["neighbours_share"] == column["neighbours_rank"] == [0.0] * 3
    assert column["popular_100"] == [*column["trend"][:1], 1.0, 1.0]
    assert column["popular_500"] == pytest.approx([0.0, np.log(51) / np.log(101), 0.0], abs=1e-3)
    assert column["popular_2000"] == pytest.approx([0.0, np.log(11) / np.log(101), 0.0], abs=1e-3)
    assert column["popular_10000"] == [0.0, 0.0, 0.0]
    assert column["popular_ever"] == [0.0, 1.0, 0.0]
    assert column["trend"] == [0.0, 1.0, 1.0]
    assert column["freshness"] == [1.0, 0.5, 0.25]
    assert column["own"] == pytest.approx([0.0, np.log(2), 0.0], abs=1e-3)
    assert column["affinity"] == [0.25, 0.0, 0.0]


def test_without_a_deep_model_its_columns_are_zero_for_all() -> None:
    named: list[Scored] = [[] for _ in SOURCES]
    named[SOURCES.index("fresh")] = [("a", 1.0), ("b", 1.0)]
    assert not valued(union(named))[:, :8].any()
