"""Publishing: a sealed bundle into Triton's repository, next to those that serve, proven before it is named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.utils import InferenceServerException

from serving.bundle import LOADING, folder_of, verify
from serving.client import Client
from serving.failpoint import failpoint

PAUSE_S = 0.05


class NotPublished(Exception):
    """The version is not served; the old ones are. The text says why."""


class Superseded(Exception):
    """Another trainer has begun since: whatever this one does to the repository is wrong."""


@dataclass(frozen=True)
class Claim:
    """A trainer's hold on a repository, by its epoch: what a trainer that was paused wakes up to find is another's."""

    repository: Path
    epoch: int

    @property
    def _file(self) -> Path:
        return self.repository.with_name(self.repository.name + ".epoch")

    @staticmethod
    def after(repository: Path, epoch: int) -> Claim:
        """The claim of one who begins: a higher epoch than `epoch`, the last that the release topic knows, and than any that the repository
        had (a trainer may have gone before it said anything; a topic may be younger than the repository).
        """
        claim = Claim(repository, 1 + max(epoch, Claim(repository, 0)._there()))
        claim._take()
        return claim

    def _there(self) -> int:
        try:
            return int(self._file.read_text())
        except (OSError, ValueError):  # none yet, or not a whole one
            return 0

    def _take(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(self._file.name + ".new")
        failpoint("publish.claim")
        fresh.write_text(str(self.epoch))
        _sync(fresh)
        failpoint("publish.claimed")
        os.replace(fresh, self._file)

    def mine(self, path: Path) -> Path:
        """`path`, which is in the repository; raises `Superseded` where that is no longer ours."""
        if (there := self._there()) != self.epoch:
            raise Superseded(f"the epoch {self.epoch} is over, the repository is of epoch {there}")
        return path


def publish(
    staged: Path, claim: Claim, url: str, version: int, keep: Callable[[], Sequence[int]], trusted: str = "", timeout_s: float = 60.0
) -> float:
    """Move the sealed bundle `staged` into the repository, and wait until the server there has loaded and proven it.

    Written beside the repository, synced, renamed in: a half-written version is never visible. The bundles of those that are neither this
    one nor in `keep()`, asked at the end, are removed.

    Returns the seconds it took. Raises `NotPublished`, with the old versions serving as before, or `Superseded`, with nothing touched from
    then on.
    """
    began, target = time.monotonic(), folder_of(claim.repository, version)
    verify(staged, trusted=trusted, version=version)
    for path in (*staged.iterdir(), staged):
        _sync(path)
    claim.mine(target.parent).mkdir(exist_ok=True)
    if target.exists():  # a former try that nobody named
        _remove(claim, target)
    failpoint("publish.synced")
    staged.rename(claim.mine(target))
    failpoint("publish.renamed")
    _sync(target.parent)
    try:
        failpoint("publish.prove")
        prove(url, version, timeout_s)
        failpoint("publish.proved")
    except NotPublished:
        _remove(claim, target)
        raise
    kept = {str(v) for v in (*keep(), version)}
    for folder in target.parent.iterdir():
        if folder.name not in kept:
            _remove(claim, folder)
    failpoint("publish.pruned")
    return time.monotonic() - began


def prove(url: str, version: int, timeout_s: float = 60.0) -> None:
    """Wait until the server answers by that version; `NotPublished`, with its reason, where it cannot. It loads it if it has to, and proves
    it by the bundle's canary inputs.
    """
    until = time.monotonic() + timeout_s
    with Client(url, timeout_s=10.0) as client:  # a channel of its own
        while True:
            try:
                answered = client.recommend("", 1, version=version).model_version
            except InferenceServerException as error:
                refused = error.status() == "StatusCode.INVALID_ARGUMENT" and LOADING not in str(error)  # else a server is busy, or comes
                if refused or time.monotonic() > until:
                    raise NotPublished(f"version {version}: {str(error)[:500]}") from error
            else:
                break
            time.sleep(PAUSE_S)
    if answered != version:
        raise NotPublished(f"version {version}: the answer is of version {answered}")


def _remove(claim: Claim, folder: Path) -> None:
    failpoint("publish.remove")
    shutil.rmtree(claim.mine(folder), ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
