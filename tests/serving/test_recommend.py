"""An answer is never empty, never shows what may not be shown, and logs what it did."""

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learners.near import rank
from learners.online import Online
from learners.ranks import ABSENT
from learners.weights import LEAST, Layers, Weights
from serving.candidates import NEWEST, Found
from serving.features import CONTEXTS, FEATURES, RANKER, SOURCES
from serving.guard import Guard
from serving.recommend import FRESH_KEPT, SAMPLE, Answer, Ask, Scored, View, answer, reasons
from serving.repeats import Repeats

NOW = 1.7e9
ITEMS = [f"i{n:02}" for n in range(60)]
USERS = [f"u{n}" for n in range(15)]
ONCE = Repeats(5_000, 0, 0.0)
COVISITED = SOURCES.index("covisited")


def viewed(choices: int = 400, once: bool = False, items: list[str] = ITEMS, temperature_of: int = 2) -> View:
    """A stream of `choices`, popular items first; every third item is of the category `third`, all of `any`."""
    rng, view = Random(1), View(Online())
    for at in range(choices):
        item = items[int(rng.random() ** temperature_of * len(items))]
        view.online.learn_one(rng.choice(USERS), item, NOW + 60 * at)
    for n, item in enumerate(items):
        view.catalogue.upsert(item, ["any", "third"] if n % 3 == 0 else ["any"], NOW + n, hidden=False)
    view.watermark = NOW + 60 * choices
    if once:
        view.repeats[0] = ONCE
    view.refresh()
    return view


@pytest.fixture(scope="module")
def views() -> dict[bool, View]:
    return {once: viewed(once=once) for once in (False, True)}


def asked(view: View, ask: Ask, deep: list[tuple[str, float]] | None = None, temperature: float = 0.0, seed: int = 1) -> Answer:
    items, scores = zip(*deep, strict=True) if deep else ((), ())
    return answer(view, ask, Scored(items, np.array(scores, np.float32)), temperature, np.random.default_rng(seed))


def had(view: View, user: str) -> set[str]:
    profile = view.online.profiles.get(user)
    return {view.online.items.names[row] for row in profile.had} if profile else set()


