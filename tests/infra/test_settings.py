"""Settings: flag > environment > file > default; what is unknown is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.settings import Settings


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text('[kafka]\nbootstrap = "file:1"\npartitions = 8\n[kafka.client]\n"sasl.mechanism" = "PLAIN"\n')
    monkeypatch.setenv("HEADRACE_KAFKA__BOOTSTRAP", "environment:1")
    settings = Settings()
    assert (settings.kafka.bootstrap, settings.kafka.partitions, settings.kafka.prefix) == ("environment:1", 8, "headrace.")
    assert settings.kafka.client == {"sasl.mechanism": "PLAIN"}


def test_settings_survive_the_way_to_a_process_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_KAFKA__CLIENT", '{"sasl.mechanism": "PLAIN"}')
    monkeypatch.setenv("HEADRACE_POLICY__COOL_DOWN_S", "1.5")
    settings = Settings()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize("text", ["[kafka]\nbootstrpa = 'x'\n", "[kafak]\nbootstrap = 'x'\n", "[kafka]\npartitions = 'many'\n"])
def test_a_misspelt_or_wrong_setting_is_an_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(text)
    with pytest.raises(ValidationError):
        Settings()
