"""Every place where something is written, sent, committed or renamed: the process ends right there, once, and the oracle is content."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from kafka import KafkaProducer

from feedback.policy import Policy
from infra import control
from infra.bootstrap import DEMO_DATA, ROOT
from infra.interactions import rows
from infra.replay import backfill
from infra.settings import Settings, Signing, Triton
from infra.tritonserver import TritonServer
from serving.client import Client
from serving.publish import prove
from serving.signature import new_key
from streams import topics
from streams.events import ANSWERS, Metric, RetrainingRequest, to_bytes, utc
from tests.chaos import oracle
from tests.chaos.cluster import Cluster, Effects, prepare, wait
from tests.chaos.ledger import Ledger
from tests.integration.conftest import lacking

# kafka-python leaves a socket to the garbage collector when a client ends while it connects.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")

MODULES = ("streams/partition.py", "streams/reader.py", "streams/trainer.py", "serving/publish.py", "serving/bundle.py")
WRITES = {
    "begin_transaction", "commit_transaction", "send_batch", "commit", "rename", "replace", "write_bytes", "write_text", "savez", "copy",
    "rmtree",
}  # fmt: skip

WORKER = [
    "ingest.send", "ingest.sent:3", "ingest.acknowledged:4", "ingest.offsets", "ingest.offsets_written", "open.fenced", "open.read",
    "open.barrier", "open.barrier_sent", "open.barrier_aborted",
    "follow.open", "follow.commit:5", "commit.begin:2", "commit.send", "commit.send:8", "commit.sent:3", "commit.acknowledged:4",
    "commit.ending_1ms:5", "commit.ending_3ms:6", "commit.ended:3",
]  # fmt: skip
UNREACHED = {"commit.full", "ingest.full", "open.barrier_outputs"}  # records of megabytes; a hanging transaction (test_partition.py)

STAGES = [f"{stage}.{moment}" for stage in ("requested", "candidate", "canary", "live") for moment in ("begin", "sent", "told")]
TRAINER = [
    *STAGES, "progress.begin", "progress.sent", "progress.told", "request.commit", "request.committed", "stage.sweep", "stage.begin",
    "stage.vocabulary", "stage.canary", "stage.whole", "stage.remove",
    "bundle.close", "bundle.seal", "bundle.sign",
    "publish.claim", "publish.claimed", "publish.synced", "publish.renamed", "publish.prove", "publish.proved", "publish.remove",
    "publish.pruned",
]  # fmt: skip
AFTER = {"publish.remove": "publish.renamed"}  # reached when a killed try is tried again
SPECIAL = [f"{what}.{moment}" for what in ("refused", "rolled_back", "together", "letter") for moment in ("begin", "sent", "told")]


# --- none is forgotten ---------------------------------------------------------------------------------------------------
def _calls(statement: ast.stmt) -> set[str]:
    """Names of the methods that this statement calls, what is in its inner blocks left out."""
    found, todo = set(), list[ast.AST]([statement])
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.add(node.func.attr)
        for name, value in ast.iter_fields(node):
            if name not in ("body", "orelse", "finalbody", "handlers"):
                todo += [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]
    return found


def _names(statement: ast.stmt | None) -> list[str]:
    """What `failpoint(…)` statements are called; `{…}` where a part is made at run time."""
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
        return []
    if getattr(statement.value.func, "id", "") != "failpoint":
        return []
    return [ast.unparse(statement.value.args[0]).removeprefix("f").strip("'\"")]


def _blocks(module: str) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                yield block


@pytest.mark.parametrize("module", MODULES)
def test_no_write_is_without_a_failpoint(module: str) -> None:
    bare = []
    for block in _blocks(module):
        for before, statement, after in zip([None, *block], block, [*block[1:], None], strict=False):
            written = _calls(statement) & WRITES
            if written and not (_names(before) or _names(after)):
                bare.append(f"{module}:{statement.lineno} {', '.join(written)}")
    assert bare == []


def test_every_failpoint_is_reached_by_a_test_that_kills_there() -> None:
    named = {name for module in MODULES for block in _blocks(module) for s in block for name in _names(s)}
    made = {"{what}.begin", "{what}.sent", "{what}.told"}
    killed = {name.split(":")[0] for name in (*WORKER, *TRAINER, *AFTER, *SPECIAL)}
    assert named - made - UNREACHED <= killed, "a failpoint that no test reaches"
    assert made | UNREACHED <= named
    assert len(killed) >= 25


# --- worker --------------------------------------------------------------------------------------------------------------
here = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@here
@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_worker_killed_at_each_of_its_failpoints_leaves_one_effect_per_record(tmp_path: Path) -> None:
    cluster = prepare(tmp_path, workers=1)
    effects, ledger = Effects(cluster.kafka), Ledger(cluster.kafka, seed=11, events_s=300)
    try:
        wait(lambda: all(effects.next.values()), 30)
        for name in WORKER:
            cluster.end("worker-0", signal.SIGTERM)
            cluster.start_worker("worker-0", {"HEADRACE_FAILPOINT": name})
            assert cluster.workers["worker-0"].wait(40) == -signal.SIGKILL, name
            cluster.start_worker("worker-0")
            effects.after(time.monotonic(), 40)
        ledger.stop()
        oracle.settle(cluster.kafka)
        cluster.end("worker-0", signal.SIGTERM)
        verdict = oracle.judge(cluster.kafka, ledger, Policy())
    finally:
        effects.close()
        cluster.close()
    assert verdict.passed, verdict
    assert verdict.events > 10_000


# --- trainer and publisher -----------------------------------------------------------------------------------------------
class Training:
    """A broker, a worker and a Triton that stay; trainers that come and go."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.cluster, self.folder = cluster, folder
        self.server = TritonServer.prepare(folder / "models")
        key = folder / "signing.key"
        settings = Settings(kafka=cluster.kafka, triton=Triton(self.server.url, self.server.repository), signing=Signing(key, new_key(key)))
        self.environment = {
            **os.environ, **settings.environment(), "HEADRACE_ROLLOUT__DEADLINE_S": "1", "HEADRACE_ROLLOUT__KEEP": "2",
            "HEADRACE_TRAINING__FINE_EPOCHS": "1", "HEADRACE_TRAINING__FINE_LEARNING_RATE": "1e-5",  # there is nothing new to learn
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.seeds = count(1)  # nothing new is learned, and weights that a version had, one rolled back perhaps, are refused
        self.quiet = open(folder / "log", "ab")  # noqa: SIM115 # for the processes, as long as they live
        self.triton = subprocess.Popen(
            self.server.command(), env={**self.environment, **self.server.environment()}, stdout=self.quiet, stderr=self.quiet
        )

    def trainer(self, **environment: str) -> subprocess.Popen[bytes]:
        environment = {**self.environment, "HEADRACE_TRAINING__SEED": str(next(self.seeds)), **environment}
        return subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "trainer"], env=environment, cwd=self.folder, stdout=self.quiet, stderr=self.quiet
        )

    def stage(self, request: str) -> str | None:
        return control.releases(self.cluster.kafka)[0].requests.get(request)

    def why(self, request: str) -> list[str]:
        """What was said of it."""
        return [record.reason for record in control.releases(self.cluster.kafka)[1] if record.request == request and record.reason]

    def finish(self, request: str) -> str:
        """A trainer without a failpoint takes the request up and ends it; returns the last stage."""
        with self.trainer() as trainer:
            wait(lambda: self.stage(request) in ("live", "refused", "rolled_back"), 90, 0.2)
            trainer.terminate()
            trainer.wait(20)
        return str(self.stage(request))

    def check(self, name: str) -> None:
        """Nothing half-done is visible: on disk, in Triton, on the bus."""
        fold, records = control.releases(self.cluster.kafka)
        assert len({record.id for record in records}) == len(records), name
        assert not list((self.server.repository.with_name("models.staging")).glob("*")), name
        there = {int(p.name) for p in (self.server.repository / "sequence").iterdir()}
        assert fold.live in there, name
        for version in there:
            prove(self.server.url, version, 10)
        with Client(self.server.url) as client:
            wait(lambda: (a := client.recommend(USER, 100)).model_version == fold.live and not a.degraded, 10)

    def close(self) -> None:
        self.triton.terminate()
        self.triton.wait(15)
        self.quiet.close()