asks = st.builds(
    Ask,
    user=st.sampled_from([*USERS, "stranger", ""]),
    k=st.integers(1, 80),
    recent=st.lists(st.sampled_from([*ITEMS, "unknown"]), max_size=6).map(tuple),
    exclude=st.frozensets(st.sampled_from(ITEMS), max_size=15),
    categories=st.sampled_from([frozenset(), frozenset({"third"}), frozenset({"third", "any"})]),
)
deeps = st.lists(st.sampled_from([*ITEMS, "deep_only"]), unique=True, max_size=20).map(
    lambda items: [(item, 5.0 - n) for n, item in enumerate(items)]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
@given(asks, deeps, st.booleans(), st.sampled_from([0.0, 5.0]))
def test_an_answer_is_whole_and_shows_only_what_may_be_shown(
    views: dict[bool, View], ask: Ask, deep: list[tuple[str, float]], once: bool, temperature: float
) -> None:
    view = views[once]
    made = asked(view, ask, deep, temperature)
    n, named = len(made.items), [*made.items, *made.sample]
    assert 1 <= n <= ask.k
    assert n == len(made.scores) == len(made.propensities) == len(made.reasons)
    assert n == min(ask.k, len(made.candidates))
    assert len(set(made.candidates)) == len(made.candidates) == len(made.ranks)
    assert made.ranks.shape[1] == len(SOURCES)
    assert len(set(named)) == len(named)
    assert set(named) <= set(made.candidates)
    assert len(made.sample) == min(SAMPLE, len(made.candidates) - n)
    assert (made.features.shape, made.features.dtype) == ((len(named), len(FEATURES)), np.float32)
    assert np.isfinite(made.features).all()
    assert ((made.propensities > 0) & (made.propensities <= 1)).all()
    assert set(made.candidates).isdisjoint(ask.exclude)
    assert all(view.catalogue.allows(item, ask.categories) for item in made.candidates)
    assert all(text and {part.split(":")[0] for part in text.split()} <= set(SOURCES) for text in made.reasons)
    news = {i for i in ITEMS if view.catalogue.allows(i, ask.categories)} - ask.exclude - had(view, ask.user) - set(ask.recent)
    if once and news:
        assert set(made.candidates).isdisjoint(had(view, ask.user) | set(ask.recent))


def test_hidden_and_removed_items_are_never_shown_though_all_sources_name_them() -> None:
    view = viewed()
    first = asked(view, Ask("u1")).items[:4]
    view.catalogue.upsert(first[0], ["any"], NOW + 1e6, hidden=True)
    view.catalogue.upsert(first[1], ["any"], NOW + 1e6, hidden=True)
    view.catalogue.remove(first[2])
    view.refresh()
    made = asked(view, Ask("u1", k=100), [(item, 1.0) for item in first])
    assert first[3] in made.items
    assert set(made.candidates).isdisjoint(first[:3])


def test_only_items_of_the_categories_asked_for_are_shown(views: dict[bool, View]) -> None:
    made = asked(views[False], Ask("u1", k=100, categories=frozenset({"third"})), [(item, 1.0) for item in ITEMS])
    assert set(made.items) == set(ITEMS[::3])


def test_what_a_user_had_comes_back_only_where_the_stream_repeats(views: dict[bool, View]) -> None:
    recent = list(views[False].online.profiles.recent("u1"))
    assert set(asked(views[False], Ask("u1", k=100)).items) & set(recent)
    once = asked(views[True], Ask("u1", k=100))
    assert set(once.items).isdisjoint(had(views[True], "u1"))
    assert set(once.items) | had(views[True], "u1") == set(ITEMS)
    history = SOURCES.index("history")
    assert (once.ranks[:, history] == ABSENT).all()
    repeated = asked(views[False], Ask("u1", k=100))
    place = {item: rank for item, rank in zip(repeated.candidates, repeated.ranks[:, history].tolist(), strict=True) if rank != ABSENT}
    newest = list(dict.fromkeys(reversed(recent)))
    often = sorted(newest, key=lambda item: (-recent.count(item), newest.index(item)))
    assert place == {item: rank for rank, item in enumerate(dict.fromkeys([*newest[:NEWEST], *often]))}


def test_k_beyond_the_catalogue_gives_all_of_it_once(views: dict[bool, View]) -> None:
    made = asked(views[False], Ask("stranger", k=100), [(item, 1.0) for item in ITEMS])
    assert sorted(made.items) == ITEMS
    assert made.sample == []


def test_a_cold_user_gets_what_is_popular(views: dict[bool, View]) -> None:
    view = views[False]
    for user in ("stranger", ""):
        made = asked(view, Ask(user, k=5))
        assert made.items == view.online.popularity.rank(SOURCES.index("popular_500") - SOURCES.index("popular_100"), 5)
        assert all("popular" in text for text in made.reasons)
        assert made.seen == 0


def test_an_item_that_begins_to_be_chosen_after_another_is_shown_next() -> None:
    view = viewed()
    for n in range(6):
        view.online.learn_one(f"new{n}", "i50", NOW + 1e5 + n)
        view.online.learn_one(f"new{n}", "brand_new", NOW + 1e5 + n)
    view.refresh()
    made = asked(view, Ask("", recent=("i50",)))
    assert made.items[0] == "brand_new"
    assert made.reasons[0].startswith("after:1 covisited:1")


def test_a_session_overrides_the_history(views: dict[bool, View]) -> None:
    view = views[False]
    session = ("i40", "i41")
    one, other = asked(view, Ask("u1", recent=session)), asked(view, Ask("", recent=session))
    assert [i for i in one.items if i not in session][:3] == [i for i in other.items if i not in session][:3]
    assert one.items != asked(view, Ask("u1")).items
    assert (one.seen, other.seen) == (view.online.profiles.seen("u1"), 0)


def test_who_had_or_excluded_everything_still_gets_known_items() -> None:
    view = viewed(once=True)
    for item in ITEMS:
        view.online.learn_one("glutton", item, NOW + 1e5)
    view.refresh()
    made = asked(view, Ask("glutton", k=5, exclude=frozenset({"i00"})))
    assert len(made.items) == 5
    assert set(made.items) <= set(ITEMS) - {"i00"}


def test_without_any_state_the_bundles_popular_items_are_shown() -> None:
    view = View(Online(), fallback=ITEMS[:30])
    made = asked(view, Ask("u", k=25, exclude=frozenset({"i03"})))
    assert made.items == [i for i in ITEMS[:30] if i != "i03"][:25]
    assert np.isfinite(made.features).all()


def test_without_any_item_the_list_is_empty_and_nothing_is_raised() -> None:
    made = asked(View(Online()), Ask("u"))
    assert (made.items, made.sample, made.candidates, made.features.shape) == ([], [], [], (0, len(FEATURES)))


def test_announced_items_that_nobody_chose_yet_are_candidates_newest_first() -> None:
    view = View(Online())
    for n in range(20):
        view.catalogue.upsert(f"new{n:02}", [], NOW + n, hidden=False)
    view.refresh()
    assert asked(view, Ask("u", k=3)).items == ["new19", "new18", "new17"]


def test_the_leading_source_fills_first_then_the_next(views: dict[bool, View]) -> None:
    view = viewed()
    sums = [0.0] * len(SOURCES)
    sums[0], sums[COVISITED] = 90.0, 80.0
    view.guards[0] = Guard(sums, 100.0)
    view.refresh()
    online = view.online
    covisited = [i for i, _ in rank("u1", online.profiles.recent("u1"), online, 80)[1]]
    deep = [(item, 1.0) for item in ("i59", "i58", "i57")]
    made = asked(view, Ask("u1", k=8), deep)
    assert made.items == (["i59", "i58", "i57"] + [i for i in covisited if i not in ("i57", "i58", "i59")])[:8]
    assert made.scores.tolist() == [-0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]
    assert (made.ranks[:, RANKER] == ABSENT).all()


def weights(slates: int, linear: np.ndarray) -> Weights:
    """A record with these weights of the features, whose deviation is 1; nothing weighs the hidden units."""
    flat = np.frombuffer(Weights.new(len(FEATURES), CONTEXTS).layers, np.float32).copy()
    Layers.of(flat, len(FEATURES)).linear[:] = linear
    return Weights(slates, flat.tobytes(), b"", np.full(len(FEATURES), 1 - LEAST).tobytes())


def test_a_ranker_that_has_earned_it_orders_by_its_weights_merged_by_evidence() -> None:
    view = viewed()
    sums = [1.0] * len(SOURCES)
    sums[RANKER] = 2.0
    view.guards[0] = Guard(sums, 100.0)
    rare = np.zeros((1 + CONTEXTS, len(FEATURES)))
    rare[0, FEATURES.index("popular_ever")] = -1.0
    view.weights = {0: weights(30, rare), 1: weights(10, -2 * rare)}
    view.refresh()
    made = asked(view, Ask("u1", k=60))
    values = made.features[: len(made.items), FEATURES.index("popular_ever")].astype(float)
    assert made.scores == pytest.approx(-0.25 * values, abs=1e-3)
    assert (np.diff(made.scores) <= 0).all()
    assert made.ranks[:, RANKER].tolist() == list(range(len(made.candidates)))


def test_until_it_has_earned_it_the_ranker_is_measured_and_does_not_lead() -> None:
    view = viewed()
    before = asked(view, Ask("u1")).items
    view.weights = {0: weights(30, np.random.default_rng(1).normal(size=(1 + CONTEXTS, len(FEATURES))))}
    view.refresh()
    made = asked(view, Ask("u1"))
    assert made.items == before
    assert sorted(made.ranks[:, RANKER].tolist()) == list(range(len(made.candidates)))


def test_candidates_stand_best_first_and_features_are_those_of_shown_then_sample() -> None:
    view = viewed()
    made = asked(view, Ask("u1", k=5), temperature=3.0, seed=5)
    best = asked(view, Ask("u1", k=5))
    assert made.candidates[:5] == best.items
    assert made.items != best.items
    row = dict(zip([*best.items, *best.sample], best.features, strict=True))
    both = [(item, value) for item, value in zip([*made.items, *made.sample], made.features, strict=True) if item in row]
    assert len(both) > 3
    assert all(np.array_equal(value, row[item]) for item, value in both)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(asks, deeps), min_size=2, max_size=6))
