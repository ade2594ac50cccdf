"""Which stack runs here: a lock on its folder, and a file by which the other commands find it. Kernel locks end with their owner."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from infra.bootstrap import ROOT
from infra.settings import Settings

FOLDER = ROOT / ".headrace"
FILE = FOLDER / "running.json"
MARK = ".headrace-run"  # in a folder that a run may empty


class NotOurs(Exception):
    """A folder that is not ours to empty; the text says why and what to do."""


def _held(file: Path) -> IO[str] | None:
    """The file, locked until it is closed or we end; None where somebody else holds it."""
    opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        return None
    return opened


def claim(folder: Path) -> IO[str]:
    """Empty `folder` for a run of ours, which has it for itself while it keeps what this returns open.

    What an ended run left there is removed. Raises `NotOurs` where another run is in it, or where no run of ours wrote it.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise NotOurs(f"{folder} is not empty and no run of ours wrote it: give --dir a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = _held(mark)
    if lock is None:
        raise NotOurs(f"process {mark.read_text() or '?'} runs in {folder}: end it, or give --dir another folder")
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != mark:
            entry.unlink()
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def announce(settings: Settings) -> IO[str] | None:
    """Let the other commands find this stack; None where another one is announced and runs.

    The file is there while what this returns is open; `forget` removes it.
    """
    FOLDER.mkdir(exist_ok=True)
    file = _held(FILE)
    if file is not None:
        there = {"pid": os.getpid(), "kafka": dataclasses.asdict(settings.kafka), "triton": settings.triton.url}
        file.truncate()
        file.write(json.dumps(there))
        file.flush()
    return file


def forget(file: IO[str] | None) -> None:
    if file is not None:
        FILE.unlink(missing_ok=True)
        file.close()


def announced() -> dict[str, Any] | None:
    """Pid and addresses of the stack that runs here; None where none does."""
    try:
        with open(FILE) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return None
    return None  # nobody holds it: its owner was killed
