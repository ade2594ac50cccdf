"""Signatures: who made a bundle. Ed25519 (RFC 8032) over what it is for and its manifest.

The trainer has the private key and servers the public one: who can write into the repository, but has no key, puts no model there.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def new_key(file: Path) -> str:
    """Write a new private key, readable by its owner only, and return its public one; an existing file is kept and read."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as fresh:
            fresh.write(text)
    return _private(file).public_key().public_bytes_raw().hex()


def signed(key: Path, version: int, manifest: bytes) -> bytes:
    """The signature of a version of the sequence model with that manifest. Raises OSError or ValueError for another kind of file."""
    return _private(key).sign(_message(version, manifest))


def is_signed(trusted: str, version: int, manifest: bytes, signature: bytes) -> bool:
    """Was it made with the private key of `trusted`, for this version and this manifest?"""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(trusted)).verify(signature, _message(version, manifest))
    except InvalidSignature:
        return False
    return True


def _message(version: int, manifest: bytes) -> bytes:
    return b"headrace sequence %d\n" % version + manifest


def _private(file: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{file}: not an ed25519 key; `headrace release key FILE` makes one")
    return key
