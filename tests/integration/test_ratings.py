"""Ratings through Kafka and a worker of their own: the digits of a loop in process."""

from random import Random

import pytest

from bench.quality import p4
from infra.interactions import Row
from tests.integration.conftest import lacking

pytestmark = pytest.mark.stack


def test_a_learner_in_the_fold_of_a_worker_has_the_digits_it_has_in_process() -> None:
    if reason := lacking():
        pytest.skip(reason)
    rng = Random(1)
    stream = [Row(f"u{rng.randrange(200)}", f"i{rng.randrange(300)}", float(rng.randint(1, 5)), 1e9 + n) for n in range(3_000)]
    found = p4.run(stream, 1)
    assert found["equal"] and found["asks"] == 3_000 and found["ci95"][0] < found["worker"]["mae"] < found["ci95"][1]
    one, other = p4.Ratings(), p4.Ratings()
    for row in stream:
        one.learn_one(row.user, row.item, row.value or 0.0)
    for row in [stream[1], stream[0], *stream[2:]]:  # two swapped: it would have been seen
        other.learn_one(row.user, row.item, row.value or 0.0)
    assert p4.figures(one.counts()) == found["worker"] != p4.figures(other.counts())
