"""Checks of the road upstream, step by step: name, TCP, perhaps a proxy, TLS."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from wsproxy.config import Settings
from wsproxy.doctor.finding import Finding, fail, left_out, ok, warn
from wsproxy.logs import clean
from wsproxy.upstream.proxy import Address, Proxy, is_loopback
from wsproxy.upstream.tls import client_context

#: Of one step. A turn waits 3 s for a whole handshake; what takes longer is as good as broken.
STEP_TIMEOUT_S: Final = 5.0
#: A certificate that is about to end has usually been renewed long before.
CERTIFICATE_WARN_DAYS: Final = 14.0
_SLOW_S: Final = 1.0
_DAY_S: Final = 86_400.0
_MAX_PROXY_HEAD: Final = 65_536
#: asyncio words its own texts around the numbers, and joins those of several addresses to one.
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


@dataclass(slots=True)
class _Timer:
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.0f} ms"


@contextmanager
def _timed() -> Iterator[_Timer]:
    timer, begun = _Timer(), time.monotonic()
    try:
        yield timer
    finally:
        timer.seconds = time.monotonic() - begun


async def check_road(settings: Settings, proxy: Proxy | None) -> list[Finding]:
    """DNS, TCP and TLS, in this order; those behind a failure are left out."""
    upstream = Address.of(urlsplit(settings.upstream))
    first = proxy.address if proxy is not None else upstream
    findings = [await _check_name(first)]
    if findings[-1].verdict.value == "fail":
        return [*findings, *(left_out(name, "no address") for name in ("tcp", "tls"))]
    findings.append(await _check_tcp(first))
    if findings[-1].verdict.value == "fail":
        return [*findings, left_out("tls", "no connection")]
    findings.append(await _check_tls(settings, upstream, proxy))
    return findings


async def _check_name(address: Address) -> Finding:
    loop = asyncio.get_running_loop()
    try:
        with _timed() as took:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = reason(error)
        return fail("dns", f"{address.host}: {why}", "check the name, the network and resolv.conf")
    hosts = list(dict.fromkeys(str(place[0]) for *_, place in found))
    text = f"{address.host} is {', '.join(hosts[:3])} ({took})"
    if took.seconds > _SLOW_S:
        return warn("dns", text, "the resolver is slow; every dial waits for it")
    return ok("dns", text)


async def _check_tcp(address: Address) -> Finding:
    try:
        with _timed() as took:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        return fail("tcp", f"{address}: {reason(error)}", "a firewall, a proxy or the port?")
    await _close(writer)
    return ok("tcp", f"connected to {address} ({took})")


async def _check_tls(settings: Settings, upstream: Address, proxy: Proxy | None) -> Finding:
    if not upstream.is_tls and is_loopback(upstream.host):
        return ok("tls", "plain http, on this machine")
    if not upstream.is_tls:
        return warn("tls", "upstream is plain http", "keys cross the network: use https://")
    if proxy is not None and proxy.address.is_tls:
        return left_out("tls", "behind an https proxy: see the line on the upgrade")
    try:
        context = client_context(settings.upstream_ca_file)
        with _timed() as took:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                writer = await _secured(upstream, proxy, context)
    except ssl.SSLCertVerificationError as error:
        advice = "if your company inspects TLS, name its CA file in upstream_ca_file"
        return fail("tls", f"{upstream.host}: {error.verify_message}", advice)
    except OSError as error:
        return fail("tls", f"{upstream.host}: {reason(error)}", "see upstream_ca_file and proxy")
    finding = _certificate(upstream, writer.get_extra_info("ssl_object"), took)
    await _close(writer)
    return finding


async def _secured(
    upstream: Address, proxy: Proxy | None, context: ssl.SSLContext
) -> asyncio.StreamWriter:
    if proxy is None:
        _, writer = await asyncio.open_connection(upstream.host, upstream.port, ssl=context)
        return writer
    reader, writer = await asyncio.open_connection(
        proxy.address.host, proxy.address.port, limit=_MAX_PROXY_HEAD
    )
    try:
        await _tunnel(reader, writer, upstream, proxy)
        await writer.start_tls(context, server_hostname=upstream.host)
    except BaseException:
        await _close(writer)
        raise
    return writer


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Address, proxy: Proxy
) -> None:
    """Have the proxy connect us (RFC 9110 §9.3.6)."""
    at = str(upstream).encode()
    login = b""
    if proxy.authorization is not None:
        login = b"Proxy-Authorization: " + proxy.authorization + b"\r\n"
    writer.write(b"CONNECT " + at + b" HTTP/1.1\r\nHost: " + at + b"\r\n" + login + b"\r\n")
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ConnectionError("no HTTP from the proxy") from None
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if not re.match(r"HTTP/1\.[01] 2\d\d", status):
        raise ConnectionError(f"the proxy said {clean(status)}")


def _certificate(upstream: Address, tls: ssl.SSLObject, took: _Timer) -> Finding:
    certificate: dict[str, Any] = tls.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY_S
    text = f"{tls.version()} with {upstream.host}, certificate for {days:.0f} days ({took})"
    if days < CERTIFICATE_WARN_DAYS:
        return warn("tls", text, "upstream's certificate is about to end; tell its operator")
    return ok("tls", text)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


def reason(error: Exception) -> str:
    """What went wrong, in the system's own words where it has a number."""
    if isinstance(error, TimeoutError) and not error.args:
        return f"nothing within {STEP_TIMEOUT_S:.0f} s"
    if isinstance(error, ssl.SSLError | socket.gaierror | UnicodeError):  # numbers of their own
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    codes = [error.errno] if isinstance(error, OSError) and error.errno else []
    codes = codes or [int(code) for code in _ERRNO.findall(str(error))]
    plain = dict.fromkeys(os.strerror(code).lower() for code in codes)
    return ", ".join(plain) or str(error) or type(error).__name__
