"""What is near a history: what was chosen after and around its items, and in which order it ranks."""

from math import sqrt
from random import Random

import numpy as np
import pytest

from learners.near import BASKET, DECAY, FAR, LASTING, MATCHED, NEAR, NEWEST, REACH, REMEMBERED, TASTE_DECAY, TASTE_REACH, near
from learners.near import rank as ranked
from learners.occurrences import spare
from learners.online import Online
from learners.profiles import KEPT, remembered
from tests.learners.conftest import learned


def rank(online: Online, recent: str, k: int = 9, user: str = "me") -> tuple[dict[str, float], dict[str, float]]:
    after, both = ranked(user, recent.split(), online, k)
    assert [s for _, s in after] == sorted((s for _, s in after), reverse=True)
    assert [s for _, s in both] == sorted((s for _, s in both), reverse=True)
    return dict(after), dict(both)


def test_what_came_right_after_ranks_by_its_share_and_falls_with_the_distance() -> None:
    online = learned(("ann", "tea milk cup pot far"), ("bob", "tea cup"), ("cat", "jam tea"))
    after, _ = rank(online, "tea")
    assert after == pytest.approx({"cup": (1 / 2 + 1) / 3, "milk": 1 / 3, "pot": 1 / 9})


def test_what_was_chosen_around_ranks_by_cosine_in_both_directions() -> None:
    online = learned(("ann", "jam tea cup"), ("bob", "cup tea"))
    _, both = rank(online, "tea")
    assert both == pytest.approx({"cup": 2 / sqrt(2) / sqrt(3), "jam": 1 / sqrt(2) / sqrt(2)})


def test_beyond_its_reach_nothing_is_near() -> None:
    online = learned(("ann", " ".join(["tea", *(f"i{n}" for n in range(REACH + 5))])))
    after, both = rank(online, "tea", 99)
    assert after.keys() == {"i0", "i1", "i2"} and both.keys() == {f"i{n}" for n in range(REACH)}


def test_an_older_item_of_the_history_counts_less_and_beyond_the_last_ten_not_at_all() -> None:
    online = learned(*((f"u{n}", f"i{n} after{n}") for n in range(12)))
    after, both = rank(online, " ".join(f"i{n}" for n in reversed(range(12))))
    assert after == pytest.approx({f"after{n}": DECAY**n for n in range(3)})
    assert {name: score * sqrt(2) for name, score in both.items()} == pytest.approx({f"after{n}": DECAY**n for n in range(MATCHED - 1)})
    assert len(rank(online, " ".join(f"i{n}" for n in reversed(range(12))), 99)[1]) == MATCHED


def test_what_the_user_chose_around_says_nothing_new() -> None:
    online = learned(("me", "tea cup"), ("ann", "tea pot"))
    assert rank(online, "tea")[1].keys() == {"pot"}
    assert rank(online, "tea", user="nobody")[1].keys() == {"cup", "pot"}
    assert rank(online, "tea")[0].keys() == {"cup", "pot"}


def test_what_is_no_longer_remembered_is_not_near() -> None:
    online = learned(("ann", "tea cup"), ("ann", " ".join(f"i{n}" for n in range(600))))
    assert rank(online, "tea") == ({}, {})
    online = learned(("ann", "tea cup pot"), ("bob", "tea pot"))
    online.items.remove("cup")
    assert rank(online, "tea")[1].keys() == {"pot"}
    online.profiles.load(0, "ann", None)
    assert rank(online, "tea")[0] == {"pot": 0.5}


def test_who_has_no_history_or_an_unknown_one_gets_nothing() -> None:
    online = learned(("ann", "tea cup"))
    assert rank(online, "") == rank(online, "unknown") == ({}, {})


def looked_for(choices: list[tuple[str, str]], breaks: list[bool], user: str, history: list[str], session: int) -> dict[str, list[float]]:
    """The six columns of `Near`, by hand: from the sequences of everybody, item by item; `breaks`: a session begins there."""
    sequences = dict[str, list[str]]()
    sessions = dict[str, list[int]]()  # which of the user's
    occurrences = dict[str, list[tuple[str, int]]]()  # newest first
    for (who, item), begins in zip(choices, breaks, strict=True):
        of = sessions.setdefault(who, [])
        of.append(of[-1] + begins if of else 0)
        sequence = sequences.setdefault(who, [])
        occurrences.setdefault(item, []).insert(0, (who, len(sequence)))
        sequence.append(item)
    out = {item: [0.0] * 6 for item in occurrences}
    least = spare(len(history))
    lasting = max(LASTING, least)
    for age, item in enumerate(history[::-1][:REMEMBERED]):
        taken = occurrences[item][: max(NEAR if age < NEWEST else FAR if age < MATCHED else LASTING, least)]
        for nth, (who, position) in enumerate(taken):
            for place, other in enumerate(sequences[who]):
                distance = place - position
                if 0 < distance <= 3 and age < NEWEST:
                    out[other][1] += DECAY**age / len(taken) / distance
                    out[other][0] += (1 / len(taken)) * (age == 0 and distance == 1)
                if who == user or not distance:
                    continue
                size = sqrt(len(occurrences[other]) + 1)
                if abs(distance) <= REACH and age < MATCHED:
                    out[other][3] += DECAY**age / sqrt(len(taken)) / size
                    out[other][2] += (age == 0) / sqrt(len(taken)) / size
                if abs(distance) <= TASTE_REACH and nth < lasting:
                    out[other][4] += TASTE_DECAY**age / sqrt(min(len(taken), lasting)) / size
                together = sessions[who][place] == sessions[who][position] and abs(distance) <= BASKET
                if age < min(session, BASKET) and together:
                    out[other][5] += 1 / sqrt(len(taken)) / size
    return out


@pytest.mark.parametrize("last", [KEPT, 5])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_count_by_hand_finds(seed: int, last: int) -> None:
    rng = Random(seed)
    choices = [(f"u{rng.randrange(12)}", f"i{int(rng.paretovariate(0.8)) % 30}") for _ in range(1500)]
    breaks = [rng.random() < 0.05 for _ in choices]
    online, clocks = Online(), dict[str, float]()
    for (user, item), begins in zip(choices, breaks, strict=True):
        clocks[user] = clocks.get(user, 0.0) + (3_000 if begins else 60)
        online.learn_one(user, item, clocks[user])
    history = online.profiles.get("u1")
    assert history is not None and REMEMBERED < len(history.chosen) < KEPT
    names, chosen, place = online.items.names, history.chosen[-last:], history.head.place
    _, session = remembered(*place, *online.profiles.tables(), online.items.table)
    *found, rows = near(chosen, session, place, online, len(names))
    wanted = looked_for(choices, breaks, "u1", [names[row] for row in chosen], session)
    assert pytest.approx(np.array([wanted[name] for name in names])) == np.array(found).T
    assert sorted(rows.tolist()) == [row for row, name in enumerate(names) if any(wanted[name])]