def test_an_answer_is_the_same_whatever_was_answered_before_it(
    views: dict[bool, View], made: list[tuple[Ask, list[tuple[str, float]]]]
) -> None:
    view = views[False]
    for ask, deep in made:
        after = asked(view, ask, deep)
        view.found = Found.nothing(len(view.online.items.names))
        alone = asked(view, ask, deep)
        assert (after.items, after.candidates, after.reasons, after.sample) == (alone.items, alone.candidates, alone.reasons, alone.sample)
        assert np.array_equal(after.features, alone.features) and np.array_equal(after.ranks, alone.ranks)


def test_the_unshown_sample_is_drawn_uniformly(views: dict[bool, View]) -> None:
    found: dict[str, int] = {}
    rng = np.random.default_rng(1)
    for _ in range(400):
        made = answer(views[False], Ask("u1", k=5), Scored(), 0.0, rng)
        for item in made.sample:
            found[item] = found.get(item, 0) + 1
    rest = len(made.candidates) - 5
    p = SAMPLE / rest
    assert len(found) == rest
    assert all(abs(n / 400 - p) < 4.5 * (p * (1 - p) / 400) ** 0.5 for n in found.values())


def test_values_are_what_the_state_says() -> None:
    view = viewed()
    made = asked(view, Ask("u1", k=100))
    popular, column = view.online.popularity, {name: n for n, name in enumerate(FEATURES)}
    recent = view.online.profiles.recent("u1")
    scores, first, (clocks, last, slower) = popular.scores(), popular.first_seen(), popular.stands()
    for item, value in zip(made.items, made.features.astype(float), strict=True):
        row = view.online.items.row[item]
        assert value[column["own"]] == pytest.approx(np.log1p(recent.count(item)), abs=1e-3)
        assert value[column["own_last"]] == pytest.approx(1 / (1 + recent[::-1].index(item)) if item in recent else 0.0, abs=1e-3)
        assert value[column["idle"]] == pytest.approx(np.log1p(int(clocks[0] - int(last[0, row])) * slower) / 10, abs=1e-3)
        assert value[column["freshness"]] == pytest.approx(1 / (1 + (view.watermark - first[row]) / 86_400), abs=1e-3)
        share = scores[row] / scores.max(0)
        wanted = np.log1p(100 * share) / np.log(101)
        assert value[column["popular_100"] : column["popular_ever"] + 1] == pytest.approx(wanted, abs=1e-3)
        in_third = sum(i in ITEMS[::3] for i in recent[-20:]) / len(recent[-20:])
        assert value[column["affinity"]] == pytest.approx((1 + in_third) / 2 if item in ITEMS[::3] else 1.0, abs=1e-3)


