"""The catalogue: open, with hidden and removed items, categories, and what a history leans to."""

import pytest

from serving.catalogue import Catalogue


def test_an_item_nobody_announced_is_shown_to_who_asks_for_any_category_only() -> None:
    catalogue = Catalogue()
    assert catalogue.allows("x", ())
    assert not catalogue.allows("x", {"books"})


def test_an_item_is_shown_to_who_asks_for_one_of_its_categories() -> None:
    catalogue = Catalogue()
    catalogue.upsert("x", ["books", "tea"], 1.0, hidden=False)
    assert [catalogue.allows("x", wanted) for wanted in ((), {"tea"}, {"tea", "cars"}, {"cars"})] == [True, True, True, False]


def test_a_hidden_item_is_not_shown_until_it_is_upserted_visible() -> None:
    catalogue = Catalogue()
    catalogue.upsert("x", ["tea"], 1.0, hidden=True)
    assert not catalogue.allows("x", ())
    assert not catalogue.allows("x", {"tea"})
    catalogue.upsert("x", ["tea"], 1.0, hidden=False)
    assert catalogue.allows("x", {"tea"})


def test_a_removed_item_is_gone_until_it_comes_back() -> None:
    catalogue = Catalogue()
    catalogue.upsert("x", ["tea"], 1.0, hidden=False)
    catalogue.remove("x")
    catalogue.remove("never there")
    assert (catalogue.allows("x", ()), catalogue.categories, catalogue.announced) == (False, {}, {})
    catalogue.upsert("x", ["cars"], 2.0, hidden=False)
    assert catalogue.allows("x", {"cars"})


def test_the_latest_announcement_stands_last() -> None:
    catalogue = Catalogue()
    for item, at in [("a", 1.0), ("b", 2.0), ("a", 3.0)]:
        catalogue.upsert(item, [], at, hidden=False)
    assert list(catalogue.announced.items()) == [("b", 2.0), ("a", 3.0)]


def test_affinity_is_the_share_of_the_history_in_each_category() -> None:
    catalogue = Catalogue()
    catalogue.upsert("a", ["tea", "cups"], 1.0, hidden=False)
    catalogue.upsert("b", ["tea"], 1.0, hidden=False)
    assert catalogue.affinity(["a", "b", "a", "unknown"]) == pytest.approx({"tea": 0.75, "cups": 0.5})
    assert catalogue.affinity([]) == {}
