"""The supervisor: order, restarts, deadlines, and nothing left behind, also when it is killed itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.supervisor import Process, StartFailed, Supervisor

SLEEPER = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); time.sleep(99)",
]


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_dies_is_started_again_and_stop_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        said: list[str] = []
        supervisor = Supervisor(tmp_path, said.append)
        await supervisor.start(Process("sleeper", lambda: SLEEPER, at_once))
        first = supervisor.running["sleeper"].pid
        os.kill(first, signal.SIGKILL)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if supervisor.running["sleeper"].pid != first:
                break
        second = supervisor.running["sleeper"].pid
        assert second != first
        assert supervisor.restarts == {"sleeper": 1}
        assert any("ended with -9" in line for line in said)
        began = time.monotonic()
        await supervisor.stop()
        assert time.monotonic() - began < 5
        assert not alive(first)
        assert not alive(second)

    asyncio.run(run())


def test_what_fails_twice_in_a_row_is_started_again_and_what_recovers_is_not(tmp_path: Path) -> None:
    told = iter(["ill", None, "ill", None, "ill", "still ill"])

    async def fails() -> str | None:
        return next(told, None)

    async def run() -> None:
        said: list[str] = []
        supervisor = Supervisor(tmp_path, said.append)
        await supervisor.start(Process("sleeper", lambda: SLEEPER, at_once, fails=fails))
        first = supervisor.running["sleeper"].pid
        for _ in range(120):
            await asyncio.sleep(0.05)
            if supervisor.running["sleeper"].pid != first:
                break
        assert next(told, "all told") == "all told" and supervisor.running["sleeper"].pid != first
        assert said[0] == "sleeper fails: still ill"
        await supervisor.stop()
        for _ in range(60):  # what was killed is gone when init has heard of it
            if not alive(first):
                break
            await asyncio.sleep(0.05)
        assert not alive(first)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "said"),
    [("print('no disk'); raise SystemExit(3)", "ended with 3.*no disk"), ("import time; time.sleep(9)", "not ready after 1 s")],
)
def test_a_failed_start_says_why_and_where_its_log_is(code: str, said: str, tmp_path: Path) -> None:
    async def run() -> None:
        supervisor = Supervisor(tmp_path, lambda text: None)
        try:
            await supervisor.start(Process("bad", lambda: [sys.executable, "-uc", code], never, deadline_s=1))
        finally:
            await supervisor.stop()

    with pytest.raises(StartFailed, match=f"(?s){said}"):
        asyncio.run(run())


# "/autogroup-<id> nice <n>"; empty for a session that began where autogroups do not count
GROUP = Path("/proc/self/autogroup")


@pytest.mark.parametrize("by", [0, 5])
def test_who_gives_way_is_nicer_and_so_is_its_session(by: int, tmp_path: Path) -> None:
    code = f"import os, time; print(os.nice(0), {GROUP.exists()} and open('{GROUP}').read().split()[-1:], flush=True); time.sleep(99)"

    async def run() -> None:
        async def has_told() -> bool:
            return bool((tmp_path / "p.log").read_bytes().strip())

        supervisor = Supervisor(tmp_path, print)
        await supervisor.start(Process("p", lambda: [sys.executable, "-c", code], has_told, gives_way=by))
        await supervisor.stop()

    asyncio.run(run())
    # As for another new session: this one may have begun before autogroups counted.
    weighed = GROUP.exists() and subprocess.check_output(["cat", GROUP], start_new_session=True).split()[-1:]
    assert (tmp_path / "p.log").read_text() == f"{min(os.nice(0) + by, 19)} {weighed and [str(by)]}\n"


@pytest.mark.parametrize("when", ["later", "in the moment of the start"])
def test_a_killed_supervisor_leaves_no_orphan(when: str, tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal, subprocess, sys
from pathlib import Path
from infra.supervisor import Process, Supervisor
class Started(subprocess.Popen):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        if {when != "later"} and "sh" in args[0]:
            print(self.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
subprocess.Popen = Started
async def run():
    async def ready(): return True
    supervisor = Supervisor(Path({str(tmp_path)!r}), print)
    await supervisor.start(Process("sleeper", lambda: {SLEEPER!r}, ready))
    print(supervisor.running["sleeper"].pid, flush=True)
    await asyncio.sleep(99)
asyncio.run(run())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        group = int(child.stdout.readline())
        assert alive(group) or when != "later"
        child.kill()
        child.wait()
    deadline = time.monotonic() + 5
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(group)


def test_a_guardian_that_was_killed_is_replaced_and_knows_what_runs(tmp_path: Path) -> None:
    async def run() -> None:
        supervisor = Supervisor(tmp_path, lambda text: None)
        await supervisor.start(Process("first", lambda: SLEEPER, at_once))
        assert supervisor._guardian is not None
        supervisor._guardian.kill()
        supervisor._guardian.wait()
        await supervisor.start(Process("second", lambda: SLEEPER, at_once))
        groups = [child.pid for child in supervisor.running.values()]
        assert supervisor._guardian.stdin is not None
        for task in supervisor._watchers.values():
            task.cancel()
        supervisor._guardian.stdin.close()  # as the kernel does it when we are killed
        await asyncio.to_thread(supervisor._guardian.wait, 5)
        for child in supervisor.running.values():
            await asyncio.to_thread(child.wait, 5)
        deadline = time.monotonic() + 5
        while any(map(alive, groups)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert not any(map(alive, groups))

    asyncio.run(run())
