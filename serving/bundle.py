"""A bundle: all that one version of the sequence model is, in one folder that Triton can load.

    model.onnx  model.py  vocabulary.json  popular.json  canary.npz  weights.safetensors  card.json  manifest.json  manifest.sig

The manifest holds the sha256 of every other file but its signature; its own sha256 is the version's hash in `releases.v1`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from learners.histories import LENGTH
from serving.failpoint import failpoint
from serving.signature import is_signed, signed

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"


class Corrupt(ValueError):
    """A bundle that is not what its manifest says; the text names the file."""


@dataclass(frozen=True)
class Vocabulary:
    """Items of one version in the order of their rows; row 0 is padding, so item i has row i + 1."""

    items: list[str]
    row: dict[str, int]
    popular: list[str]

    @staticmethod
    def load(folder: Path, sha256: str | None = None, trusted: str = "") -> Vocabulary:
        """Read it, and make sure that it is the one of the manifest `sha256`, signed with `trusted`; raises OSError or `Corrupt`."""
        manifest = _manifest(folder, sha256, trusted, folder.name)
        items, popular = (json.loads(_checked(folder / name, manifest)) for name in ("vocabulary.json", "popular.json"))
        return Vocabulary(items, {item: row for row, item in enumerate(items, 1)}, popular)

    def encode(self, items: Sequence[str], pauses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[2, LENGTH] (`learners.histories`) of the newest items that are known, right-aligned, zeros before them."""
        rows = np.fromiter((self.row.get(item, 0) for item in items), np.int64, len(items))
        known = np.flatnonzero(rows)[-LENGTH:]
        out = np.zeros((2, LENGTH), np.int64)
        out[:, LENGTH - len(known) :] = rows[known], pauses[known]
        return out

    def decode(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Items and scores of the model's best rows, best first."""
        known, items = (rows > 0) & (rows <= len(self.items)), self.items
        return [items[row - 1] for row in rows[known].tolist()], scores[known]


def seal(folder: Path, version: int = 0, key: Path | None = None) -> str:
    """Write the manifest of everything in the folder, and sign it for that version with `key`; returns the manifest's sha256."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in (MANIFEST, SIGNATURE))
    manifest = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    failpoint("bundle.seal")
    (folder / MANIFEST).write_bytes(text)
    if key is not None:
        failpoint("bundle.sign")
        (folder / SIGNATURE).write_bytes(signed(key, version, text))
    return hashlib.sha256(text).hexdigest()


def verify(folder: Path, sha256: str | None = None, trusted: str = "", version: str | None = None) -> None:
    """Raise `Corrupt` where a file is missing, changed, unknown or a link, the manifest is not the one of `sha256`, or not signed with the
    private key of `trusted` for this version (the folder's name, unless it says otherwise).

    Beside a model that is served Python leaves its compiled code, and nothing else may be there; a bundle that is not served has none.
    """
    manifest = _manifest(folder, sha256, trusted, version or folder.name)
    there = {p.name for p in folder.iterdir() if p.name not in (MANIFEST, SIGNATURE)}
    cache = folder / "__pycache__"
    if version is None and cache.is_dir() and not cache.is_symlink() and all(p.match("model.cpython-*.pyc") for p in cache.iterdir()):
        there.remove(cache.name)
    if there != manifest.keys():
        raise Corrupt(f"{folder}: files {sorted(there ^ manifest.keys())} are missing or not in the manifest")
    for name in manifest:
        _checked(folder / name, manifest)


def _manifest(folder: Path, sha256: str | None, trusted: str, version: str) -> dict[str, str]:
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
        if not signature.is_file() or not version.isdigit() or not is_signed(trusted, int(version), text, signature.read_bytes()):
            raise Corrupt(f"{signature}: not a signature of version {version} by the key that is trusted")
    return manifest


def _checked(file: Path, manifest: dict[str, str]) -> bytes:
    """The file's content, which is what the manifest says."""
    content = b"" if file.is_symlink() else file.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.get(file.name):
        raise Corrupt(f"{file}: not what the manifest says")
    return content
