"""Names for what must not be written: digests under a key that stays in the trace folder.

A plain hash of a short text can be guessed; a keyed one cannot without the key.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from wsproxy.trace.folder import FolderError, create_file, read_own_file

KEY_FILE: Final = "key"
KEY_BYTES: Final = 32


class Keyed:
    """Digests of one trace folder; the same value has the same name in all of its files."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, value: bytes, size: int = 16) -> bytes:
        """A keyed digest of up to 64 bytes."""
        return hashlib.blake2b(value, digest_size=size, key=self._key).digest()

    def short(self, *parts: bytes) -> str:
        """8 hex digits: enough to tell sessions apart, too few to be looked up elsewhere."""
        return self.digest(b"\0".join(parts), 4).hex()

    def name(self, value: bytes) -> str:
        """32 hex digits: no two contents share it."""
        return self.digest(value).hex()


def open_keyed(folder: Path) -> Keyed:
    """Read the folder's key, or make one. Raises `FolderError`, `OSError`."""
    path = folder / KEY_FILE
    try:
        descriptor = create_file(path)
    except FileExistsError:
        return Keyed(_read_key(path))
    try:
        key = secrets.token_bytes(KEY_BYTES)
        os.write(descriptor, key.hex().encode())
    finally:
        os.close(descriptor)
    return Keyed(key)


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(read_own_file(path).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise FolderError(f"{path.name} is damaged", f"remove {path}; names start anew with it")
    return key
