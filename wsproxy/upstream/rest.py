"""Plain HTTP(S) to the upstream origin: `ports.Rest` over aiohttp's client.

Rules of this file
------------------
1. Nothing that one request brought may meet another: no cookies, no environment, no `.netrc`.
2. The request target reaches upstream byte for byte; redirects are relayed, never followed.
3. A request is sent once. Nothing here tries again.
4. Only hop-by-hop fields are changed (RFC 9110 §7.6.1), in both directions.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from wsproxy.ports import Headers, RestError
from wsproxy.upstream.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_TIMEOUT_S: Final = 15.0  # DNS, TCP, TLS and a free place in the pool; faults.md §7
IDLE_TIMEOUT_S: Final = 900.0  # silence of upstream; the same as between events of a turn
MAX_CONNECTIONS: Final = 512  # as many as downstream connections, so that none waits for another
_MAX_HEADER_BYTES: Final = 65_536  # one response field; content-security-policy grows large
_MAX_HEADER_COUNT: Final = 256
_READ_BYTES: Final = 65_536

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: Of the request alone: `Host` is upstream's; `Expect` is answered by us.
_REPLACED: Final = frozenset({b"host", b"expect"})
_UNREACHABLE: Final = "Upstream cannot be reached from here"
_NOT_HTTP: Final = "Upstream's answer is not valid HTTP."
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 §5.5
_NEVER_ADDED: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The fields without hop-by-hop ones and those that `Connection` names, order kept."""
    hops = _HOP_BY_HOP.union(_named_by_connection(headers))
    return [field for field in headers if field[0].lower() not in hops]


