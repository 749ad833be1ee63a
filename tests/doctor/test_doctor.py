"""`wsproxy doctor`: one line a check, what to do about it, no model run, no key shown."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.worlds import KEY, world
from wsproxy.cli.main import main
from wsproxy.config import Settings
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.doctor.finding import Verdict
from wsproxy.doctor.line import Refused
from wsproxy.doctor.local import check_traces
from wsproxy.doctor.road import check_road, reason
from wsproxy.doctor.upstream import refused
from wsproxy.simulator import Rules, Simulator
from wsproxy.upstream.proxy import Address, Proxy


@dataclass
class Told:
    """What the doctor said: `verdict` and `text` by check."""

    code: int
    output: str

    def __getitem__(self, check: str) -> tuple[str, str]:
        [found] = [one for one in json.loads(self.output)["checks"] if one["check"] == check]
        return found["verdict"], f"{found['text']} → {found['advice']}"

    @property
    def verdicts(self) -> dict[str, str]:
        return {one["check"]: one["verdict"] for one in json.loads(self.output)["checks"]}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def ask_doctor(capsys: pytest.CaptureFixture[str], upstream: str, *options: str) -> Told:
    arguments = ["doctor", "--json", "--listen", "127.0.0.1:9", "--upstream", upstream, *options]
    code = await asyncio.to_thread(main, arguments)
    printed = capsys.readouterr()
    return Told(code, printed.out)


async def test_where_all_is_well_only_the_daemon_is_missing_and_no_model_ran(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Simulator(Rules()) as sim:
        told = await ask_doctor(capsys, sim.base_url)
        assert sim.log.runs() == {}
    assert told.code == 0
    assert {name for name, verdict in told.verdicts.items() if verdict == "warn"} == {"daemon"}
    assert {"fail"} & set(told.verdicts.values()) == set()
    assert list(told.verdicts)[:6] == ["config", "daemon", "proxy", "dns", "tcp", "tls"]
    assert told["lanes"][1].startswith("stream_id is echoed")
    assert told["chains"][1].startswith("previous_response_id is looked up")
    assert KEY not in told.output


async def test_without_a_key_it_says_what_that_leaves_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    async with Simulator(Rules()) as sim:
        told = await ask_doctor(capsys, sim.base_url)
    assert told.code == 0
    assert "OPENAI_API_KEY is not set" in told["key"][1]
    assert told["upgrade"] == ("ok", "401 without a key: the road is open → ")
    for check in ("compression", "round trip", "lanes", "chains"):
        assert told[check] == ("left out", "needs a key → ")


@pytest.mark.parametrize(
    ("rules", "check", "verdict", "text"),
    [
        (Rules(refuse_upgrade=403), "upgrade", "fail", "answered with 403: "),
        (Rules(refuse_upgrade=404), "upgrade", "fail", "no WebSocket at this URL"),
        (Rules(refuse_upgrade=429), "upgrade", "warn", "turns go over HTTPS"),
        (Rules(deflate=False), "compression", "warn", "upstream declined it"),
        (Rules(lanes="ignored"), "lanes", "warn", "stream_id is not echoed"),
        (Rules(lanes="refused"), "lanes", "warn", "stream_id is refused"),
        (Rules(continuation="ignored_null"), "chains", "warn", "was not refused"),
    ],
    ids=["403", "404", "429", "no deflate", "lanes ignored", "lanes refused", "no chains"],
)
async def test_what_upstream_cannot_do_is_told_with_what_follows(
    capsys: pytest.CaptureFixture[str], rules: Rules, check: str, verdict: str, text: str
) -> None:
    async with Simulator(rules) as sim:
        told = await ask_doctor(capsys, sim.base_url)
    assert told[check][0] == verdict
    assert text in told[check][1]
    assert told.code == (verdict == "fail")


async def test_an_upstream_without_its_path_is_asked_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Simulator(Rules()) as sim:
        told = await ask_doctor(capsys, sim.base_url.removesuffix("/v1"))
    assert told["key"][0] == "fail"
    assert told["key"][1].endswith("should it end in /v1?")


async def test_behind_a_closed_port_nothing_else_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = await ask_doctor(capsys, "http://127.0.0.1:11/v1")
    assert told.code == 1
    assert told["tcp"][0] == "fail"
    assert told["tcp"][1].startswith("127.0.0.1:11: connection refused → ")
    assert told["upgrade"] == ("left out", "upstream cannot be reached → ")
    assert told["traces"][0] == "ok"


async def test_wrong_settings_are_a_finding_too(capsys: pytest.CaptureFixture[str]) -> None:
    told = await ask_doctor(capsys, "http://127.0.0.1:9/v1", "--lanes", "sideways")
    assert told.code == 1
    assert told.verdicts == {"config": "fail"}


async def test_as_text_each_line_has_its_verdict_first(capsys: pytest.CaptureFixture[str]) -> None:
    async with Simulator(Rules(deflate=False)) as sim:
        code = await asyncio.to_thread(main, ["doctor", "--upstream", sim.base_url])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    upstream = f"upstream {sim.base_url} (flag --upstream); 1 setting given: upstream"
    assert lines[0] == f"ok       config       {upstream}"
    at = next(n for n, line in enumerate(lines) if "compression" in line)
    assert lines[at].startswith("warn ")
    assert lines[at + 1].strip() == "→ nothing: frames go as they are"


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def tls_server(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """Shakes hands and says nothing; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    server = await asyncio.start_server(_hold, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def settings(port: int, ca_file: Path | None) -> Settings:
    return Settings(upstream=f"https://127.0.0.1:{port}/v1", upstream_ca_file=ca_file)


@pytest.mark.parametrize(
    ("is_trusted", "days", "verdict", "text"),
    [
        (True, 90, "ok", "certificate for 90 days"),
        (True, 5, "warn", "certificate for 5 days"),
        (False, 90, "fail", "upstream_ca_file"),
        (True, -1, "fail", "certificate has expired"),
    ],
    ids=["well", "about to end", "untrusted", "expired"],
)
async def test_the_certificate_is_judged(
    tmp_path: Path, authority: trustme.CA, is_trusted: bool, days: int, verdict: str, text: str
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days, minutes=5)
    certificate = authority.issue_cert("127.0.0.1", not_after=ends)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_server(certificate) as port:
        ca_file = tmp_path / "ca.pem" if is_trusted else None
        *_, found = await check_road(settings(port, ca_file), None)
    assert found.verdict.value == verdict
    assert text in f"{found.text} {found.advice}"


async def test_through_a_proxy_the_certificate_is_still_upstreams(
    tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_server(authority.issue_cert("127.0.0.1")) as port:
        async with connect_proxy("200 OK") as at:
            road = await check_road(settings(port, tmp_path / "ca.pem"), Proxy(at, b"Basic eDp5"))
        async with connect_proxy("407 Who are you") as at:
            refused = await check_road(settings(port, tmp_path / "ca.pem"), Proxy(at))
    assert [found.verdict.value for found in road] == ["ok", "ok", "ok"]
    assert "TLSv1.3 with 127.0.0.1" in road[-1].text
    assert "the proxy said HTTP/1.1 407" in refused[-1].text


@asynccontextmanager
async def connect_proxy(status: str) -> AsyncIterator[Address]:
    """Answers CONNECT with this status; relays behind a 200."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4096)
        if not head:  # only looked whether somebody is there
            writer.close()
            return
        host, _, port = head.split()[1].decode().partition(":")
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if not status.startswith("2"):
            writer.close()
            return
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_relay(reader, back), _relay(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1], is_tls=False)


async def _relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
    sink.close()


# ── This machine ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mode", "verdict"), [(0o700, "ok"), (0o755, "warn"), (None, "ok")], ids=["ours", "open", "new"]
)
def test_the_trace_folder_is_judged_and_never_made(
    tmp_path: Path, mode: int | None, verdict: str
) -> None:
    folder = tmp_path / "traces"
    if mode is not None:
        folder.mkdir(mode=mode)
        folder.chmod(mode)
    assert check_traces(Settings(trace_dir=folder), {}).verdict.value == verdict
    assert folder.exists() is (mode is not None)


async def test_ready_is_0_only_while_the_daemon_takes_new_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with world() as proxy:
        assert proxy.proxy.front is not None
        ready = ["doctor", "--ready", "--listen", str(proxy.proxy.front.addresses[0])]
        assert await asyncio.to_thread(main, ready) == 0
        proxy.proxy.is_draining = True
        assert await asyncio.to_thread(main, ready) == 1
    assert "not ready: it answered 503" in capsys.readouterr().err
    assert await asyncio.to_thread(main, ready) == 1


async def test_a_daemon_that_this_shell_does_not_use_is_pointed_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as proxy:
        assert proxy.proxy.front is not None
        upstream: Any = proxy.sim.base_url
        listen = str(proxy.proxy.front.addresses[0])
        arguments = ["doctor", "--json", "--listen", listen, "--upstream", upstream]
        await asyncio.to_thread(main, arguments)
        told = Told(0, capsys.readouterr().out)
        assert told["daemon"][0] == "warn"
        monkeypatch.setenv("OPENAI_BASE_URL", proxy.proxy.base_url)
        await asyncio.to_thread(main, arguments)
    assert Told(0, capsys.readouterr().out)["daemon"] == ("ok", f"ready at {listen} → ")


async def test_the_upstream_of_the_running_daemon_is_checked_where_no_other_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with world() as proxy:
        assert proxy.proxy.front is not None
        listen = str(proxy.proxy.front.addresses[0])
        code = await asyncio.to_thread(main, ["doctor", "--json", "--listen", listen])
        told = Told(code, capsys.readouterr().out)
        assert told["config"][1].startswith(
            f"upstream {proxy.sim.base_url} (the daemon at {listen}); 1 setting given: listen"
        )
        assert (code, told["lanes"][0]) == (0, "ok")
        other = ["doctor", "--json", "--listen", listen, "--upstream", "http://127.0.0.1:9/v1"]
        await asyncio.to_thread(main, other)
    told = Told(1, capsys.readouterr().out)
    assert told["config"][1].startswith("upstream http://127.0.0.1:9/v1 (flag --upstream); ")
    assert told["daemon"] == (
        "warn",
        f"ready at {listen}, but its upstream is {proxy.sim.base_url}"
        f" → `wsproxy doctor --upstream {proxy.sim.base_url}` checks that one",
    )


def test_where_no_daemon_runs_the_command_that_starts_one_has_the_upstream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    upstream = "http://127.0.0.1:11/v1"
    main(["doctor", "--json", "--listen", "127.0.0.1:9", "--upstream", upstream])
    _, text = Told(1, capsys.readouterr().out)["daemon"]
    assert f"start one: `wsproxy serve --upstream {upstream}`" in text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{\n  "error": {"message": "Not\\nhere.", "code": "x_y"}\n}\n', "404: Not here. (x_y)"),
        (b'{"error": {"message": "No.", "type": "t", "code": null}}', "404: No. (t)"),
        (b"<h1>\r\n\tNo\x1b[31m</h1>\n", "404: <h1> No\\u001b[31m</h1>"),
        (b'{"detail":\n "no"}', '404: {"detail": "no"}'),
        (b"", "answered 404"),
    ],
    ids=["an error", "no code", "a page", "another document", "nothing"],
)
def test_a_refusal_is_one_line_that_moves_no_cursor(body: bytes, told: str) -> None:
    finding = refused(Refused(Fault.UPGRADE_UNSUPPORTED, 404, body, ""), KEY)
    assert finding.text.endswith(told)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)"), "connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect …, [Errno 113] Connect …"),
            "connection refused, no route to host",
        ),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "nothing within 5 s"),
        (ConnectionError("the proxy said HTTP/1.1 407"), "the proxy said HTTP/1.1 407"),
    ],
    ids=["refused", "several addresses", "no name", "silence", "a proxy"],
)
def test_what_the_system_said_is_told_in_plain_words(error: Exception, told: str) -> None:
    assert reason(error) == told


@pytest.mark.parametrize(
    ("name", "value", "is_coloured"),
    [("TERM", "xterm", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)],
)
def test_on_a_terminal_verdicts_are_coloured_unless_that_is_not_wanted(
    name: str, value: str, is_coloured: bool
) -> None:
    told = on_a_terminal(["doctor", "--upstream", "http://127.0.0.1:9/v1"], {name: value})
    assert "config" in told
    assert ("\x1b[" in told) is is_coloured


def on_a_terminal(arguments: list[str], more: dict[str, str]) -> str:
    """What a command prints where its stdout is a terminal."""
    master, slave = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "wsproxy", *arguments], stdout=slave, env={**kept, **more}
    ) as child:
        os.close(slave)
        told = b"".join(_until_closed(master))
        child.wait(30)
    os.close(master)
    return told.decode()


def _until_closed(terminal: int) -> Iterator[bytes]:
    with suppress(OSError):  # Linux tells the end of a terminal so
        while data := os.read(terminal, 4096):
            yield data


async def test_a_key_that_upstream_repeats_is_shown_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    body = f'{{"error":{{"message":"bad key Bearer {KEY}"}}}}'
    answer = f"HTTP/1.1 429 X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await ask_doctor(capsys, f"http://127.0.0.1:{port}/v1")
    assert "bad key Bearer [the key]" in told["upgrade"][1]
    assert KEY not in told.output


def test_traces_need_as_much_room_as_the_settings_say(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    verdicts = [
        check_traces(Settings(trace_dir=folder, trace_min_free_bytes=free), {}).verdict
        for free in (0, 1 << 60)
    ]
    assert verdicts == [Verdict.OK, Verdict.WARN]
