"""Is everything there and reachable? Each finding is (what, is it well, what was found or how to mend it)."""

from __future__ import annotations

import importlib.util
import shutil
import time

from infra.bootstrap import JARS, ROOT, TRITON, libpython
from infra.ports import is_answered
from infra.provisioning import existing
from infra.settings import Settings
from streams.topics import WrongTopic, check, topics

Finding = tuple[str, bool, str]


def examine(settings: Settings) -> list[Finding]:
    findings: list[Finding] = [_tool("java", "apt-get install -y openjdk-17-jre-headless"), _tool("mvn", "apt-get install -y maven")]
    there = (TRITON / "bin" / "python").exists()
    place = libpython(TRITON / "bin" / "python") if there else None
    findings.append(("triton env", there and place is not None, f"libpython in {place}" if place else "make setup"))
    findings.append(("kafka jars", JARS.exists(), str(JARS) if JARS.exists() else "make setup"))
    has_torch = importlib.util.find_spec("torch") is not None
    findings.append(("torch", has_torch, "installed" if has_torch else "python3.11 infra/bootstrap.py train"))
    free = shutil.disk_usage(ROOT).free >> 30
    findings.append(("disk", free >= 2, f"{free} GiB free in {ROOT}" + ("" if free >= 2 else "; at least 2 are needed")))
    findings += _kafka(settings)
    findings.append(_triton(settings))
    return findings


def _tool(name: str, remedy: str) -> Finding:
    found = shutil.which(name)
    return name, found is not None, found or remedy


def _kafka(settings: Settings) -> list[Finding]:
    kafka = settings.kafka
    remedy = "start one with `headrace up`, or set --kafka"
    if not any(map(is_answered, kafka.bootstrap.split(","))):
        return [("kafka", False, f"nobody answers at {kafka.bootstrap}; {remedy}")]
    try:
        found = existing(kafka)
    except Exception as error:  # whatever it is: it cannot be reached
        return [("kafka", False, f"{kafka.bootstrap}: {type(error).__name__} {error}; {remedy}")]
    findings: list[Finding] = [("kafka", True, kafka.bootstrap)]
    missing = [t.name for t in topics(kafka) if t.name not in found]
    try:
        check(kafka, found)
        findings.append(
            ("topics", not missing, f"missing {', '.join(missing)}: headrace topics --create" if missing else f"all {len(found)}")
        )
    except WrongTopic as wrong:
        findings.append(("topics", False, str(wrong)))
    if not missing:
        from infra.control import standings
        from streams.recommender import STALE_MS

        ages = [int(time.time() * 1000) - s.as_of for s in standings(kafka).values()]
        fresh = len(ages) == kafka.partitions and max(ages, default=1 << 40) < STALE_MS
        findings.append(
            ("worker", fresh, f"state at most {max(ages)} ms old" if fresh else "no fresh state: is `headrace worker` running?")
        )
    return findings


def _triton(settings: Settings) -> Finding:
    from serving.client import Client

    if not is_answered(settings.triton.url):
        return "triton", False, f"nobody answers at {settings.triton.url}; start one with `headrace up`, or set --triton"
    try:
        with Client(settings.triton.url) as client:
            answer = client.recommend("", 1)
    except Exception as error:  # whatever it is: it does not answer
        return "triton", False, f"{settings.triton.url}: {str(error)[:120]}; start one with `headrace up`, or set --triton"
    return "triton", True, f"{settings.triton.url}, model version {answer.model_version}, state {answer.state_age_ms} ms old"
