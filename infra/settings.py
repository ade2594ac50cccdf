"""The settings, assembled once: flag > HEADRACE_… environment > headrace.toml > default. Each room owns its own part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from feedback.policy import Policy
from learners.online import Memory
from learners.training import Training
from serving.release import Rollout
from streams.kafka import Kafka

strict = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=strict)
class Triton:
    """`url`: host:port of its gRPC door. `repository`: its model repository, which the trainer writes into."""

    url: str = "127.0.0.1:8001"
    repository: Path = Path("/models")


@dataclass(frozen=True, config=strict)
class Serving:
    """`temperature` of exploration (0 = always the best list); `boot_s`: how long a starting server may catch up."""

    temperature: float = 0.0
    boot_s: float = 20.0


@dataclass(frozen=True, config=strict)
class Signing:
    """`key`: file of the trainer's private key (PEM). `trusted`: the public key in hex; a server that has one loads nothing else.

    `headrace release key FILE` makes a pair; the local stack has one of its own.
    """

    key: Path | None = None
    trusted: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Settings(BaseSettings):
    """Everything that can be set. An unknown name is an error."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_", env_nested_delimiter="__", toml_file="headrace.toml", extra="forbid", frozen=True
    )

    kafka: Kafka = Kafka()
    triton: Triton = Triton()
    serving: Serving = Serving()
    memory: Memory = Memory()
    policy: Policy = Policy()
    training: Training = Training()
    rollout: Rollout = Rollout()
    signing: Signing = Signing()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a process that we start."""
        parts: dict[str, Any] = self.model_dump(mode="json")
        return {f"HEADRACE_{name.upper()}": json.dumps(part) for name, part in parts.items()}