def test_the_same_seed_gives_the_same_answer(views: dict[bool, View]) -> None:
    one, two, other = (asked(views[False], Ask("u1"), temperature=2.0, seed=s) for s in (3, 3, 4))
    assert (one.items, one.sample) == (two.items, two.sample)
    assert (one.items, one.sample) != (other.items, other.sample)


def test_a_reason_names_the_three_best_sources_counting_from_one_and_not_the_ranker() -> None:
    ranks = np.full(len(SOURCES), ABSENT, np.uint8)
    ranks[[0, 2, 3, 9, RANKER]] = [3, 0, 7, 1, 0]
    assert reasons(np.stack([ranks, np.full_like(ranks, ABSENT)])) == ["covisited:1 fresh:2 deep:4", ""]


def test_a_list_is_as_long_as_asked_for_while_the_catalogue_has_items_for_it() -> None:
    view, far = View(Online()), [f"far{n}" for n in range(100)]
    for n in range(2_000):
        view.online.learn_one(f"u{n % 50}", f"near{n % 900}", NOW + n)
    for n, item in enumerate(far):  # announced long ago, chosen once each, long before all others were
        view.online.popularity.learn_one(view.online.items.learn(item), NOW - 1e6)
        view.catalogue.upsert(item, ["rare"], NOW - 1e6 + n, hidden=False)
    for n in range(2_000):
        view.online.learn_one(f"u{n % 50}", f"near{n % 900}", NOW + 5_000 + n)
    view.catalogue.announced.clear()
    view.refresh()
    assert set(asked(view, Ask("cold", k=100, categories=frozenset({"rare"}))).items) == set(far)
    assert len(asked(view, Ask("cold", k=100)).items) == 100


def test_the_newest_are_the_same_in_whatever_order_items_came_also_where_most_came_at_once() -> None:
    items = [(f"new{n}", NOW + 1) for n in range(FRESH_KEPT // 2)] + [(f"old{n}", NOW) for n in range(3 * FRESH_KEPT)]
    fresh = []
    for seed in (1, 2):
        view = View(Online())
        for item, at in Random(seed).sample(items, len(items)):
            view.online.learn_one("u", item, at)
        view.refresh()
        fresh.append(view.shared.fresh)
    assert fresh[0] == fresh[1] and len(fresh[0]) == FRESH_KEPT
    assert set(fresh[0][: FRESH_KEPT // 2]) == {item for item, at in items if at > NOW}


def test_an_announced_item_is_there_also_between_its_first_choice_and_the_next_refresh() -> None:
    view = viewed()
    view.catalogue.upsert("red-hat", ["red"], NOW, hidden=False)
    assert asked(view, Ask("", categories=frozenset({"red"}))).items == ["red-hat"]
    view.online.learn_one("u1", "red-hat", NOW + 1e6)
    assert asked(view, Ask("", categories=frozenset({"red"}))).items == ["red-hat"]
    view.refresh()
    assert asked(view, Ask("", categories=frozenset({"red"}))).items == ["red-hat"]


def test_the_ranker_does_not_lead_on_no_evidence() -> None:
    guard = Guard()
    for _ in range(60):
        guard.learn(np.zeros(len(SOURCES)))
    assert guard.order()[0] != RANKER


def test_what_a_request_merely_names_is_never_shown(views: dict[bool, View]) -> None:
    made = asked(views[False], Ask("", k=100, recent=("i01", "\x1b[31mnonsense", "y" * 900)))
    assert set(made.items) <= set(ITEMS)
