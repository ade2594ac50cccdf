"""Publishing: a sealed bundle into Triton's repository, next to the versions that serve, proven before it is named."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from serving.bundle import verify
from serving.failpoint import failpoint

MODEL = "sequence"
TOLERANCE = 1e-3


class NotPublished(Exception):
    """The version is not served; the old ones are. The text says why."""


def publish(staged: Path, repository: Path, templates: Path, url: str, version: int, keep: Sequence[int], timeout_s: float = 60.0) -> float:
    """Move the bundle `staged` into `repository`/sequence/<version>, load it beside the versions `keep`, prove it.

    Written beside the repository, synced, renamed in: a half-written version is never visible. The version policy on
    disk names what stays loaded before the load, so that a restart of Triton comes up right. Returns the seconds it
    took; raises `NotPublished`, with the old versions serving as before.
    """
    began, model = time.monotonic(), repository / MODEL
    target = model / str(version)
    verify(staged)
    for file in staged.iterdir():
        _sync(file)
    _sync(staged)
    if target.exists():  # a former try that nobody named
        _withdraw(model, templates, target, keep)
    model.mkdir(parents=True, exist_ok=True)
    failpoint("publish.synced")
    staged.rename(target)
    failpoint("publish.renamed")
    _sync(model)
    _write_configs(model, templates, [*keep, version])
    try:
        with triton.InferenceServerClient(url) as client:  # a channel of its own
            failpoint("publish.load")
            client.load_model(MODEL, client_timeout=timeout_s)
            failpoint("publish.loaded")
            prove(client, target, version)
        failpoint("publish.proved")
    except Exception as error:
        _withdraw(model, templates, target, keep)
        raise NotPublished(f"version {version}: {str(error)[:500]}") from error
    _prune(model, [*keep, version])
    failpoint("publish.pruned")
    return time.monotonic() - began


def _withdraw(model: Path, templates: Path, target: Path, keep: Sequence[int]) -> None:
    """Take a version out of the repository; its name first, so that a restart of Triton never looks for a folder that is gone."""
    if keep:
        _write_configs(model, templates, keep)
        failpoint("publish.withdraw")
        shutil.rmtree(target, ignore_errors=True)
    else:
        failpoint("publish.withdraw_first")
        shutil.rmtree(model, ignore_errors=True)


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


def _write_configs(model: Path, templates: Path, versions: Sequence[int]) -> None:
    """Both configurations of one repository: onnxruntime on the official image, the python shim on the wheel."""
    policy = f"version_policy {{ specific {{ versions: [ {', '.join(str(v) for v in sorted(set(versions)))} ] }} }}\n"
    (model / "configs").mkdir(exist_ok=True)
    for name in ("config.pbtxt", "configs/wheel.pbtxt"):
        fresh = model / f"{name}.new"
        failpoint(f"publish.{Path(name).stem}")
        fresh.write_text((templates / name).read_text() + policy)
        failpoint(f"publish.{Path(name).stem}_written")
        os.replace(fresh, model / name)


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
