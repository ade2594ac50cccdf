"""The state by three ways: as committed by a worker, as rebuilt from the timeline, as restored from a file. One hash."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from kafka import KafkaAdminClient

from infra.provisioning import provision
from streams import topics
from tests.chaos import oracle
from tests.chaos.cluster import Cluster, prepare, wait
from tests.chaos.ledger import Ledger
from tests.integration.conftest import HEADRACE, lacking

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


def headrace(cluster: Cluster, *command: str, code: int = 0) -> list[dict[str, Any]]:
    """`headrace state …` against the cluster's broker; its lines of JSON, or what it said where it failed."""
    done = subprocess.run(
        [HEADRACE, "state", *command, "--kafka", cluster.kafka.bootstrap, "--json"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "HEADRACE_KAFKA__PARTITIONS": "2"}, cwd=cluster.folder,
    )  # fmt: skip
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()] if done.stdout else [{"said": done.stderr}]


def hashes(entries: list[dict[str, Any]]) -> dict[int, tuple[int, str]]:
    return {entry["partition"]: (entry["position"], entry["hash"]) for entry in entries}


def test_a_state_is_verified_dumped_rebuilt_and_restored_and_a_worker_goes_on_from_it(tmp_path: Path) -> None:
    cluster = prepare(tmp_path, workers=1, partitions=2)
    file = str(tmp_path / "state")
    try:
        ledger = Ledger(cluster.kafka, seed=5, events_s=500)
        wait(lambda: ledger.events > 1_500, 30)
        running = headrace(cluster, "verify")  # while events come
        assert all(entry["hash"] == entry["rebuilt"] and entry["position"] > 0 for entry in running)
        ledger.stop()
        oracle.settle(cluster.kafka)
        cluster.end("worker-0", SIGTERM)

        dumped = hashes(headrace(cluster, "dump", file))
        at = ",".join(f"{p}={position}" for p, (position, _) in dumped.items())
        assert hashes(headrace(cluster, "rebuild", str(tmp_path / "again"), "--at", at)) == dumped
        half = hashes(headrace(cluster, "rebuild", str(tmp_path / "half"), "--at", f"0={dumped[0][0] // 2},1=0"))
        assert half[0][0] == dumped[0][0] // 2 and half[0][1] != dumped[0][1] and half[1][0] == 0

        assert "holds a state" in headrace(cluster, "restore", file, code=1)[0]["said"]
        name = cluster.kafka.prefix + topics.ONLINE_STATE
        admin = KafkaAdminClient(**cluster.kafka.kafka_python())
        admin.delete_topics([name])
        wait(lambda: name not in admin.list_topics(), 20)
        admin.close()
        time.sleep(1)
        provision(cluster.kafka)
        assert hashes(headrace(cluster, "restore", file)) == dumped

        cluster.start_worker("worker-0")
        wait(lambda: cluster.is_ready("worker-0"), 40)
        more = Ledger(cluster.kafka, seed=6, events_s=500)
        wait(lambda: more.events > 500, 30)
        more.stop()
        oracle.settle(cluster.kafka)
        final = headrace(cluster, "verify")
        assert all(entry["hash"] == entry["rebuilt"] and entry["position"] > dumped[entry["partition"]][0] for entry in final)
    finally:
        cluster.close()
