"""The gate: sabotaged candidates are refused with a reason, an equal or a better one passes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.evaluation import ranks
from learners.histories import Questions
from serving.gate import COVERAGE, SLICE, Cost, Judged, judge, tried

N, ITEMS = 2_000, 400
SAME = Cost(20.0, 1.0, ITEMS)
LAST = 1 << 40


def of_live(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).geometric(0.08, N) - 1


def judged(**other: Any) -> Judged:
    """A candidate equal to the live model, with nothing against it."""
    rng = np.random.default_rng(2)
    base = Judged(of_live(), of_live(), of_live(3) + 5, rng.integers(1, 90, N), rng.integers(0, 60, N), 0.5, True, SAME, SAME)
    return replace(base, **other)


def test_an_equal_candidate_passes_and_its_figures_are_told() -> None:
    verdict = judge(judged())
    assert (verdict.passed, verdict.reasons) == (True, [])
    figures = verdict.figures
    assert figures["questions"] == N
    assert (
        figures["ndcg10"]
        == figures["live_ndcg10"]
        == pytest.approx(np.where(of_live() < 10, 1 / np.log2(of_live() + 2.0), 0).mean(), abs=1e-5)
    )
    assert figures["hr10"] == pytest.approx((of_live() < 10).mean(), abs=1e-5)
    assert figures["difference"] == {"n": N, "mean": 0.0, "lower95": 0.0, "upper95": 0.0}


def test_a_better_candidate_passes() -> None:
    assert judge(judged(candidate=np.maximum(of_live() - 2, 0))).passed


def test_weights_that_an_earlier_version_had_are_refused_however_good() -> None:
    verdict = judge(judged(candidate=np.maximum(of_live() - 2, 0), had_by=3))
    assert (verdict.passed, verdict.reasons) == (False, ["its weights are those of version 3"])


def test_another_model_that_is_as_good_passes_for_lack_of_evidence_of_harm() -> None:
    passed = [judge(judged(candidate=of_live(seed), lengths=np.full(N, 20), popularity=np.full(N, 20))).passed for seed in range(10, 50)]
    assert sum(passed) > 0.85 * len(passed)


def asked() -> Questions:
    rng = np.random.default_rng(4)
    histories = rng.integers(1, ITEMS + 1, (N, 2, 50))
    return Questions(histories, rng.integers(1, ITEMS + 1, N), np.full(N, 20), np.full(N, 20), False)


def scores_of(kind: str) -> np.ndarray:
    """Scores of a model that ranks the right item well, sabotaged."""
    rng = np.random.default_rng(5)
    good = rng.normal(size=(N, ITEMS + 1)).astype(np.float32)
    good[np.arange(N), asked().answers] += 3.0
    return {"good": good, "constant": np.zeros_like(good), "inverted": -good, "nan": np.full_like(good, np.nan)}[kind]


def ranked(kind: str) -> np.ndarray:
    values = iter(np.array_split(scores_of(kind), range(256, N, 256)))
    return ranks(lambda _: next(values).copy(), asked())


@pytest.mark.parametrize("kind", ["constant", "inverted", "nan"])
@pytest.mark.parametrize("first", [False, True])
def test_a_sabotaged_candidate_is_refused_with_a_reason(kind: str, first: bool) -> None:
    good = ranked("good")
    case = judged(live=None if first else good, popular=good, lengths=asked().lengths, popularity=asked().popularity)
    assert judge(replace(case, candidate=good)).passed
    verdict = judge(replace(case, candidate=ranked(kind), finite=bool(np.isfinite(scores_of(kind)).all())))
    assert not verdict.passed
    assert any("ndcg10 0.0" in reason for reason in verdict.reasons)
    assert ("scores are not finite" in verdict.reasons) == (kind == "nan")


def test_scores_that_are_no_numbers_are_reason_enough() -> None:
    assert judge(judged(finite=False)).reasons == ["scores are not finite"]


def test_a_model_that_always_names_the_same_few_is_refused() -> None:
    assert judge(judged(coverage=COVERAGE)).passed
    verdict = judge(judged(coverage=0.9 * COVERAGE))
    assert verdict.reasons == ["names only 0.90% of the vocabulary"]


def test_without_questions_nothing_passes() -> None:
    none = np.empty(0, np.int64)
    for live in (none, None):
        verdict = judge(Judged(none, live, none, none, none, 0.5, True, SAME, SAME))
        assert verdict.reasons == ["no questions: nobody with a history came back"]
        assert verdict.figures["ndcg10"] == 0.0


def test_a_difference_beyond_doubt_is_refused_and_one_within_it_is_not() -> None:
    rng = np.random.default_rng(6)
    slightly = np.where(rng.random(N) < 0.3, of_live() + 1, of_live())
    assert any("of the live model" in r for r in judge(judged(candidate=slightly)).reasons)
    noisy = rng.permutation(of_live())
    few = slice(0, 60)
    small = Judged(noisy[few], of_live()[few], of_live()[few], np.full(60, 20), np.full(60, 20), 0.5, True, SAME, SAME)
    assert judge(small).passed


def test_a_quarter_less_is_harm_however_few_the_questions() -> None:
    live, mine = np.array([0, LAST, 3, LAST]), np.array([LAST, 4, 3, LAST])
    case = Judged(mine, live, live, np.full(4, 20), np.full(4, 20), 0.5, True, SAME, SAME)
    verdict = judge(case)
    assert verdict.figures["difference"]["upper95"] > 0
    assert len(verdict.reasons) == 1


@pytest.mark.parametrize(
    ("name", "lengths", "popularity"),
    [("new_users", (5, 20), (20, 20)), ("heavy_users", (50, 20), (20, 20)), ("tail_items", (20, 20), (9, 20))],
)
def test_a_slice_that_loses_while_the_rest_gains_is_refused_where_it_is_large_enough(
    name: str, lengths: tuple[int, int], popularity: tuple[int, int]
) -> None:
    live = np.full(N, 4)

    def case(n: int) -> Judged:
        hurt = np.arange(N) < n
        return Judged(
            np.where(hurt, live + np.arange(N) % 3, 1),
            live,
            live,
            np.where(hurt, *lengths),
            np.where(hurt, *popularity),
            0.5,
            True,
            SAME,
            SAME,
        )

    verdict = judge(case(SLICE))
    assert [reason.split(":")[0] for reason in verdict.reasons] == [f"slice {name}"]
    assert verdict.figures[f"slice_{name}"]["n"] == SLICE
    assert judge(case(SLICE - 1)).passed


def test_a_first_model_needs_half_of_what_popularity_reaches() -> None:
    popular = np.zeros(N, np.int64)
    half = np.where(np.arange(N) % 2 == 0, 0, LAST)
    assert judge(judged(live=None, popular=popular, candidate=half)).passed
    verdict = judge(judged(live=None, popular=popular, candidate=np.where(np.arange(N) == 0, LAST, half)))
    assert "less than half of decayed popularity's" in verdict.reasons[0]
    assert "difference" not in verdict.figures


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        (Cost(93, 1, ITEMS), "93 MB, the live model has 20"),
        (Cost(20, 3.3, ITEMS), "3.3 ms a question, the live model takes 1.0"),
        (Cost(92, 3.2, ITEMS), ""),
        (Cost(150, 6.2, 2 * ITEMS), ""),
    ],
)
def test_a_candidate_far_larger_or_slower_than_the_live_model_is_refused(cost: Cost, reason: str) -> None:
    assert judge(judged(cost=cost)).reasons == ([reason] if reason else [])
    first = judge(judged(cost=cost, live=None, live_cost=None))
    assert first.passed and (first.figures["megabytes"], first.figures["ms"]) == (cost.megabytes, cost.ms)


def test_two_models_are_held_against_each_other_and_popularity_on_the_same_questions() -> None:
    def one(kind: str) -> Any:
        of = dict(zip(map(bytes, asked().histories), scores_of(kind), strict=True))
        return lambda histories: np.stack([of[bytes(history)] for history in histories])

    popular = np.linspace(1, 0, ITEMS + 1, dtype=np.float32)
    found = tried(one("good"), one("inverted"), popular, asked(), SAME, None)
    assert np.array_equal(found.candidate, ranked("good"))
    assert found.live is not None and np.array_equal(found.live, ranked("inverted"))
    assert np.array_equal(found.popular, ranks(lambda histories: np.tile(popular, (len(histories), 1)), asked()))
    assert found.coverage == 1.0 and found.finite and not tried(one("nan"), None, popular, asked(), SAME, None).finite
    assert tried(one("constant"), None, popular, asked(), SAME, None).coverage < 0.03
