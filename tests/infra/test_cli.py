"""The command line: every command has help, wrong usage exits with 2, nothing running with 1 and a hint."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.cli import main, parser

HEADRACE = str(Path(sys.executable).parent / "headrace")
README = Path(__file__).parent.parent.parent / "README.md"


def commands() -> list[str]:
    (action,) = (a for a in parser()._actions if a.dest == "command")
    return list(action.choices or ())


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text()
    assert [c for c in commands() if not re.search(rf"`headrace [^`]*\b{c}\b", text)] == []


def test_no_command_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().err


WRONG = [
    "nonsense", "ask", "ask ann --bogus", "ask ann --k 0", "ask ann --kafka nonsense", "release promote x", "demo --events -1",
    "demo --asks nan", "demo --armed-for -5",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_exits_with_2_and_the_commands_own_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert f"usage: headrace {line.split()[0] if line != 'nonsense' else '['}" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["ask ann --triton", "release list --kafka", "watch --kafka", "dlq list --kafka", "retrain --kafka"])
def test_nobody_there_exits_with_3_and_a_hint_at_once(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main([*line.split(), "127.0.0.1:1"]) == 3
    said = capsys.readouterr().err
    assert "answers at 127.0.0.1:1" in said and "headrace doctor" in said
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("k", ["0", "101"])
def test_a_list_that_is_too_short_or_too_long_is_wrong_usage(k: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "ann", "-k", k]) == 2
    assert f"-k {k}: a list has 1 to 100 items" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    """As `headrace schema export | head -1` does it."""
    with subprocess.Popen([HEADRACE, "schema", "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # before it has written anything
        assert process.stderr.read() == ""


def test_schemas_are_written_one_file_a_topic(tmp_path: Path) -> None:
    assert main(["schema", "export", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "interactions.v1.json").read_text())
    assert document["required"] == ["user", "item", "kind", "at"]


def test_a_file_that_is_no_data_is_refused_with_what_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("who,what\n1,2\n")
    assert main(["replay", str(tmp_path / "x.csv")]) == 1
    assert "user,item,value,timestamp" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none.csv")]) == 3
    assert "none.csv does not exist" in capsys.readouterr().err


def test_a_folder_that_is_not_ours_is_not_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("x")
    assert main(["up", "--dir", str(tmp_path)]) == 1
    assert "is not empty and no run of ours wrote it" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").exists()
