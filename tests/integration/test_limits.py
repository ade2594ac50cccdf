"""Where a guarantee ends, the worker stops and says why and what to do; it never goes on in silence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from infra import control, state
from infra.provisioning import provision
from learners.online import Memory
from serving.features import FEATURES, SOURCES
from streams import topics
from streams.consumer import QUIET_S
from streams.timeline import pack, pack_ranks
from tests.chaos import oracle
from tests.chaos.cluster import Cluster, prepare, wait
from tests.chaos.ledger import Ledger
from tests.integration.conftest import lacking

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180), pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


@contextmanager
def folded(folder: Path) -> Iterator[Cluster]:
    """One worker that has folded some hundred events and has ended."""
    made = prepare(folder, workers=1, partitions=1)
    try:
        ledger = Ledger(made.kafka, seed=3, events_s=500)
        wait(lambda: ledger.events > 400, 30)
        ledger.stop()
        oracle.settle(made.kafka)
        made.end("worker-0", SIGTERM)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For tests that leave it as it was."""
    with folded(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with folded(tmp_path) as cluster:
        yield cluster


def cut(cluster: Cluster, topic: str, before: int) -> None:
    """What retention does: the records before that offset are gone."""
    admin = KafkaAdminClient(**cluster.kafka.kafka_python())
    admin.delete_records({TopicPartition(cluster.kafka.prefix + topic, 0): before})
    admin.close()


def last_words(cluster: Cluster) -> str:
    """The worker, started again, ends by itself with exit code 1; returns why, by its log."""
    cluster.start_worker("worker-0")
    assert cluster.workers["worker-0"].wait(40) == 1
    lines = (cluster.folder / "worker-0" / "log").read_text().splitlines()
    return next(line for line in reversed(lines) if "STOP" in line)


def test_a_timeline_that_retention_has_cut_under_the_state_stops_the_worker(cluster: Cluster) -> None:
    kafka, file = cluster.kafka, cluster.folder / "half"
    half = state.positions(state.committed(kafka))[0] // 2
    state.save(state.rebuild(kafka, Memory(), state.Bound(offsets={0: half})), file, kafka, Memory())
    name, admin = kafka.prefix + topics.ONLINE_STATE, KafkaAdminClient(**kafka.kafka_python())
    admin.delete_topics([name])
    wait(lambda: name not in admin.list_topics(), 20)
    admin.close()
    time.sleep(1)
    provision(kafka)
    assert state.positions(state.restore(kafka, Memory(), file)) == {0: half}
    cut(cluster, topics.TIMELINE, half + 10)
    said = last_words(cluster)
    assert "timeline.v1" in said and "retention has overtaken our position" in said
    assert "delete the topic online-state.v1 and run `headrace topics --create`" in said


def test_an_input_that_retention_has_cut_before_it_was_read_stops_the_worker(cluster: Cluster) -> None:
    for n in range(20):
        control.send(cluster.kafka, topics.INTERACTIONS, b"ann", b'{"n": %d}' % n)
    cut(cluster, topics.INTERACTIONS, control.records_in(cluster.kafka, topics.INTERACTIONS))
    said = last_words(cluster)
    assert "ingest: retention has overtaken our position" in said
    assert "what it removed is lost" in said and "reset the group" in said


def test_a_state_of_other_settings_stops_the_worker(cluster: Cluster) -> None:
    standing = control.standings(cluster.kafka)[0]
    standing.shape = "other"
    control.send(cluster.kafka, topics.ONLINE_STATE, b"position", standing.dump())
    said = last_words(cluster)
    assert "was written with format" in said and "run `headrace topics --create`" in said


def test_a_worker_stops_where_it_is_not_authorised(shared: Cluster) -> None:
    admin = KafkaAdminClient(**shared.kafka.kafka_python())
    try:
        for kind, name, operation in (
            (ResourceType.TRANSACTIONAL_ID, "headrace.fold-0", ACLOperation.ALL),
            (ResourceType.TOPIC, "headrace.timeline.v1", ACLOperation.ALL),
            (ResourceType.TOPIC, "headrace.online-state.v1", ACLOperation.READ),
            (ResourceType.GROUP, "headrace.fold", ACLOperation.ALL),
        ):
            place = ResourcePattern(kind, name)
            assert not admin.create_acls([ACL("User:ANONYMOUS", "*", operation, ACLPermissionType.DENY, place)])["failed"]
            said = last_words(shared)
            admin.delete_acls([ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, place)])
            assert "not authorised" in said and "grant this principal read, write and TransactionalId write on our prefix" in said
    finally:
        admin.close()


