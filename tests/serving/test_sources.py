"""Every source that an answer has, by one suite: what partitions name together is what one state names that saw all users."""

from functools import cache
from random import Random

import pytest

from learners.online import Online
from learners.ranks import ABSENT
from serving.features import SOURCES
from serving.recommend import Ask, Scored, View, consider

USERS, EVENTS, PARTITIONS = 40, 500, 2
# Each partition's clock stands for the whole stream's; an item's last choosers are taken in equal shares from all partitions.
NEARLY = {"popular_100": 0.8, "popular_500": 0.8, "popular_2000": 0.8, "popular_10000": 0.8, "neighbours": 0.9}
OF_STATE = [source for source in SOURCES if source not in ("deep", "ranker")]


@cache
def views(seed: int) -> list[View]:
    """One state of all users, and two of half of them each, merged as a replica does it; small enough that nothing is cut off."""
    rng, whole, merged = Random(seed), Online(), Online(PARTITIONS, PARTITIONS)
    parts = [Online(1, PARTITIONS) for _ in range(PARTITIONS)]
    for n in range(EVENTS):
        user, item = rng.randrange(USERS), f"i{int(rng.random() ** 2 * 60)}"
        for online in (whole, parts[user % PARTITIONS]):
            online.learn_one(f"u{user}", item, 1e9 + 60.0 * n)
    for partition, online in enumerate(parts):
        for key, value in online.changes().items():
            merged.load(partition, key, value)
        merged.popularity.clock[partition] = online.popularity.clock[0]
    made = [View(whole, watermark=1e9 + 60.0 * EVENTS), View(merged, watermark=1e9 + 60.0 * EVENTS)]
    for view in made:
        view.refresh()
    return made


@pytest.mark.parametrize("source", OF_STATE)
def test_partitions_name_what_one_state_names(source: str) -> None:
    column, alike, named = SOURCES.index(source), list[bool](), 0
    for seed in range(3):
        both = views(seed)
        for user in range(USERS):
            found = [consider(view, Ask(f"u{user}"), Scored()) for view in both]
            ranks = [{i: r for i, r in zip(f.items, f.ranks[:, column].tolist(), strict=True) if r != ABSENT} for f in found]
            named += len(ranks[0])
            if source in NEARLY:
                alike.append(len(ranks[0].keys() & ranks[1].keys()) >= NEARLY[source] * len(ranks[0]))
            else:
                alike.append(ranks[0] == ranks[1])
    assert named > len(alike) and all(alike)
