"""One run a folder, and the file by which the other commands find what runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra import running
from infra.running import MARK, NotOurs, announce, announced, claim, forget
from infra.settings import Settings

HOLD = """
import sys
from pathlib import Path
from infra.running import claim
lock = claim(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_folder_is_emptied_once_its_run_has_ended(tmp_path: Path) -> None:
    with claim(tmp_path / "run"):
        (tmp_path / "run" / "kafka").mkdir()
        (tmp_path / "run" / "kafka" / "data").write_text("x")
        (tmp_path / "run" / "link").symlink_to(tmp_path)
    with claim(tmp_path / "run"):
        assert [entry.name for entry in (tmp_path / "run").iterdir()] == [MARK]
    assert tmp_path.exists()


def test_a_folder_in_which_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == b"held\n"
        (tmp_path / "run" / "data").write_text("precious")
        with pytest.raises(NotOurs, match=rf"process {other.pid} runs in .*--dir another folder"):
            claim(tmp_path / "run")
        assert (tmp_path / "run" / "data").read_text() == "precious"
        other.kill()  # a kernel lock ends with its owner, however that ends
        other.wait()
    claim(tmp_path / "run").close()
    assert not (tmp_path / "run" / "data").exists()


def test_a_folder_that_no_run_of_ours_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(NotOurs, match="no run of ours wrote it"):
        claim(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]


def test_the_first_stack_is_found_until_it_ends_and_a_second_one_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FOLDER", tmp_path)
    monkeypatch.setattr(running, "FILE", tmp_path / "running.json")
    assert announced() is None
    first = announce(Settings())
    there = announced()
    assert there is not None and there["triton"] == Settings().triton.url
    assert announce(Settings()) is None
    forget(None)  # what the second one does at its end
    assert announced() == there
    forget(first)
    assert announced() is None and not (tmp_path / "running.json").exists()


def test_what_a_killed_stack_left_behind_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FOLDER", tmp_path)
    monkeypatch.setattr(running, "FILE", tmp_path / "running.json")
    (tmp_path / "running.json").write_text('{"pid": 1, "kafka": {}, "triton": "x"}')
    assert announced() is None
    forget(announce(Settings()))