def test_a_worker_stops_where_topics_are_not_as_they_must_be(shared: Cluster) -> None:
    shared.settings["partitions"] = 3
    said = last_words(shared)
    shared.settings["partitions"] = 1
    assert "timeline.v1 has 1 partitions, it must have 3" in said and "headrace state repartition" in said
    admin = KafkaAdminClient(**shared.kafka.kafka_python())
    admin.delete_topics(["headrace.drift-alerts.v1"])
    admin.close()
    said = last_words(shared)
    provision(shared.kafka)
    assert "there is no topic headrace.drift-alerts.v1: run `headrace topics --create`" in said


def test_impressions_that_wait_for_others_when_a_worker_is_killed_are_folded_once_by_the_next(shared: Cluster) -> None:
    def folded() -> int:
        return control.standings(shared.kafka)[0].counts.get("impressions", 0)

    before, n = folded(), 60
    shared.start_worker("worker-0")
    wait(lambda: shared.is_ready("worker-0"), 40)
    producer = KafkaProducer(**shared.kafka.kafka_python())
    try:
        for number in range(n):
            value = json.dumps(impression(number)).encode()
            producer.send(shared.kafka.prefix + topics.RECOMMENDATIONS, key=b"ann", value=value).get(10)
            time.sleep(0.02)  # several within the time that they wait
            if number == n // 2:
                shared.end("worker-0", SIGKILL)
                shared.start_worker("worker-0")
        wait(lambda: folded() == before + n, 40)
        time.sleep(1)
        assert folded() == before + n
    finally:
        producer.close(timeout=5)
        shared.end("worker-0", SIGTERM)


def test_an_idle_worker_seldom_asks_for_news_and_hears_of_them(shared: Cluster) -> None:
    def folded() -> int:
        return control.standings(shared.kafka)[0].counts.get("interactions", 0)

    def waits(seconds: float) -> float:
        """How often a second the worker waited for something."""
        status = Path(f"/proc/{shared.workers['worker-0'].pid}/status")
        before, began = _waited(status), time.monotonic()
        time.sleep(seconds)
        return (_waited(status) - before) / (time.monotonic() - began)

    shared.start_worker("worker-0")
    try:
        wait(lambda: shared.is_ready("worker-0"), 40)
        time.sleep(QUIET_S + 2)
        idle, before = waits(2), folded()
        event = {"user": "ann", "item": "tea", "kind": "click", "at": datetime.now(UTC).isoformat()}
        control.send(shared.kafka, topics.INTERACTIONS, b"ann", json.dumps(event).encode())
        wait(lambda: folded() > before, 5)
        assert idle < 0.7 * waits(1)
    finally:
        shared.end("worker-0", SIGTERM)


def _waited(status: Path) -> int:
    return int(next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches")).split()[1])


def impression(number: int) -> dict[str, Any]:
    """An answer that showed one of two candidates."""
    return {
        "id": f"r{number}", "user": "ann", "at": 1e9, "shown": ["i1"], "propensities": [1.0], "sample": ["i2"], "seen": 1 << 40,
        "features": pack(np.zeros((2, len(FEATURES)), "<f2")), "candidates": ["i1", "i2"],
        "ranks": pack_ranks(np.zeros((2, len(SOURCES)), np.uint8)), "positions": {"0": 1},
    }  # fmt: skip


def test_a_worker_without_kafka_waits_for_it_and_may_be_stopped_meanwhile(shared: Cluster) -> None:
    log = shared.folder / "worker-0" / "log"
    shared.kill_broker()
    log.unlink()
    shared.start_worker("worker-0")
    wait(lambda: "waiting for Kafka at" in log.read_text(), 20)
    assert shared.end("worker-0", SIGTERM, within_s=3) == 0
    shared.start_worker("worker-0")
    shared.start_broker()
    wait(lambda: shared.is_ready("worker-0"), 40)
    shared.end("worker-0", SIGTERM)
