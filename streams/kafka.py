"""Where Kafka is and how to reach it: one mapping, handed to every Kafka client we use.

`[kafka.client]` is written with librdkafka's names (`security.protocol`, `sasl.mechanism`, `ssl.ca.location`, …);
aiokafka and kafka-python get the same facts under their own names.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:  # Triton's environment has no aiokafka
    from aiokafka import AIOKafkaProducer

# librdkafka's name -> the name aiokafka and kafka-python give it. The ssl.* files become an SSL context (aiokafka)
# or keep their own names (kafka-python).
_PYTHON_NAMES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
}
_SSL_NAMES = {
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Kafka:
    """A cluster and our names in it.

    `bootstrap`: host:port, several separated by commas. `prefix`: what every topic, group and transactional id of
    ours begins with. `partitions`: of the timeline and the online state (the inputs may have any number): so many workers can share
    it at most, and what each of them knows is a little less than what one would (docs/quality.md).
    `client`: extra client settings in librdkafka's names, see `_PYTHON_NAMES` and `_SSL_NAMES` for the ones known.
    """

    bootstrap: str = "127.0.0.1:9092"
    prefix: str = "headrace."
    partitions: int = 1
    replication: int = 1
    client: dict[str, str] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        known = _PYTHON_NAMES.keys() | _SSL_NAMES.keys()
        for name in self.client:
            if name not in known:
                raise ValueError(f"kafka.client: unknown setting {name!r}; known are {', '.join(sorted(known))}")

    def aiokafka(self) -> dict[str, Any]:
        """Settings for aiokafka's clients."""
        settings: dict[str, Any] = {_PYTHON_NAMES[k]: v for k, v in self.client.items() if k in _PYTHON_NAMES}
        files = {_SSL_NAMES[k]: v for k, v in self.client.items() if k in _SSL_NAMES}
        if "SSL" in settings.get("security_protocol", ""):
            context = ssl.create_default_context(cafile=files.get("ssl_cafile"))
            if "ssl_certfile" in files:
                context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
            settings["ssl_context"] = context
        return {"bootstrap_servers": self.bootstrap, **settings}

    def kafka_python(self) -> dict[str, Any]:
        """Settings for kafka-python's clients."""
        names = _PYTHON_NAMES | _SSL_NAMES
        return {"bootstrap_servers": self.bootstrap.split(","), **{names[k]: v for k, v in self.client.items()}}

    def confluent(self) -> dict[str, Any]:
        """Settings for confluent-kafka's clients."""
        return {"bootstrap.servers": self.bootstrap, "log_level": 2, **self.client}


async def discard(producer: AIOKafkaProducer, within_s: float = 5.0) -> None:
    """Throw a producer away, whatever state it or the broker is in: what it has not sent by then it never sends."""
    try:
        await asyncio.wait_for(producer.stop(), within_s)
    except Exception:  # `stop` waits for a flush that cannot end; what it would have closed after that:
        for end in (producer._sender.close, producer.client.close):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(end(), 1)
