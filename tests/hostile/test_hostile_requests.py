"""Hostile bytes on the downstream socket: exact status, end of connection, no echo of a key.

Every request carries a canary credential; no answer, log line or crash report may hold it.
"""

from __future__ import annotations

import logging
import re

import pytest

from tests.downstream.downstream_stage import CANARY, Stage, Upstream, stage

STATUS_LINE = re.compile(rb"HTTP/1\.1 [0-9]{3} ")
HOST = "Host: 127.0.0.1:{port}\r\n"
KEY = f"Authorization: Bearer {CANARY}\r\n"
JSON = "Content-Type: application/json\r\n"
TURN = "POST /v1/responses HTTP/1.1\r\n" + HOST + KEY + JSON
GET = "GET /v1/x HTTP/1.1\r\n" + HOST + KEY
OPTIONS = "OPTIONS /v1/x HTTP/1.1\r\n" + HOST + KEY
FOREIGN = "GET /v1/x HTTP/1.1\r\n" + KEY + "Host: "

REFUSED: dict[str, tuple[str, int]] = {
    # Who asks (threat 1)
    "H-01 foreign Host": (FOREIGN + "evil.example\r\n\r\n", 403),
    "H-01 our name, another port": (FOREIGN + "localhost:1\r\n\r\n", 403),
    "H-01 Host with credentials": (FOREIGN + "a@127.0.0.1:{port}\r\n\r\n", 403),
    "H-01 Host that only begins like ours": (FOREIGN + "127.0.0.1:{port}.evil\r\n\r\n", 403),
    "H-02 Host without port": (FOREIGN + "127.0.0.1\r\n\r\n", 403),
    "H-03 foreign Origin": (GET + "Origin: https://evil.example\r\n\r\n", 403),
    "H-03 Origin null": (GET + "Origin: null\r\n\r\n", 403),
    "H-03 Origin of another local port": (GET + "Origin: http://localhost:3000\r\n\r\n", 403),
    "H-04 Sec-Fetch-Site cross-site": (GET + "Sec-Fetch-Site: cross-site\r\n\r\n", 403),
    "H-04 Sec-Fetch-Site same-site": (GET + "Sec-Fetch-Site: same-site\r\n\r\n", 403),
    "H-05 Sec-Fetch-Site same-origin": (GET + "Sec-Fetch-Site: same-origin\r\n\r\n", 403),
    "H-06 preflight": (
        OPTIONS + "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        403,
    ),
    "H-06 preflight without Origin": (OPTIONS + "Access-Control-Request-Method: GET\r\n\r\n", 403),
    "H-07 form post from a page": (
        "POST /v1/responses HTTP/1.1\r\n" + HOST + KEY + "Origin: https://evil.example\r\n"
        "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}",
        403,
    ),
    "H-08 page asks for operations": (
        "GET /_wsproxy/pools HTTP/1.1\r\n" + HOST + KEY + "Origin: https://evil.example\r\n\r\n",
        403,
    ),
    # Framing (threat 8)
    "H-10 CL and TE": (TURN + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}", 400),
    "H-11 two CL, different": (TURN + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}", 400),
    "H-11 two CL, equal": (TURN + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}", 400),
    "H-12 CL +4": (TURN + "Content-Length: +4\r\n\r\n1234", 400),
    "H-12 CL 0x4": (TURN + "Content-Length: 0x4\r\n\r\n1234", 400),
    "H-12 CL of 23 digits": (TURN + f"Content-Length: {'9' * 23}\r\n\r\n", 400),
    "H-12 CL -1": (TURN + "Content-Length: -1\r\n\r\n", 400),
    "H-13 TE xchunked": (TURN + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "H-13 TE chunked, identity": (
        TURN + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    "H-14 space before the colon": (TURN + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "H-15 bare LF in the head": (GET + "X: 1\nY: 2\r\n\r\n", 400),
    "H-15 bare LF in a chunk": (TURN + "Transfer-Encoding: chunked\r\n\r\n2\n{{}}\n0\n\n", 400),
    "H-16 folded header": (GET + "X: 1\r\n 2\r\n\r\n", 400),
    "H-16 bad chunk size": (TURN + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n", 400),
    "H-17 NUL in a value": (GET + "X: a\0b\r\n\r\n", 400),
    "H-17 CR in a value": (GET + "X: a\rb\r\n\r\n", 400),
    "H-18 no Host": ("GET /v1/x HTTP/1.1\r\n" + KEY + "\r\n", 400),
    "H-18 two Hosts": (GET + HOST + "\r\n", 400),
    "H-19 preface of HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "H-19 lower-case method": ("get /v1/x HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    "H-19 TLS on a plain port": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "a" * 40, 400),
    "H-20 HTTP/1.0 with TE": (
        "POST /v1/x HTTP/1.0\r\n" + HOST + KEY + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "H-21 control byte in the credential": (
        "GET /v1/x HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {CANARY}\x01\r\n\r\n",
        400,
    ),
    "H-21 credential that is not UTF-8": (
        "GET /v1/x HTTP/1.1\r\n" + HOST + f"Authorization: Bearer {CANARY}\xff\r\n\r\n",
        400,
    ),
    # Targets (threat 10)
    "H-22 absolute form": (
        "GET http://169.254.169.254/latest HTTP/1.1\r\n" + HOST + KEY + "\r\n",
        400,
    ),
    "H-22 absolute form of our own": (
        "GET http://127.0.0.1:{port}/v1/x HTTP/1.1\r\n" + HOST + KEY + "\r\n",
        400,
    ),
    "H-23 CONNECT": ("CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    "H-24 asterisk": ("OPTIONS * HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    "H-25 relative target": ("GET v1/x HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    "H-25 space in the target": ("GET /v1/x y HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    "H-25 raw bytes in the target": ("GET /\xe9 HTTP/1.1\r\n" + HOST + KEY + "\r\n", 400),
    # Bodies (threats 11 and 12)
    "H-28 garbage for gzip": (
        TURN + "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        400,
    ),
    "H-28 unknown coding": (TURN + "Content-Encoding: br\r\nContent-Length: 4\r\n\r\nnope", 415),
    "H-28 two layers": (TURN + "Content-Encoding: gzip, gzip\r\nContent-Length: 1\r\n\r\nx", 415),
    "H-29 announced body over the limit": (TURN + "Content-Length: 67108865\r\n\r\n", 413),
    "H-30 write to operations": (
        "POST /_wsproxy/pools HTTP/1.1\r\n" + HOST + KEY + "Connection: close\r\n\r\n",
        405,
    ),
    # Versions and sizes
    "H-31 HTTP/0.9": ("GET /v1/x\r\n\r\n", 505),
    "H-31 HTTP/2.0 in words": ("GET /v1/x HTTP/2.0\r\n" + HOST + KEY + "\r\n", 505),
    "H-32 line of 9,000 bytes": (f"GET /{'a' * 9000} HTTP/1.1\r\n" + HOST + KEY + "\r\n", 431),
    "H-32 field of 33 KiB": (GET + f"X: {'a' * 33_792}\r\n\r\n", 431),
    "H-32 200 fields": (GET + "X: 1\r\n" * 200 + "\r\n", 400),
    "H-32 head of 90 KiB": (GET + f"X: {'a' * 30_000}\r\n" * 3 + "\r\n", 431),
    "H-33 chunk extension of 20 kB": (
        TURN + f"Transfer-Encoding: chunked\r\n\r\n2;{'a' * 20_000}\r\n{{{{}}}}",
        400,
    ),
    "H-34 unknown Expect": (TURN + "Expect: miracles\r\nContent-Length: 2\r\n\r\n{{}}", 417),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_it_is_refused_and_the_connection_ends(
    raw: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with stage() as s:
        got = await s.ask(bytes_of(raw, s))
        assert got.startswith(b"HTTP/1.1 %d " % status), got[:200]
        assert len(STATUS_LINE.findall(got)) == 1
        assert b"\r\nConnection: close\r\n" in got
        assert b'{"error": {"message": ' in got
        assert s.upstream.seen == []
        assert CANARY not in got.decode() + caplog.text + str(s.crashes)
        assert s.crashes == []


ALLOWED: dict[str, str] = {
    "H-26 doubled slash": "GET //evil.example/x HTTP/1.1\r\n" + HOST,
    "H-27 dot segments": "GET /v1/../admin HTTP/1.1\r\n" + HOST,
    "H-35 HTTP/1.0 with Host": "GET /v1/x HTTP/1.0\r\n" + HOST,
    "H-35 HTTP/1.0 without Host": "GET /v1/x HTTP/1.0\r\n",
    "localhost": "GET /v1/x HTTP/1.1\r\nHost: LocalHost:{port}\r\n",
    "[::1]": "GET /v1/x HTTP/1.1\r\nHost: [::1]:{port}\r\n",
    "Node's fetch": "GET /v1/x HTTP/1.1\r\n" + HOST + "Sec-Fetch-Mode: cors\r\n",
    "address bar": "GET /v1/x HTTP/1.1\r\n" + HOST + "Sec-Fetch-Site: none\r\n",
    "OPTIONS of an API client": "OPTIONS /v1/x HTTP/1.1\r\n" + HOST,
}


@pytest.mark.parametrize("raw", ALLOWED.values(), ids=ALLOWED.keys())
async def test_it_is_odd_but_served_from_upstream(raw: str) -> None:
    async with stage() as s:
        got = await s.ask(bytes_of(raw + KEY + "Connection: close\r\n\r\n", s))
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.endswith(b"ok")
        method, target, _ = raw.split(" ", 2)
        assert s.upstream.seen[0].line == f"{method} {target} HTTP/1.1".encode()
        assert s.upstream.seen[0].values(b"host") == [b"127.0.0.1:%d" % s.upstream.port]


SMUGGLED = "GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\rX\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1;a=\n\r\nx\r\n0\r\n\r\n",
    ],
    ids=["H-36 CL and TE", "H-36 two CL", "H-36 bad last chunk", "H-36 LF in extension"],
)
async def test_no_second_request_is_found_behind_a_broken_one(head: str) -> None:
    async with stage(Upstream()) as s:
        got = await s.ask(bytes_of(TURN + head + SMUGGLED, s))
        assert len(STATUS_LINE.findall(got)) == 1
        assert got.startswith(b"HTTP/1.1 400 ")
        assert s.upstream.seen == []


def bytes_of(raw: str, s: Stage) -> bytes:
    return raw.format(port=s.port).encode("latin-1")
