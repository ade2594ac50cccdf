"""Another number of partitions, more and then fewer, with a worker that was killed in the middle of its work."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from feedback.policy import Policy
from infra import control
from streams import topics
from tests.chaos import oracle
from tests.chaos.cluster import Cluster, prepare, wait
from tests.chaos.ledger import Ledger
from tests.integration.conftest import HEADRACE, lacking

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


def repartition(cluster: Cluster, partitions: int, file: Path, code: int = 0) -> str:
    done = subprocess.run(
        [HEADRACE, "state", "repartition", str(file), "--kafka", cluster.kafka.bootstrap], capture_output=True, text=True, timeout=100,
        env={**os.environ, "HEADRACE_KAFKA__PARTITIONS": str(partitions)}, cwd=cluster.folder,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def settled(cluster: Cluster) -> None:
    """Ingest has nothing left to read, and the fold nothing left to fold."""
    kafka = cluster.kafka
    wait(lambda: cluster.is_ready("worker-0"), 40)

    def still() -> bool:
        before = control.records_in(kafka, topics.TIMELINE)
        time.sleep(2)
        return before == control.records_in(kafka, topics.TIMELINE) == sum(s.next for s in control.standings(kafka).values())

    wait(still, 60)


def lived(cluster: Cluster, partitions: int, seed: int, events: int) -> Ledger:
    """A worker of so many partitions takes some events and ends."""
    cluster.kafka = dataclasses.replace(cluster.kafka, partitions=partitions)
    cluster.settings["partitions"] = partitions
    cluster.start_worker("worker-0")
    ledger = Ledger(cluster.kafka, seed, events_s=800)
    wait(lambda: ledger.events > events, 30)
    ledger.stop()
    settled(cluster)
    cluster.end("worker-0", SIGTERM)
    return ledger


def judged(cluster: Cluster, ledgers: list[Ledger]) -> None:
    """Every acknowledged event of all ledgers has one effect, in order, and the state is what the timeline says."""
    whole = ledgers[0]
    for ledger in ledgers[1:]:
        whole.acknowledged |= ledger.acknowledged
        for user, ids in ledger.sent.items():
            whole.sent.setdefault(user, []).extend(ids)
    verdict = oracle.judge(cluster.kafka, whole, Policy())
    assert (verdict.lost, verdict.doubled, verdict.disordered, verdict.notes) == (0, 0, 0, [])
    assert verdict.same and len(verdict.hashes) == cluster.kafka.partitions + 1


def test_more_partitions_and_then_fewer_lose_and_double_nothing(tmp_path: Path) -> None:
    cluster = prepare(tmp_path, workers=1, partitions=2)
    try:
        first = Ledger(cluster.kafka, seed=5, events_s=800)
        wait(lambda: first.events > 1_500, 30)
        assert "workers run" in repartition(cluster, 3, tmp_path / "more", code=1)
        cluster.end("worker-0", SIGKILL)  # ingest has written what it has not said that it has read
        first.stop()
        time.sleep(7)  # the group forgets the killed one
        assert "set kafka.partitions to another number" in repartition(cluster, 2, tmp_path / "same", code=1)
        repartition(cluster, 3, tmp_path / "more")
        assert not (tmp_path / "more").exists() and (tmp_path / "more.done").exists()
        (tmp_path / "more.done").rename(tmp_path / "more")  # as if it had been interrupted: it is taken up from the file
        repartition(cluster, 3, tmp_path / "more")

        second = lived(cluster, partitions=3, seed=6, events=800)
        (tmp_path / "more.done").rename(tmp_path / "old")
        assert "has gone on since" in repartition(cluster, 3, tmp_path / "old", code=1)

        repartition(cluster, 1, tmp_path / "fewer")
        third = lived(cluster, partitions=1, seed=7, events=300)
        judged(cluster, [first, second, third])
    finally:
        cluster.close()
