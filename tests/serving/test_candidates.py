"""Candidates: the best of each source that may be shown, in order, and their union, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.profiles import RECENT
from learners.ranks import ABSENT
from serving.candidates import MOST, NEWEST, TAKEN, gathered
from serving.features import POPULAR, SOURCES

N, NAMELESS = 40, 3  # rows, and items in none
SCORED = ("after", "covisited", "taste", "basket", "neighbours", "ease")


class Asked:
    """A state drawn from a seed, and what is gathered from it."""

    def __init__(self, seed: int, repeats: bool, most: np.ndarray = MOST, more: tuple[int, ...] = ()) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.scores = {name: rng.integers(0, 9, N) * rng.random() for name in SCORED}
        self.named = {name: rng.permutation(N) for name in ("near", "neighbours", "ease")}
        self.open_to = rng.random(N) < 0.8
        had = rng.integers(-1, N + 3, 0 if repeats else 14).astype(np.int32)
        self.ties, self.chosen = rng.permutation(N), rng.integers(-1, N + 3, rng.integers(0, 90)).astype(np.int32)
        self.wanted = self.open_to & ~np.isin(np.arange(N), had if repeats else [*had, *self.chosen])
        lists = [rng.permutation(np.arange(-1, N + NAMELESS))[: rng.integers(0, N)] for _ in range(2)]
        self.deep, self.fresh = lists
        self.deep_scores = rng.random(len(self.deep)).astype(np.float32)
        self.popular = np.stack([rng.permutation(np.arange(-1, N)) for _ in POPULAR])
        self.counts = np.zeros((4, N))
        self.keys, self.ranks, self.scored, self.ranked = gathered(
            self.deep, self.deep_scores, self.fresh, self.popular, np.array(more, np.int64), self.chosen, self.named["near"],
            self.scores["after"], self.scores["covisited"], self.scores["taste"], self.scores["basket"], self.named["neighbours"],
            self.scores["neighbours"], self.named["ease"], self.scores["ease"], self.open_to, had, repeats, self.ties,
            N + NAMELESS, most, self.counts,
        )  # fmt: skip

    def list_of(self, source: int) -> list[int]:
        """What it named, best first, by the ranks."""
        places = [place for place in np.argsort(self.ranks[:, source], kind="stable") if self.ranks[place, source] != ABSENT]
        return self.keys[places].tolist()


def shown(keys: np.ndarray, wanted: np.ndarray) -> list[int]:
    return [key for key in keys.tolist() if key >= N or (key >= 0 and wanted[key])]


@given(st.integers(0, 1 << 30), st.booleans())
def test_each_source_names_its_best_that_may_be_shown(seed: int, repeats: bool) -> None:
    made = Asked(seed, repeats)
    past = [row for row in made.chosen.tolist() if 0 <= row < N]
    latest = list(dict.fromkeys(reversed(past)))
    for source, name in enumerate(SOURCES):
        k = TAKEN.get(name, 0)
        if name in SCORED:
            best = [row for row in range(N) if made.wanted[row] and made.scores[name][row] > 0]
            wanted = sorted(best, key=lambda row: (-np.float32(made.scores[name][row]), made.ties[row]))[:k]
        elif name == "history":
            recent = [row for row in made.chosen[-RECENT:].tolist() if 0 <= row < N and made.wanted[row]]
            often = sorted((row for row in latest if made.wanted[row]), key=lambda row: (-past.count(row), latest.index(row)))[:k]
            wanted = list(dict.fromkeys([*list(dict.fromkeys(reversed(recent)))[:NEWEST], *often]))[:k] if repeats else []
        elif source in POPULAR:
            wanted = shown(made.popular[source - POPULAR[0]], made.wanted)[:k]
        else:
            wanted = shown({"deep": made.deep, "fresh": made.fresh}.get(name, np.empty(0)), made.wanted)[:k]
        assert made.list_of(source) == wanted, name


@given(st.integers(0, 1 << 30), st.booleans())
def test_their_union_holds_each_key_once_in_the_order_in_which_it_was_named(seed: int, repeats: bool) -> None:
    made = Asked(seed, repeats)
    assert made.keys.tolist() == list(dict.fromkeys(key for source in range(len(SOURCES)) for key in made.list_of(source)))
    assert (made.ranks.dtype, made.ranks.shape) == (np.uint8, (len(made.keys), len(SOURCES)))


@given(st.integers(0, 1 << 30))
def test_candidates_that_the_model_named_have_its_score_and_rank_and_others_none(seed: int) -> None:
    made = Asked(seed, True)
    of = {key: rank for rank, key in enumerate(made.deep.tolist()) if key >= 0}
    for key, score, rank in zip(made.keys.tolist(), made.scored.tolist(), made.ranked.tolist(), strict=True):
        assert (np.isnan(score), rank) == (True, 0) if key not in of else (score, rank) == (made.deep_scores[of[key]], of[key])


@given(st.integers(0, 1 << 30))
def test_choices_are_counted_lately_and_ever_and_placed(seed: int) -> None:
    made = Asked(seed, True)
    past, late = made.chosen.tolist(), made.chosen[-RECENT:].tolist()
    for row in range(N):
        last = len(past) - past[::-1].index(row) if row in past else 0
        assert made.counts[:3, row].tolist() == [late.count(row), past.count(row), last]


def test_what_is_asked_for_beyond_comes_after_all_that_is_popular() -> None:
    made = Asked(1, True)
    rest = tuple(sorted(set(range(N)) - set(made.keys.tolist()))) or (N + 1, N + 2)
    more = Asked(1, True, more=rest)
    assert more.list_of(POPULAR[-1]) == [*made.list_of(POPULAR[-1]), *rest]


@pytest.mark.parametrize("rank", [253, 254, 299])
def test_a_rank_beyond_a_byte_is_not_absence(rank: int) -> None:
    n, nobody, none = 300, np.empty(0, np.int64), np.zeros(300)
    every, counts = np.ones(n, np.bool_), np.zeros((4, n))
    _, ranks, _, _ = gathered(
        np.arange(n), np.ones(n, np.float32), nobody, np.full((5, 1), -1), nobody, np.empty(0, np.int32), nobody, none, none, none, none,
        nobody, none, nobody, none, every, np.empty(0, np.int32), True, np.arange(n), n, np.where(np.arange(len(SOURCES)) == 0, n, 0),
        counts,
    )  # fmt: skip
    assert ranks[rank, 0] == min(rank, ABSENT - 1)
