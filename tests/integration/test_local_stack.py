"""The local stack as a thing that starts and ends: given addresses, logins, Ctrl-C, SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from infra.broker import Broker
from infra.provisioning import provision
from infra.settings import Settings, Triton
from infra.tritonserver import TritonServer
from serving.client import Client
from streams.kafka import Kafka
from streams.topics import WrongTopic
from tests.integration.conftest import HEADRACE, ROOT, Running, end, interaction, lacking, processes_of, send, start, until

pytestmark = [pytest.mark.stack, pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


def test_a_kafka_with_a_login_that_was_given_is_used_and_ctrl_c_ends_all_but_it(tmp_path: Path) -> None:
    from kafka import KafkaProducer

    broker = Broker.prepare(tmp_path / "given", password="s3cret")
    with subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as given:
        try:
            until(broker.answers, 20)
            environment = {"HEADRACE_KAFKA__CLIENT": json.dumps(broker.client), "HEADRACE_KAFKA__PARTITIONS": "1"}
            process, address, triton = start(tmp_path / "up", "--kafka", broker.bootstrap, environment=environment)
            assert address == broker.bootstrap
            kafka = Kafka(broker.bootstrap, partitions=1, client=broker.client)
            producer = KafkaProducer(**kafka.kafka_python())
            producer.send("headrace.interactions.v1", value=json.dumps(interaction("ann", "tea")).encode()).get(10)
            producer.close()
            with Client(triton) as client:
                until(lambda: client.recommend("bob").items == ["tea"], 10)
            began = time.monotonic()
            assert end(process, signal.SIGINT) == 130
            assert time.monotonic() - began < 5
            assert processes_of(tmp_path / "up") == {} and given.poll() is None
        finally:
            given.kill()


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    process, _, _ = start(tmp_path / "up")
    assert len(processes_of(tmp_path / "up")) >= 4
    end(process, signal.SIGKILL)
    until(lambda: processes_of(tmp_path / "up") == {}, 8, 0.1)


def test_ctrl_c_ends_a_demo_whose_kafka_hangs(tmp_path: Path) -> None:
    command = [HEADRACE, "demo", "--dir", str(tmp_path / "demo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any("events/s" in line for line in process.stdout)
        assert send(tmp_path / "demo", r"kafka\.Kafka", signal.SIGSTOP)
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        assert time.monotonic() - began < 5
        assert "ending" in process.stdout.read()
    assert processes_of(tmp_path / "demo") == {}


def test_a_server_whose_model_process_died_answers_again_within_seconds(tmp_path: Path) -> None:
    process, _, triton = start(tmp_path / "up")
    try:
        with Client(triton) as client:
            client.recommend("ann")
            assert send(tmp_path / "up", "triton_python_backend_stub", signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(InferenceServerException):
                client.recommend("ann")
            until(lambda: _answers(client), 20, 0.1)
            assert time.monotonic() - began < 15
    finally:
        end(process, signal.SIGINT)
    assert processes_of(tmp_path / "up") == {}


@pytest.mark.parametrize("seconds", [15, pytest.param(600, marks=[pytest.mark.story, pytest.mark.timeout(800)])])
def test_while_kafka_hangs_every_answer_comes_flagged_with_its_age_and_afterwards_a_fresh_one(tmp_path: Path, seconds: int) -> None:
    from kafka import KafkaProducer

    process, address, triton = start(tmp_path / "up")

    def click(item: str) -> None:
        producer = KafkaProducer(bootstrap_servers=address)
        producer.send("headrace.interactions.v1", key=b"ann", value=json.dumps(interaction("ann", item)).encode()).get(30)
        producer.close()

    try:
        with Client(triton) as client:
            click("tea")
            until(lambda: client.recommend("bob").items == ["tea"] and not client.recommend("bob").degraded, 20)
            assert send(tmp_path / "up", r"kafka\.Kafka", signal.SIGSTOP)
            began, slowest, asked = time.monotonic(), 0.0, 0
            while (now := time.monotonic()) < began + seconds:
                answer = client.recommend("bob")
                slowest, asked = max(slowest, time.monotonic() - now), asked + 1
                assert answer.items == ["tea"]
                assert now < began + 10 or (answer.degraded and answer.state_age_ms > (now - began - 3) * 1000)
                time.sleep(0.05)
            assert slowest < 1 and asked > 10 * seconds
            assert send(tmp_path / "up", r"kafka\.Kafka", signal.SIGCONT)
            until(lambda: not client.recommend("bob").degraded, 60, 0.2)
            click("cup")
            until(lambda: set(client.recommend("bob").items) == {"tea", "cup"}, 30, 0.2)
    finally:
        end(process, signal.SIGINT)
    assert processes_of(tmp_path / "up") == {}


def _answers(client: Client) -> bool:
    try:
        return client.recommend("ann") is not None
    except InferenceServerException:
        return False


def test_a_folder_in_which_a_stack_runs_is_not_taken_from_it(stack: Running) -> None:
    done = subprocess.run([HEADRACE, "up", "--dir", str(stack.folder)], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.returncode == 1 and f"process {stack.process.pid} runs in {stack.folder}" in done.stderr
    assert stack.ask("still there") is not None


def test_a_triton_that_was_given_is_used_and_not_started(tmp_path: Path) -> None:
    broker = Broker.prepare(tmp_path / "given")
    server = TritonServer.prepare(tmp_path / "models")
    settings = Settings(kafka=Kafka(broker.bootstrap, partitions=1), triton=Triton(server.url, server.repository))
    environment = {**os.environ, **settings.environment(), **server.environment()}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(broker.command(), **quiet) as kafka, subprocess.Popen(server.command(), env=environment, **quiet) as triton:
        try:
            until(broker.answers, 20)
            flags = ["--kafka", broker.bootstrap, "--triton", server.url]
            process, _, address = start(tmp_path / "up", *flags, environment=settings.environment())
            assert address == server.url
            with Client(server.url) as client:
                until(lambda: 0 <= client.recommend("ann").state_age_ms < 5000, 30, 0.2)
            assert not any("tritonserver" in line for line in processes_of(tmp_path / "up").values())
            assert end(process, signal.SIGINT) == 130 and triton.poll() is None
        finally:
            triton.terminate()
            triton.wait(15)
            kafka.kill()


def test_a_wrong_partition_count_stops_the_start_with_the_remedy(stack: Running) -> None:
    provision(Kafka(stack.kafka.bootstrap, prefix="other.", partitions=1))
    with pytest.raises(WrongTopic, match=r"other\.timeline\.v1 has 1 partitions, it must have 3.*headrace topics --create"):
        provision(Kafka(stack.kafka.bootstrap, prefix="other.", partitions=3))
