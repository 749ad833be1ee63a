"""Upstream and proxies as processes of their own, and what the system says they used (Linux)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.bench.authority import Authority

ROOT: Final = Path(__file__).parent.parent.parent
#: What children say, and what is installed for the bench.
CACHE: Final = ROOT / ".cache" / "bench"
_START_TIMEOUT_S: Final = 120.0  # LiteLLM imports for half a minute on a busy machine
_NGINX: Final = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m; client_body_buffer_size 8m; keepalive_requests 1000000;
  upstream source {{ server {upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://source; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 300s;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process; `base_url` is what a client is pointed at."""

    name: str
    pid: int
    base_url: str

    def cpu_s(self) -> float:
        """Seconds of processor time of all its threads so far."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def cpu_parts_s(self) -> tuple[float, float]:
        """The same by halves: in the program itself, and in the kernel on its behalf."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ticks_a_s = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) / ticks_a_s, int(fields[12]) / ticks_a_s

    def rss_bytes(self) -> int:
        """Memory that is in use now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )


@contextlib.contextmanager
def started(
    name: str, command: Sequence[str], *, url: str | None = None, told: str = ""
) -> Iterator[Child]:
    """Run a command; its base URL is the last word of its first line, unless `url` is known.

    `told` is what it reads on its standard input.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="wsproxy-bench-") as folder,
        (CACHE / f"{name.replace(' ', '-')}.log").open("w") as log,
    ):
        environment = {**os.environ, "XDG_STATE_HOME": folder, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if url is None else subprocess.DEVNULL,
            stderr=log,
            text=True,
            env=environment,
            cwd=ROOT,
        ) as process:
            try:
                assert process.stdin is not None
                process.stdin.write(told)
                process.stdin.close()
                if url is None:
                    assert process.stdout is not None
                    words = process.stdout.readline().split()
                    assert words, f"{name} did not start: {' '.join(command)}"
                    url = words[-1]
                else:
                    _await_port(url, process)
                yield Child(name, process.pid, url)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()


def _await_port(url: str, process: subprocess.Popen[str]) -> None:
    address = urlsplit(url)
    give_up = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < give_up:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with contextlib.suppress(OSError):
            socket.create_connection((address.hostname, address.port), timeout=1).close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"{process.args!r} opened no port")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ── Who takes part ───────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def source(*, has_deflate: bool = False, authority: Authority | None = None) -> Iterator[Child]:
    """The light upstream; with an authority, over TLS."""
    flags = ["--deflate"] if has_deflate else []
    if authority is not None:
        flags.append(f"--tls={authority.server_file}")
    with started("direct", [sys.executable, "-m", "tests.bench.source", *flags]) as child:
        yield child


@contextlib.contextmanager
def wsproxy(
    upstream: Child,
    *,
    has_deflate: bool = False,
    authority: Authority | None = None,
    is_tracing: bool = True,
) -> Iterator[Child]:
    """The proxy as it is shipped, tracing included; upstream's habits are known to it."""
    command = [sys.executable, "-m", "wsproxy", "serve", "--listen", "127.0.0.1:0"]
    habits = ["--upstream", upstream.base_url, "--lanes", "on", "--continuation", "on"]
    compression = ["--compression", "deflate" if has_deflate else "off"]
    end = ["--drain-timeout", "0"]
    trusted = ["--set", f"upstream_ca_file={authority.ca_file}"] if authority is not None else []
    traces = [] if is_tracing else ["--set", "trace=off"]
    with started("wsproxy", [*command, *habits, *compression, *end, *trusted, *traces]) as child:
        yield child


@contextlib.contextmanager
def raw_relay(upstream: Child) -> Iterator[Child]:
    """Bytes from one socket to the other."""
    command = [sys.executable, "-m", "tests.bench.raw_relay", upstream.base_url]
    with started("raw relay", command) as child:
        yield child


def has_nginx() -> bool:
    """Whether it is installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


@contextlib.contextmanager
def nginx(upstream: Child) -> Iterator[Child]:
    """A C proxy, one worker, unbuffered."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert binary is not None
    with tempfile.TemporaryDirectory(prefix="wsproxy-nginx-") as folder:
        port = free_port()
        address = urlsplit(upstream.base_url)
        text = _NGINX.format(folder=folder, upstream=address.netloc, port=port)
        config = Path(folder, "nginx.conf")
        config.write_text(text)
        url = f"http://127.0.0.1:{port}{address.path}"
        with started("nginx", [binary, "-p", folder, "-c", str(config)], url=url) as child:
            yield child
