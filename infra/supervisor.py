"""The supervisor: starts processes in order of readiness, starts again what dies or fails, ends everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

STEADY_S = 30.0  # a process that lived so long has earned a fresh back-off
ASK_S = 0.5  # between two questions whether a process fails
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # before the 1st, 2nd, … restart; then the last one


def nicely(gives_way: int) -> str:
    """What a shell says before a command that gives way to others: Linux weighs sessions before processes (`sched_autogroup_enabled`), so
    that niceness alone means nothing between them. It is for a shell in a session of its own.
    """
    return f"{{ echo {gives_way} >/proc/self/autogroup; }} 2>/dev/null; exec nice -n {gives_way}" if gives_way else "exec"


class StartFailed(Exception):
    """A process was not ready by its deadline; the text names its log."""


@dataclass
class Process:
    """What to run: `command` is asked for at each start. `ready` is asked until it says yes, for at most `deadline_s`. From then on `fails`
    says why it will not come back by itself, or None; twice in a row, and it is started again. `gives_way`: how nice it is to the others.
    """

    name: str
    command: Callable[[], list[str]]
    ready: Callable[[], Awaitable[bool]]
    environment: dict[str, str] = field(default_factory=dict)
    deadline_s: float = 90.0
    fails: Callable[[], Awaitable[str | None]] | None = None
    gives_way: int = 0


class Supervisor:
    """Runs processes; their output goes to one file each in `logs`. `say` gets a line for each thing that happens."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self.logs, self.say = logs, say
        logs.mkdir(parents=True, exist_ok=True)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts: dict[str, int] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self.ending = False  # nothing is started again from then on
        self._guardian: subprocess.Popen[bytes] | None = None

    async def start(self, process: Process) -> float:
        """Start it and wait until it is ready; returns the seconds that took. Raises `StartFailed`."""
        began = time.monotonic()
        self._spawn(process)
        await self._until_ready(process)
        self._watchers[process.name] = asyncio.create_task(self._watch(process))
        return time.monotonic() - began

    async def _until_ready(self, process: Process) -> None:
        deadline = time.monotonic() + process.deadline_s
        while not await process.ready():
            died = self.running[process.name].poll()
            if died is not None:
                raise StartFailed(f"{process.name} ended with {died} before it was ready; {self._tail(process)}")
            if time.monotonic() > deadline:
                self._kill(process.name, signal.SIGKILL)
                raise StartFailed(f"{process.name} was not ready after {process.deadline_s:.0f} s; {self._tail(process)}")
            await asyncio.sleep(0.05)

    def _tail(self, process: Process) -> str:
        file = self.logs / f"{process.name}.log"
        return f"its log {file} ends:\n" + "\n".join(file.read_text(errors="replace").splitlines()[-15:])

    def _spawn(self, process: Process) -> None:
        with open(self.logs / f"{process.name}.log", "ab") as out:
            command, stdin = self.guarded(process.command(), process.gives_way)
            child = subprocess.Popen(
                command, stdin=stdin, stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, **process.environment}, start_new_session=True,
            )  # fmt: skip
        self.running[process.name] = child

    async def _watch(self, process: Process) -> None:
        failures = 0
        while not self.ending:
            child, began = self.running[process.name], time.monotonic()
            await self._until_over(process, child)
            if self.ending:
                return
            self._kill(process.name, signal.SIGKILL)  # what it left behind in its group
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            wait = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1]
            self.restarts[process.name] = self.restarts.get(process.name, 0) + 1
            self.say(f"{process.name} ended with {child.returncode}; starting it again in {wait} s")
            await asyncio.sleep(wait)
            try:
                self._spawn(process)
                await self._until_ready(process)
                self.say(f"{process.name} is back")
            except StartFailed as failed:
                self.say(str(failed).splitlines()[0])

    async def _until_over(self, process: Process, child: subprocess.Popen[bytes]) -> None:
        """Until it has ended; one that fails is ended."""
        failed, asked = 0, time.monotonic()
        while child.poll() is None:
            await asyncio.sleep(0.1)
            if process.fails is None or time.monotonic() - asked < ASK_S:
                continue
            why = await process.fails()
            failed, asked = failed + 1 if why else 0, time.monotonic()
            if failed == 2 and not self.ending:
                self.say(f"{process.name} fails: {why}")
                self._kill(process.name, signal.SIGKILL)

    def _kill(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running[name].pid, number)

    def guarded(self, command: list[str], gives_way: int = 0) -> tuple[list[str], IO[bytes]]:
        """(command, standard input) for a process in a session of its own that the guardian ends, should we be killed.

        It tells the guardian itself, before it becomes `command`: between our starting it and our telling we might be killed.
        """
        if self._guardian is None or self._guardian.poll() is not None:
            self._leave_guardian()
            self._guardian = subprocess.Popen([sys.executable, "-m", "infra.guardian"], stdin=subprocess.PIPE, start_new_session=True)
            for child in self.running.values():
                self._tell_guardian(f"+{child.pid}")
        assert self._guardian.stdin is not None
        return ["/bin/sh", "-c", f'echo "+$$" >&0; {nicely(gives_way)} "$@" </dev/null', "sh", *command], self._guardian.stdin

    def _tell_guardian(self, line: str) -> None:
        assert self._guardian is not None and self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            self._guardian.stdin.write(f"{line}\n".encode())
            self._guardian.stdin.flush()

    async def stop(self) -> None:
        """End everything, the last started first asked; what does not go in time is killed. At most about 4 s."""
        self.ending = True
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        names = list(reversed(self.running))
        # The broker goes last, so that the others can end their transactions; all the others at once.
        for group in ([n for n in names if n != "kafka"], [n for n in names if n == "kafka"]):
            for name in group:
                self._kill(name, signal.SIGTERM)
            deadline = time.monotonic() + (2.2 if group != ["kafka"] else 1.5)
            while time.monotonic() < deadline and any(self.running[n].poll() is None for n in group):
                await asyncio.sleep(0.05)
            for name in group:
                self._kill(name, signal.SIGKILL)  # also what it left behind
                self.running[name].wait()
                self._tell_guardian(f"-{self.running[name].pid}")
        self._leave_guardian()

    def _leave_guardian(self) -> None:
        """It ends whatever it still knows of."""
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian.wait()