USER = rows(DEMO_DATA)[0].user if DEMO_DATA.exists() else ""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    folder = tmp_path_factory.mktemp("training")
    cluster = prepare(folder, workers=1, partitions=2)
    running = Training(folder, cluster)
    try:
        source = list(islice(rows(DEMO_DATA), 3_000))
        asyncio.run(backfill(cluster.kafka, source, "past", lambda done, all: None))
        wait(lambda: sum(s.next for s in control.standings(cluster.kafka).values()) >= len(source), 60, 0.2)
        yield running
    finally:
        running.close()
        cluster.close()


def killed(process: subprocess.Popen[bytes], name: str) -> None:
    assert process.wait(90) == -signal.SIGKILL, name


@here
@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TRAINER)
def test_a_trainer_killed_at_a_failpoint_publishes_nothing_by_halves(training: Training, name: str) -> None:
    request = control.request_retraining(training.cluster.kafka).id
    if name in AFTER:
        killed(training.trainer(HEADRACE_FAILPOINT=AFTER[name]), name)
    killed(training.trainer(HEADRACE_FAILPOINT=name), name)
    assert training.finish(request) == "live", training.why(request)
    training.check(name)


@here
@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["begin", "sent", "told"])
@pytest.mark.parametrize("what", ["refused", "together", "letter", "rolled_back"])
def test_a_trainer_killed_while_it_says_no_says_it_once(training: Training, what: str, moment: str) -> None:
    kafka, name = training.cluster.kafka, f"{what}.{moment}"
    if not control.releases(kafka)[0].live:
        training.finish(control.request_retraining(kafka).id)
    environment = {"HEADRACE_FAILPOINT": name}
    if what == "letter":
        before = len(control.letters(kafka))
        control.send(kafka, topics.RETRAINING_REQUESTS, b"sequence", b"{")
    if what == "together":
        first = control.request_retraining(kafka).id
    request = control.request_retraining(kafka).id
    if what == "refused":
        environment["HEADRACE_TRAINING__GATE_WINDOWS"] = "0"
    if what == "rolled_back":
        environment["HEADRACE_ROLLOUT__DEADLINE_S"] = "10"
    process = training.trainer(**environment)
    if what == "rolled_back":
        wait(lambda: training.stage(request) == "canary", 90, 0.1)
        fold, _ = control.releases(kafka)
        for version, quality in ((fold.canary, 0.0), (fold.live, 1.0)):
            many = [quality] * 40
            metric = Metric(
                signal=ANSWERS,
                version=version,
                at=utc(time.time()),
                n=40,
                ndcgs=many,
                recalls=many,
                users=list(range(40)),
                degraded=[0] * 40,
            )
            control.announce(kafka, topics.METRICS, metric, ANSWERS)
    killed(process, name)
    if what == "refused" and moment != "told":
        with training.trainer(HEADRACE_TRAINING__GATE_WINDOWS="0") as again:
            wait(lambda: training.stage(request) == "refused", 90, 0.2)
            again.terminate()
            again.wait(20)
    else:
        training.finish(request)
    training.check(name)
    if what == "letter":
        wait(lambda: len(control.letters(kafka)) == before + 1, 10, 0.2)
    if what == "together":
        assert training.stage(first) == "refused"


