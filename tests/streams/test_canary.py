"""When a canary's blocks are evidence of harm."""

from __future__ import annotations

import pytest

from streams.canary import LEAST, Trial

SPREAD = [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("mine", "others", "harmful"),
    [
        (SPREAD * 10, SPREAD * 10, False),
        ([0.0, 0.02] * 20, SPREAD * 10, True),
        (SPREAD * 10, [0.0, 0.02] * 20, False),
        ([0.0] * (LEAST - 1), SPREAD * 10, False),
        ([0.0] * 40, SPREAD * 4, False),
        ([q - 0.01 for q in SPREAD] * 10, SPREAD * 10, False),
    ],
    ids=["equal", "worse", "better", "too few of its own", "too few of the others", "worse within the noise"],
)
def test_only_clearly_worse_blocks_are_evidence_of_harm(mine: list[float], others: list[float], harmful: bool) -> None:
    assert Trial(mine, others, 99).is_harmful is harmful


def test_figures_name_both_sides_and_say_nothing_where_there_is_nothing() -> None:
    assert Trial([0.5, 0.25], [], 7).figures() == {
        "judged": 7, "canary_ndcg10": 0.375, "live_ndcg10": None, "canary_blocks": 2, "live_blocks": 0,
    }  # fmt: skip
