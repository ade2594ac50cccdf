"""Publishing: a sealed bundle into Triton's repository, next to those that serve, proven before it is named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving.bundle import BUNDLE, model_of, verify
from serving.failpoint import failpoint

TOLERANCE = 1e-3


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
    staged: Path, claim: Claim, url: str, version: int, keep: Callable[[], Sequence[int]], trusted: str = "", key: str = "",
    timeout_s: float = 60.0,
) -> float:  # fmt: skip
    """Move `staged`, a Triton model whose version 1 is the bundle, into the repository as `sequence-<version>`, load it and prove it.

    Each version is a model of its own: of a model with several versions Triton loads all that are kept anew for every one that comes
    (docs/releases.md). Written beside the repository, synced, renamed in: a half-written version is never visible, and a restart of Triton
    loads what is there. Those that are neither this one nor in `keep()`, asked at the end, are unloaded and removed.

    Returns the seconds it took. Raises `NotPublished`, with the old versions serving as before, or `Superseded`, with nothing touched from
    then on.
    """
    began, target = time.monotonic(), claim.repository / model_of(version)
    verify(staged / BUNDLE, trusted=trusted, version=version)
    for path in (*staged.rglob("*"), staged):
        _sync(path)
    with triton.InferenceServerClient(url) as client:  # a channel of its own
        server = Server(claim, client, {"triton-grpc-protocol-admin": key}, timeout_s)
        if claim.mine(target).exists():  # a former try that nobody named
            server.remove(target)
        failpoint("publish.synced")
        staged.rename(claim.mine(target))
        failpoint("publish.renamed")
        _sync(claim.repository)
        try:
            failpoint("publish.load")
            client.load_model(claim.mine(target).name, headers=server.headers, client_timeout=timeout_s)
            failpoint("publish.loaded")
            prove(client, target)
            failpoint("publish.proved")
        except Exception as error:
            server.remove(target)
            if isinstance(error, Superseded):
                raise
            raise NotPublished(f"version {version}: {str(error)[:500]}") from error
        kept = {model_of(v) for v in (*keep(), version)}
        for folder in claim.repository.glob(model_of("[0-9]*")):
            if folder.name not in kept:
                failpoint("publish.prune")
                server.remove(folder)
    failpoint("publish.pruned")
    return time.monotonic() - began


@dataclass(frozen=True)
class Server:
    """A Triton that we may change, while its repository is ours."""

    claim: Claim
    client: triton.InferenceServerClient
    headers: dict[str, str]
    timeout_s: float

    def remove(self, model: Path) -> None:
        """Unload it and take it out of the repository; a server that is away comes back without it."""
        with suppress(InferenceServerException):
            self.client.unload_model(self.claim.mine(model).name, headers=self.headers, client_timeout=self.timeout_s)
        failpoint("publish.unloaded")
        shutil.rmtree(self.claim.mine(model), ignore_errors=True)


def prove(client: triton.InferenceServerClient, model: Path) -> None:
    """Pinned canary inference: the server answers as the exporter did, or `NotPublished`."""
    if not client.is_model_ready(model.name):
        raise NotPublished(f"{model.name} is not ready after its load")
    canary = np.load(model / BUNDLE / "canary.npz", allow_pickle=False)
    asked = triton.InferInput("histories", canary["histories"].shape, "INT64")
    asked.set_data_from_numpy(canary["histories"])
    answer = client.infer(model.name, [asked], client_timeout=10)
    worst = float(np.abs(answer.as_numpy("top_scores") - canary["top_scores"]).max())
    if not worst <= TOLERANCE:
        raise NotPublished(f"{model.name} answers its canary with scores that differ by {worst:.3g}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