# --- several of each -----------------------------------------------------------------------------------------------------
@here
@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["requested", "canary"])
def test_of_two_trainers_the_one_that_was_paused_says_and_publishes_nothing(training: Training, stage: str) -> None:
    kafka = training.cluster.kafka
    request = control.request_retraining(kafka).id
    first = training.trainer(HEADRACE_ROLLOUT__DEADLINE_S="20")
    try:
        wait(lambda: training.stage(request) == stage, 90, 0.02)
        first.send_signal(signal.SIGSTOP)
        with training.trainer() as second:
            try:
                wait(lambda: training.stage(request) == "live", 120, 0.2)
                records = control.releases(kafka)[1]
                first.send_signal(signal.SIGCONT)
                assert first.wait(60) != 0  # it is fenced, and ends
                time.sleep(3)
                assert control.releases(kafka)[1] == records
                assert [r.stage for r in records if r.request == request] == ["requested", "candidate", "canary", "live"]
            finally:
                second.terminate()
    finally:
        first.kill()
    training.check(stage)


@here
@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_ten_thousand_requests_in_a_burst_are_one_training(training: Training) -> None:
    kafka, n = training.cluster.kafka, 10_000
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=20)
    for number in range(n):
        request = RetrainingRequest(id=f"burst-{number}", reason="manual", at=utc(time.time()))
        producer.send(kafka.prefix + topics.RETRAINING_REQUESTS, key=b"sequence", value=to_bytes(request))
    producer.flush(60)
    producer.close()
    with training.trainer() as trainer:
        wait(lambda: training.stage(f"burst-{n - 1}") == "live", 120, 0.5)
        trainer.terminate()
        trainer.wait(20)
    fold, records = control.releases(kafka)
    stages = Counter(r.stage for r in records if str(r.request).startswith("burst-"))
    assert stages == {"requested": 1, "candidate": 1, "canary": 1, "live": 1, "refused": n - 1}
    assert all(fold.requests[f"burst-{number}"] in ("live", "refused") for number in range(n))
    training.check("burst")
