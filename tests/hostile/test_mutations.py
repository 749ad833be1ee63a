"""Hostile requests mutated at random: a documented answer or none, never a crash."""

from __future__ import annotations

import random
import re

import pytest

from tests.downstream.downstream_stage import CANARY, stage

SEEDS = [
    b"GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n\r\n",
    b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
    b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
    b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
    b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
]
SPICE = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"0", b"HTTP/1.1", b"chunked"]
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


def mutated(chance: random.Random, port: int) -> bytes:
    raw = chance.choice(SEEDS) % (port, CANARY.encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw))
        until = at + chance.choice([0, 0, 1, 5, 40])
        raw = raw[:at] + chance.choice([b"", *SPICE]) + raw[until:]
    return raw


@pytest.mark.parametrize("seed", range(4))
async def test_no_mutation_crashes_or_learns_a_key(seed: int) -> None:
    chance = random.Random(seed)
    async with stage() as s:
        for _ in range(100):
            client = await s.connect()
            raw = mutated(chance, s.port)
            client.send(raw)
            client.writer.write_eof()
            got = await client.rest()
            statuses = {int(status) for status in STATUS.findall(got)}
            assert statuses <= {
                100,
                200,
                400,
                401,
                403,
                404,
                408,
                413,
                415,
                417,
                426,
                431,
                502,
                505,
            }
            assert CANARY.encode() not in got
            client.writer.transport.abort()
        assert s.crashes == []
        assert (await s.get("/v1/x")).endswith(b"ok")
