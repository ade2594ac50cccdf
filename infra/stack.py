"""The local stack: Kafka, Triton, worker and trainer on loopback, started in order of readiness, ended together."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.bootstrap import ROOT
from infra.broker import Broker
from infra.provisioning import provision
from infra.settings import Settings, Signing, Triton
from infra.supervisor import Process, StartFailed, Supervisor
from infra.tritonserver import TritonServer
from serving.client import AsyncClient
from serving.signature import new_key

SILENCE_S = 10.0  # a Triton that has not answered for twice as long hangs
FOLDING, TRAINER = 5, 10  # how nice broker and worker are to what answers, and the trainer


class Stack:
    """What runs and where. `kafka_given` and `triton_given`: use that address, start none of our own.

    `folder` holds everything the stack writes: the broker's disk, Triton's repository, one log a process. On a machine that does all of
    it, what nobody waits for gives way to answers: the broker and the worker, and more so the trainer.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        say: Callable[[str], None],
        kafka_given: bool = False,
        triton_given: bool = False,
        sasl_password: str = "",
    ) -> None:
        self.settings, self.folder, self.say = settings, folder, say
        self._kafka_given, self._triton_given, self._password = kafka_given, triton_given, sasl_password
        self.supervisor = Supervisor(folder / "logs", say)
        self.broker: Broker | None = None
        self.times: dict[str, float] = {}
        self._later: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything; the trainer follows in the background, it is needed last and slowest to come."""
        began = time.monotonic()
        if not self._kafka_given:
            self.broker = await asyncio.to_thread(Broker.prepare, self.folder / "kafka", self._password)
            kafka = dataclasses.replace(self.settings.kafka, bootstrap=self.broker.bootstrap, client=self.broker.client)
            self.settings = self.settings.model_copy(update={"kafka": kafka})
            await self._start(Process("kafka", self.broker.command, self._kafka_answers, gives_way=FOLDING))
        await asyncio.to_thread(provision, self.settings.kafka)
        servers = []
        if not self._triton_given:
            server = TritonServer.prepare(self.folder / "models")
            server.sweep()
            key = self.settings.signing.key or self.folder / "signing.key"
            self.settings = self.settings.model_copy(
                update={"triton": Triton(server.url, server.repository), "signing": Signing(key, new_key(key))}
            )
            public = self.settings.model_copy(update={"signing": Signing(trusted=self.settings.signing.trusted)})
            environment = {**public.environment(), **server.environment()}
            servers.append(Process("triton", server.command, self._triton_answers, environment, fails=self._triton_fails))
        servers.append(self.worker(0))
        await asyncio.gather(*(self._start(process) for process in servers))
        self._later = asyncio.create_task(self._start_trainer())
        self.times["started"] = round(time.monotonic() - began, 2)

    async def _start(self, process: Process) -> None:
        seconds = await self.supervisor.start(process)
        self.times[process.name] = round(seconds, 2)
        self.say(f"{process.name} ready after {seconds:.1f} s")

    def worker(self, number: int) -> Process:
        ready = self.folder / f"worker-{number}.ready"
        command = [sys.executable, "-m", "infra.cli", "worker", "--name", f"worker-{number}", "--ready", str(ready)]
        return self._python(f"worker-{number}", command, ready, gives_way=FOLDING)

    def _python(self, name: str, command: list[str], ready: Path, gives_way: int) -> Process:
        async def is_ready() -> bool:
            return ready.exists()

        def start() -> list[str]:
            ready.unlink(missing_ok=True)
            return command

        environment = {**self.settings.environment(), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        return Process(name, start, is_ready, environment, gives_way=gives_way)

    async def _start_trainer(self) -> None:
        if importlib.util.find_spec("torch") is None:
            if not await self._install_torch():
                self.say("torch could not be installed: there will be no deep model; `make setup` says more")
                return
        ready = self.folder / "trainer.ready"
        command = [sys.executable, "-m", "infra.cli", "trainer", "--ready", str(ready)]
        try:
            await self._start(dataclasses.replace(self._python("trainer", command, ready, gives_way=TRAINER), deadline_s=180))
        except StartFailed as failed:
            self.say(f"no deep model: {failed}")

    async def _install_torch(self) -> bool:
        command, stdin = self.supervisor.guarded([sys.executable, str(ROOT / "infra" / "bootstrap.py"), "train"])
        install = await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            assert install.stdout is not None
            async for line in install.stdout:
                self.say(line.decode().strip())
            return await install.wait() == 0
        finally:
            if install.returncode is None:  # Ctrl-C: the installer and what it started go too
                os.killpg(install.pid, signal.SIGKILL)

    async def _kafka_answers(self) -> bool:
        assert self.broker is not None
        return await asyncio.to_thread(self.broker.answers)

    async def _triton_answers(self) -> bool:
        client = AsyncClient(self.settings.triton.url)
        try:
            return await client.is_ready()
        finally:
            await client.close()

    async def _triton_fails(self) -> str | None:
        """A dead stub is known at once, one that hangs by its silence: a busy server answers late, too."""
        client = AsyncClient(self.settings.triton.url, timeout_s=SILENCE_S)
        try:
            return await client.failure()
        finally:
            await client.close()

    async def stop(self) -> None:
        """End everything that was started; nothing is left."""
        if self._later is not None:
            self._later.cancel()
            await asyncio.gather(self._later, return_exceptions=True)
        await self.supervisor.stop()
        if self.broker is not None:
            self.broker.keep_archive()
