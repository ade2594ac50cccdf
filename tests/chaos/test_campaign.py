"""A few of each fault, as part of every test run; the campaign itself is `make chaos`."""

from __future__ import annotations

import json

import pytest

from tests.chaos.campaign import CAMPAIGN, PARTS, SMOKE, main, plan
from tests.integration.conftest import lacking


def test_a_campaign_is_planned_from_its_seed_and_its_parts_make_the_whole() -> None:
    parts = [plan(1, part, PARTS, CAMPAIGN) for part in range(PARTS)]
    assert parts == [plan(1, part, PARTS, CAMPAIGN) for part in range(PARTS)] != [plan(2, part, PARTS, CAMPAIGN) for part in range(PARTS)]
    assert {kind: sum(fault.kind == kind for part in parts for fault in part) for kind in CAMPAIGN} == CAMPAIGN
    assert SMOKE.keys() == CAMPAIGN.keys()


@pytest.mark.stack
@pytest.mark.timeout(240)
@pytest.mark.skipif(lacking() is not None, reason=str(lacking()))
def test_two_workers_and_a_broker_under_a_few_of_each_fault_lose_and_double_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seed", "1", "--smoke", "--events", "8000", "--json"])
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert code == 0, said.err
    assert result["events"] >= 8_000 and result["failed"] == 0 and result["records"] > result["events"]
    assert (result["lost"], result["doubled"], result["disordered"], result["outputs_missing"], result["outputs_extra"]) == (0, 0, 0, 0, 0)
    assert result["hash"] == "ok" and len(result["recoveries_s"]["worker"]) >= 3
