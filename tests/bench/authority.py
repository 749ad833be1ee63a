"""A certificate authority that lives as long as a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    """`ca_file` is what a client trusts, `server_file` has a server's key and certificates."""

    ca_file: Path
    server_file: Path


@contextlib.contextmanager
def authority(*hosts: str) -> Iterator[Authority]:
    """One with a certificate for these hosts; its files end with the context."""
    with tempfile.TemporaryDirectory(prefix="wsproxy-bench-ca-") as folder:
        made, found = trustme.CA(), Authority(Path(folder, "ca.pem"), Path(folder, "server.pem"))
        made.cert_pem.write_to_path(str(found.ca_file))
        certificate = made.issue_cert(*hosts)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(found.server_file))
        yield found
