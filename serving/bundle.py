"""A bundle: all that one version of the sequence model is, in one folder that Triton can load.

    model.onnx  model.py  vocabulary.json  popular.json  canary.npz  weights.safetensors  card.json  manifest.json  manifest.sig

The manifest holds the sha256 of every other file but its signature; its own sha256 is the version's hash in `releases.v1`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.failpoint import failpoint
from serving.signature import is_signed, signed

MANIFEST, SIGNATURE, CACHE = "manifest.json", "manifest.sig", "__pycache__"


BUNDLE = "1"  # Triton's name of the only version of a model; there lies the bundle


def model_of(version: int | str) -> str:
    """What Triton calls that version of the sequence model."""
    return f"sequence-{version}"


def folder_of(repository: Path, version: int) -> Path:
    """Where that version's bundle is."""
    return repository / model_of(version) / BUNDLE


class Corrupt(ValueError):
    """A bundle that is not what its manifest says; the text names the file."""


def assemble(
    model: Path, templates: Path, onnx: bytes, canary: dict[str, npt.NDArray[np.generic]], items: Sequence[str], popular: Sequence[str],
    card: dict[str, Any], save: Callable[[Path], None],
) -> Path:  # fmt: skip
    """Make the empty folder `model` a Triton model, configured as in `templates`, with a bundle in it that is not sealed yet; returns the
    bundle's folder. `save` writes the weights.
    """
    failpoint("stage.config")
    shutil.copytree(templates, model, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    model.chmod(0o755)
    folder = model / BUNDLE
    folder.mkdir()
    failpoint("stage.begin")
    (folder / "model.onnx").write_bytes(onnx)
    failpoint("stage.model")
    shutil.copy(templates / "model.py", folder / "model.py")
    failpoint("stage.vocabulary")
    (folder / "vocabulary.json").write_text(json.dumps(items))
    (folder / "popular.json").write_text(json.dumps(popular))
    failpoint("stage.canary")
    np.savez(folder / "canary.npz", **canary)  # type: ignore[arg-type] # arrays by name
    save(folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps(card, indent=1))
    failpoint("stage.whole")
    return folder


def seal(folder: Path, version: int = 0, key: Path | None = None) -> str:
    """Write the manifest of everything in the folder, and sign it for that version with `key`; returns the manifest's sha256.

    A file stands where Python would leave a folder of compiled code: by that Triton would take the version for changed, and load it anew
    at the next release, beside all others that are kept.
    """
    failpoint("bundle.close")
    (folder / CACHE).touch()
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in (MANIFEST, SIGNATURE))
    manifest = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    failpoint("bundle.seal")
    (folder / MANIFEST).write_bytes(text)
    if key is not None:
        failpoint("bundle.sign")
        (folder / SIGNATURE).write_bytes(signed(key, version, text))
    return hashlib.sha256(text).hexdigest()


def verify(folder: Path, sha256: str | None = None, trusted: str = "", version: int = 0) -> None:
    """Raise `Corrupt` where a file is missing, changed, unknown or a link, the manifest is not the one of `sha256`, or not signed with the
    private key of `trusted` for that version.
    """
    manifest = _manifest(folder, sha256, trusted, version)
    there = {p.name for p in folder.iterdir() if p.name not in (MANIFEST, SIGNATURE)}
    if there != manifest.keys():
        raise Corrupt(f"{folder}: files {sorted(there ^ manifest.keys())} are missing or not in the manifest")
    for name in manifest:
        file = folder / name
        if file.is_symlink() or not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != manifest[name]:
            raise Corrupt(f"{file}: not what the manifest says")


def _manifest(folder: Path, sha256: str | None, trusted: str, version: int) -> dict[str, str]:
    file = folder / MANIFEST
    try:
        if file.is_symlink():
            raise ValueError("a link")
        text = file.read_bytes()
        manifest: dict[str, str] = json.loads(text)
    except (OSError, ValueError) as error:
        raise Corrupt(f"{file}: {error}") from None
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
        raise Corrupt(f"{file}: not the manifest of {sha256}")
    if trusted:
        signature = folder / SIGNATURE
        if not signature.is_file() or not is_signed(trusted, version, text, signature.read_bytes()):
            raise Corrupt(f"{signature}: not a signature of version {version} by the key that is trusted")
    return manifest
