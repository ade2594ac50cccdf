"""Publishing: a sealed bundle into Triton's repository, next to the versions that serve, proven before it is named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from serving.bundle import verify
from serving.failpoint import failpoint

MODEL = "sequence"
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

    def take(self) -> None:
        """From now on the repository is ours. Raises `Superseded` where a later trainer has it."""
        if self._file.exists() and int(self._file.read_text()) > self.epoch:
            self.mine(self._file)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(self._file.name + ".new")
        failpoint("publish.claim")
        fresh.write_text(str(self.epoch))
        failpoint("publish.claimed")
        os.replace(fresh, self._file)

    def mine(self, path: Path) -> Path:
        """`path`, which is in the repository; raises `Superseded` where that is no longer ours."""
        if (there := self._file.read_text()) != str(self.epoch):
            raise Superseded(f"the epoch {self.epoch} is over, the repository is of epoch {there}")
        return path


def publish(
    staged: Path, claim: Claim, templates: Path, url: str, version: int, keep: Sequence[int], trusted: str = "", key: str = "",
    timeout_s: float = 60.0,
) -> float:  # fmt: skip
    """Move the bundle `staged` into the repository's sequence/<version>, load it beside the versions `keep`, prove it.

    Written beside the repository, synced, renamed in: a half-written version is never visible. The version policy on
    disk names what stays loaded before the load, so that a restart of Triton comes up right. Returns the seconds it
    took; raises `NotPublished`, with the old versions serving as before; `Superseded`, with nothing touched from then on.
    """
    began, model = time.monotonic(), claim.repository / MODEL
    target = model / str(version)
    verify(staged, trusted=trusted, version=str(version))
    for file in staged.iterdir():
        _sync(file)
    _sync(staged)
    if claim.mine(target).exists():  # a former try that nobody named
        _withdraw(claim, templates, target, keep)
    model.mkdir(parents=True, exist_ok=True)
    failpoint("publish.synced")
    staged.rename(claim.mine(target))
    failpoint("publish.renamed")
    _sync(model)
    _write_configs(claim, templates, [*keep, version])
    try:
        with triton.InferenceServerClient(url) as client:  # a channel of its own
            failpoint("publish.load")
            client.load_model(MODEL, headers={"triton-grpc-protocol-admin": key}, client_timeout=timeout_s)
            failpoint("publish.loaded")
            prove(client, target, version)
        failpoint("publish.proved")
    except Exception as error:
        _withdraw(claim, templates, target, keep)
        raise NotPublished(f"version {version}: {str(error)[:500]}") from error
    _prune(claim.mine(model), [*keep, version])
    failpoint("publish.pruned")
    return time.monotonic() - began


def _withdraw(claim: Claim, templates: Path, target: Path, keep: Sequence[int]) -> None:
    """Take a version out of the repository; its name first, so that a restart of Triton never looks for a folder that is gone."""
    if keep:
        _write_configs(claim, templates, keep)
        failpoint("publish.withdraw")
        shutil.rmtree(claim.mine(target), ignore_errors=True)
    else:
        failpoint("publish.withdraw_first")
        shutil.rmtree(claim.mine(target).parent, ignore_errors=True)


def prove(client: triton.InferenceServerClient, folder: Path, version: int) -> None:
    """Pinned canary inference: the server answers as the exporter did, or `NotPublished`."""
    if not client.is_model_ready(MODEL, str(version)):
        raise NotPublished(f"version {version} is not ready after its load")
    canary = np.load(folder / "canary.npz", allow_pickle=False)
    asked = triton.InferInput("histories", canary["histories"].shape, "INT64")
    asked.set_data_from_numpy(canary["histories"])
    answer = client.infer(MODEL, [asked], model_version=str(version), client_timeout=10)
    worst = float(np.abs(answer.as_numpy("top_scores") - canary["top_scores"]).max())
    if not worst <= TOLERANCE:
        raise NotPublished(f"version {version} answers its canary with scores that differ by {worst:.3g}")


def _write_configs(claim: Claim, templates: Path, versions: Sequence[int]) -> None:
    """Both configurations of one repository: onnxruntime on the official image, the python shim on the wheel."""
    model = claim.repository / MODEL
    policy = f"version_policy {{ specific {{ versions: [ {', '.join(str(v) for v in sorted(set(versions)))} ] }} }}\n"
    (model / "configs").mkdir(exist_ok=True)
    for name in ("config.pbtxt", "configs/wheel.pbtxt"):
        fresh = model / f"{name}.new"
        failpoint(f"publish.{Path(name).stem}")
        fresh.write_text((templates / name).read_text() + policy)
        failpoint(f"publish.{Path(name).stem}_written")
        os.replace(fresh, claim.mine(model / name))


def _prune(model: Path, versions: Sequence[int]) -> None:
    for folder in model.iterdir():
        if folder.name.isdigit() and int(folder.name) not in versions:
            failpoint("publish.prune")
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
