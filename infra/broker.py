"""The local broker: Apache Kafka (KRaft, one node) from its Maven artefacts, on loopback, on a disk of its own."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from infra.bootstrap import JARS, TOOLS
from infra.ports import HOST, free_ports

_JVM = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr"]


@dataclass(frozen=True)
class Broker:
    """A broker's folder and ports. `password`: then clients must log in as `headrace` by SASL PLAIN."""

    folder: Path
    port: int
    controller: int
    password: str = ""

    @staticmethod
    def prepare(folder: Path, password: str = "") -> Broker:
        """Write the configuration and format the disk."""
        port, controller = free_ports(2)
        broker = Broker(folder, port, controller, password)
        folder.mkdir(parents=True, exist_ok=True)
        door = "SASL_PLAINTEXT" if password else "PLAINTEXT"
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"{door}://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"{door}://{HOST}:{port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": door,
            "listener.security.protocol.map": f"{door}:{door},CONTROLLER:PLAINTEXT",
            "log.dirs": str(folder / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "log.cleaner.dedupe.buffer.size": str(16 << 20),  # its default, 128 MB, is a quarter of this heap
            "broker.session.timeout.ms": "2000",  # a restarted broker has to outwait its own old session
            "broker.heartbeat.interval.ms": "500",
        }
        if password:
            login = (
                f'org.apache.kafka.common.security.plain.PlainLoginModule required username="headrace" '
                f'password="{password}" user_headrace="{password}";'
            )
            lines |= {
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                f"listener.name.{door.lower()}.plain.sasl.jaas.config": login,
            }
        properties = folder / "server.properties"
        properties.touch(mode=0o600)
        properties.write_text("".join(f"{k}={v}\n" for k, v in lines.items()))
        subprocess.run(
            ["java", *_JVM, "-cp", f"{JARS}/*", "kafka.tools.StorageTool", "format", "-t", str(uuid4()), "-c", str(properties)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
        return broker

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def client(self) -> dict[str, str]:
        """What clients have to say to it (`Kafka.client`)."""
        if not self.password:
            return {}
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "headrace",
            "sasl.password": self.password,
        }

    def command(self) -> list[str]:
        """The first stop leaves an archive of loaded classes behind: later starts take a third of the time."""
        archive = TOOLS / "kafka-classes.jsa"
        share = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else [f"-XX:ArchiveClassesAtExit={archive}.{os.getpid()}"]
        return ["java", *_JVM, *share, "-cp", f"{JARS}/*", "kafka.Kafka", str(self.folder / "server.properties")]

    def keep_archive(self) -> None:
        """After a clean stop: put the class archive where the next start finds it."""
        written = TOOLS / f"kafka-classes.jsa.{os.getpid()}"
        if written.exists():
            written.rename(TOOLS / "kafka-classes.jsa")

    def answers(self) -> bool:
        """Does it answer an ApiVersions request? Needs no client library, and no login."""
        request = struct.pack(">hhih", 18, 0, 1, -1)
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as s:
                s.sendall(struct.pack(">i", len(request)) + request)
                return len(s.recv(4)) == 4
        except OSError:
            return False
