"""A bundle: all that one version of the sequence model is, in one folder of Triton's repository.

    model.onnx  vocabulary.json  popular.json  canary.npz  weights.safetensors  card.json  manifest.json  manifest.sig

The manifest holds the sha256 of every other file but its signature; its own sha256 is the version's hash in `releases.v1`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.failpoint import failpoint
from serving.signature import is_signed, signed

LOADING = "is being loaded"  # what a server says of a version that it does not have yet
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"


def folder_of(repository: Path, version: int) -> Path:
    """Where that version's bundle is."""
    return repository / "sequence" / str(version)


class Corrupt(ValueError):
    """A bundle that is not what its manifest says; the text names the file."""


def assemble(
    folder: Path, onnx: bytes, canary: dict[str, npt.NDArray[np.generic]], items: Sequence[str], popular: Sequence[str],
    card: dict[str, Any], save: Callable[[Path], None],
) -> None:  # fmt: skip
    """Put a bundle into the empty `folder`, not sealed yet. `save` writes the weights."""
    failpoint("stage.begin")
    folder.chmod(0o755)
    (folder / "model.onnx").write_bytes(onnx)
    failpoint("stage.vocabulary")
    (folder / "vocabulary.json").write_text(json.dumps(items))
    (folder / "popular.json").write_text(json.dumps(popular))
    failpoint("stage.canary")
    np.savez(folder / "canary.npz", **canary)  # type: ignore[arg-type] # arrays by name
    save(folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps(card, indent=1))
    failpoint("stage.whole")


def seal(folder: Path, version: int = 0, key: Path | None = None) -> str:
    """Write the manifest of everything in the folder, and sign it for that version with `key`; returns the manifest's sha256."""
    failpoint("bundle.close")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in (MANIFEST, SIGNATURE))
    manifest = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    failpoint("bundle.seal")
    (folder / MANIFEST).write_bytes(text)
    if key is not None:
        failpoint("bundle.sign")
        (folder / SIGNATURE).write_bytes(signed(key, version, text))
    return hashlib.sha256(text).hexdigest()


def verify(folder: Path, sha256: str | None = None, trusted: str = "", version: int = 0) -> str:
    """Raise `Corrupt` where a file is missing, changed, unknown or a link, the manifest is not the one of `sha256`, or not signed with the
    private key of `trusted` for that version. Returns the manifest's sha256.
    """
    manifest, found = _manifest(folder, sha256, trusted, version)
    there = {p.name for p in folder.iterdir() if p.name not in (MANIFEST, SIGNATURE)}
    if there != manifest.keys():
        raise Corrupt(f"{folder}: files {sorted(there ^ manifest.keys())} are missing or not in the manifest")
    for name in manifest:
        file = folder / name
        if file.is_symlink() or not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != manifest[name]:
            raise Corrupt(f"{file}: not what the manifest says")
    return found


def digest(folder: Path) -> str:
    """The sha256 of the manifest that is there, unverified. Raises OSError."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def _manifest(folder: Path, sha256: str | None, trusted: str, version: int) -> tuple[dict[str, str], str]:
    """The manifest and its sha256."""
    file = folder / MANIFEST
    try:
        if file.is_symlink():
            raise ValueError("a link")
        text = file.read_bytes()
        manifest: dict[str, str] = json.loads(text)
    except (OSError, ValueError) as error:
        raise Corrupt(f"{file}: {error}") from None
    found = hashlib.sha256(text).hexdigest()
    if sha256 is not None and found != sha256:
        raise Corrupt(f"{file}: not the manifest of {sha256}")
    if trusted:
        signature = folder / SIGNATURE
        if not signature.is_file() or not is_signed(trusted, version, text, signature.read_bytes()):
            raise Corrupt(f"{signature}: not a signature of version {version} by the key that is trusted")
    return manifest, found