class HttpAnswer:
    """An upstream answer whose body has not been read yet (`ports.RestResponse`)."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status: Final = response.status
        self.reason: Final = response.reason or ""
        self.headers: Final[Headers] = end_to_end(response.raw_headers)

    @property
    def raw_headers(self) -> Headers:
        """All fields, hop-by-hop ones too: what a 101 must be relayed with."""
        return self._response.raw_headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `RestError` if it breaks off."""
        with _told_as_rest_errors():
            async for chunk in self._response.content.iter_any():
                yield chunk

    def take(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the socket, and the bytes that came right behind the head.

        The caller gives the transport its own protocol at once, and calls `close` at the end.
        """
        connection = self._response.connection
        assert connection is not None
        assert connection.transport is not None
        assert connection.protocol is not None
        early = _EarlyBytes()
        connection.protocol.read_timeout = None
        connection.protocol.set_parser(early, None)
        return connection.transport, bytes(early.received)

    def close(self) -> None:
        """Drop the upstream connection unless the body was read to its end."""
        self._response.close()


class HttpsClient:
    """Sends requests to one upstream origin (`ports.Rest`).

    `origin` is scheme, host and port, e.g. `https://api.openai.com`. `proxy` is the HTTP
    proxy on the way, if any. Times are seconds; `idle_timeout_s` bounds the silence before
    and within an answer (None: no bound). `hint`: what to say where upstream cannot be reached.
    """

    def __init__(
        self,
        origin: str,
        *,
        proxy: Proxy | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float | None = IDLE_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
        hint: str = "",
    ) -> None:
        self._origin = URL(origin).origin()
        self._unreachable = f"{_UNREACHABLE}{hint and f'; {hint}'}."
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max_connections, ssl=tls if tls is not None else True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_NEVER_ADDED,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=connect_timeout_s, sock_read=idle_timeout_s
            ),
            read_bufsize=_READ_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADER_COUNT,
        )
        # aiohttp would send idempotent requests twice on a stale connection.
        self._session._retry_connection = False

    async def send(
        self,
        method: str,
        raw_target: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> HttpAnswer:
        """Send one request and return when its response head has arrived.

        A streamed body keeps the client's Content-Length, else it is chunked.
        Raises `RestError`: 502 `upstream_unreachable`, `upstream_tls`, `upstream_disconnected` or
        `upstream_protocol_error`, 504 `upstream_timeout`.
        """
        fields = _sized(_request_fields(headers), body)
        return await self._request(method, raw_target, fields, body)

    async def upgrade(self, method: str, raw_target: str, headers: Headers) -> HttpAnswer:
        """Send a request that asks for another protocol; `take` the socket if the answer is 101."""
        asked = [field for field in headers if field[0].lower() == b"upgrade"]
        fields = [*_request_fields(headers), (b"Connection", b"Upgrade"), *asked]
        return await self._request(method, raw_target, fields, None)

    async def close(self) -> None:
        """Close every connection; requests under way end with `RestError`."""
        await self._session.close()

    async def _request(
        self,
        method: str,
        raw_target: str,
        fields: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> HttpAnswer:
        with _told_as_rest_errors(self._unreachable):
            response = await self._session.request(
                method,
                self._url(raw_target),
                headers=_as_multidict(fields),
                data=body,
                allow_redirects=False,
                **_through(self._proxy),
            )
        if not _is_clean(response):
            response.close()
            raise RestError(502, "upstream_protocol_error", _NOT_HTTP)
        return HttpAnswer(response)

    def _url(self, raw_target: str) -> URL:
        # The query stays inside the path: split and joined again, "/x?" would lose its mark.
        origin = self._origin
        assert origin.host is not None
        return URL.build(
            scheme=origin.scheme,
            host=origin.host,
            port=origin.explicit_port,
            path=raw_target,
            encoded=True,
        )


def _through(proxy: Proxy | None) -> dict[str, Any]:
    """aiohttp's way of asking an HTTP proxy; its credentials never stand in a URL."""
    if proxy is None:
        return {}
    scheme = "https" if proxy.address.is_tls else "http"
    given = [("Proxy-Authorization", proxy.authorization.decode())] if proxy.authorization else []
    return {"proxy": URL(f"{scheme}://{proxy.address}"), "proxy_headers": CIMultiDict(given)}


class _EarlyBytes:
    """Collects what aiohttp had read behind a 101 (the shape of its payload parsers)."""

    def __init__(self) -> None:
        self.received = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.received += data
        return False, b""

    def feed_eof(self) -> None:
        """Nothing follows."""


def _named_by_connection(headers: Headers) -> Iterable[bytes]:
    for name, value in headers:
        if name.lower() == b"connection":
            for option in value.split(b","):
                yield option.strip().lower()


def _is_clean(response: aiohttp.ClientResponse) -> bool:
    # aiohttp reads answers leniently; what we write on must not carry control characters.
    texts = [text for field in response.raw_headers for text in field]
    return not any(map(_CONTROL.search, [*texts, (response.reason or "").encode(errors="replace")]))


def _request_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [field for field in end_to_end(headers) if field[0].lower() not in _REPLACED]


def _sized(
    fields: list[tuple[bytes, bytes]], body: bytes | AsyncIterator[bytes] | None
) -> list[tuple[bytes, bytes]]:
    if not isinstance(body, bytes):
        return fields
    length = b"%d" % len(body)
    return [
        (name, length if name.lower() == b"content-length" else value) for name, value in fields
    ]


def _as_multidict(fields: Headers) -> CIMultiDict[str]:
    # aiohttp keeps only the last of two equal names that are spelt differently.
    spelling: dict[bytes, str] = {}
    result: CIMultiDict[str] = CIMultiDict()
    for name, value in fields:
        spelt = spelling.setdefault(name.lower(), name.decode("ascii"))
        result.add(spelt, value.decode("utf-8"))
    return result


@contextmanager
def _told_as_rest_errors(unreachable: str = f"{_UNREACHABLE}.") -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise RestError(502, "upstream_tls", "The TLS handshake with upstream failed.") from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise RestError(
                503, "proxy_overloaded", "wsproxy has no file descriptor left."
            ) from error
        raise RestError(502, "upstream_unreachable", unreachable) from error
    except TimeoutError as error:
        raise RestError(504, "upstream_timeout", "Upstream did not answer in time.") from error
    except aiohttp.ClientResponseError as error:
        raise RestError(502, "upstream_protocol_error", _NOT_HTTP) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise RestError(502, "upstream_disconnected", "Upstream closed the connection.") from error
