"""A bundle: all that one version of the sequence model is, in one folder that Triton can load.

    model.onnx  model.py  vocabulary.json  popular.json  canary.npz  weights.safetensors  card.json  manifest.json  manifest.sig

The manifest holds the sha256 of every other file but its signature; its own sha256 is the version's hash in `releases.v1`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

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
    manifest = manifest_of(folder, sha256, trusted, version)
    there = {p.name for p in folder.iterdir() if p.name not in (MANIFEST, SIGNATURE)}
    if there != manifest.keys():
        raise Corrupt(f"{folder}: files {sorted(there ^ manifest.keys())} are missing or not in the manifest")
    for name in manifest:
        checked(folder / name, manifest)


def manifest_of(folder: Path, sha256: str | None, trusted: str, version: int) -> dict[str, str]:
    """sha256 by name of what belongs to a bundle. Raises `Corrupt` as `verify` does."""
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


def checked(file: Path, manifest: dict[str, str]) -> bytes:
    """The file's content, which is what the manifest says."""
    if file.is_symlink() or not file.is_file():
        raise Corrupt(f"{file}: not what the manifest says: a link, or no file")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.get(file.name):
        raise Corrupt(f"{file}: not what the manifest says")
    return content
