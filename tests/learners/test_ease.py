"""The regression on one history: equal to a dense solve of the same cosines, and what it is for."""

from random import Random

import numpy as np
import pytest

from learners.ease import CHOICES, DECAY, ITEMS, REACH, RIDGE, regress
from learners.occurrences import spare
from learners.online import Online
from tests.learners.conftest import learned


def values(online: Online, history: list[str], own: tuple[int, int] | None = None) -> dict[str, float]:
    items = online.items
    rows_of, n = np.array([items.row.get(name, -1) for name in history], np.int32), len(items.names)
    found, mark = np.zeros(n), np.zeros(n, np.uint8)
    rows = regress(rows_of, spare(len(history)), *(own or (-1, -1)), *online.tables(), online.popularity.table(), found, mark)
    assert not mark.any()
    assert len(set(rows.tolist())) == len(rows) and not np.delete(found, rows).any()
    return {items.names[row]: float(found[row]) for row in rows}


def solved(choices: list[tuple[str, str]], user: str, history: list[str]) -> dict[str, float]:
    """The same by hand: counts of everybody's sequences, then a dense solve. No item has more than the choices that are looked at."""
    sequences = dict[str, list[str]]()
    for who, item in choices:
        sequences.setdefault(who, []).append(item)
    ever = {item: sum(chosen == item for _, chosen in choices) for _, item in choices}
    items = list(dict.fromkeys(history[::-1][:ITEMS]))
    wanted = np.array([DECAY ** history[::-1].index(item) for item in items])
    counts = {item: dict.fromkeys(ever, 0.0) for item in items}
    for who, sequence in sequences.items():
        for at, item in enumerate(sequence):
            if item in counts and who != user:
                for place in range(max(0, at - REACH), min(len(sequence), at + REACH + 1)):
                    counts[item][sequence[place]] += place != at
    cosine = np.array([[counts[a][b] / np.sqrt(ever[a] * ever[b]) for b in items] for a in items])
    cosine = (cosine + cosine.T) / 2
    np.fill_diagonal(cosine, 1 + RIDGE)
    weights = np.linalg.solve(cosine, wanted) / np.sqrt([ever[item] for item in items])
    return {item: sum(w * counts[a][item] for w, a in zip(weights, items, strict=True)) / np.sqrt(ever[item] + 1) for item in ever}


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_dense_solve_finds(seed: int) -> None:
    rng = Random(seed)
    choices = [(f"u{rng.randrange(60)}", f"i{rng.randrange(40)}") for _ in range(600)]
    online = Online()
    for user, item in choices:
        online.learn_one(user, item, 0.0)
    history = [item for user, item in choices if user == "u1"]
    found = values(online, history, online.profiles.number("u1"))
    wanted = {item: value for item, value in solved(choices, "u1", history).items() if value or item in found}
    assert found == pytest.approx(wanted, rel=0.02, abs=0.02)  # eight sweeps


def test_a_short_history_looks_at_more_choices_than_a_long_one() -> None:
    online = learned(("early", "tea cup"), *((f"u{n}", "tea") for n in range(CHOICES)), ("me", " ".join(f"i{n}" for n in range(99))))
    assert "cup" in values(online, ["tea"])
    assert "cup" not in values(online, [*(f"i{n}" for n in range(99)), "tea"])


def test_two_items_that_always_come_together_do_not_speak_twice() -> None:
    pairs = [(f"p{n}", "bread butter jam") for n in range(20)]
    lone = [(f"q{n}", "tea cup") for n in range(20)]
    online = learned(*pairs, *lone)
    found = values(online, ["bread", "butter", "tea"])
    assert found["cup"] > 0.8 * found["jam"]  # by a sum of cosines it would have half


def test_who_has_no_history_or_an_unknown_one_gets_nothing() -> None:
    online = learned(("ann", "tea cup"))
    assert values(online, []) == values(online, ["unknown"]) == {}
    assert values(online, ["tea"]).keys() == {"cup"}
    assert values(online, ["tea"], online.profiles.number("ann")) == {}
