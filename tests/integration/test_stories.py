"""The longer stories: an undisturbed stream raises no alert; every process is killed once and the loop still closes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import HEADRACE, ROOT, lacking, processes_of, send

pytestmark = [pytest.mark.story, pytest.mark.timeout(900), pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


def test_an_undisturbed_stream_raises_no_drift_alert(tmp_path: Path) -> None:
    command = [HEADRACE, "demo", "--no-drift", "--json", "--dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["drift_alerts"] == 0, done.stderr[-4000:]
    assert document["armed_s"] is not None and document["records"]["balanced"]
    told = ROOT / ".headrace" / "demo.json"
    assert told.exists(), "`make test` comes before: it leaves there what a story with a drift took"
    drifting = json.loads(told.read_text())["after_planted_s"]["alerted"]
    assert document["story_s"] - document["armed_s"] >= 3 * drifting


KILLS = [  # (a line of the story, what is killed then)
    ("LIVE version 1", r"infra\.cli worker"),
    ("ARMED", r"bin/tritonserver"),
    ("PLANTED", r"kafka\.Kafka"),
    ("TRAINING of version 2", r"infra\.cli trainer"),
]


def test_worker_triton_broker_and_trainer_are_killed_once_and_the_story_still_ends_in_a_live_release(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [HEADRACE, "demo", "--until", "promoted", "--json", "--deadline", "420", "--dir", str(folder)]
    said: list[str] = []
    killed: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if len(killed) < len(KILLS) and KILLS[len(killed)][0] in line:
                time.sleep(2)  # in the middle of what follows
                assert send(folder, KILLS[len(killed)][1], signal.SIGKILL), f"no {KILLS[len(killed)][1]} to kill\n" + "".join(said[-20:])
                killed.append(KILLS[len(killed)][1])
        document = json.loads(process.stdout.read())
        assert process.wait(20) == 0, "".join(said[-40:])
    assert len(killed) == len(KILLS)
    assert document["promoted"] and document["records"]["balanced"], document["records"]
    assert {"worker-0", "triton", "kafka", "trainer"} == document["restarts"].keys()
    assert processes_of(folder) == {}
