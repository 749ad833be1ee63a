"""The daemon as a process: what systemd is told, and what SIGHUP takes over."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.canary import WATCH, secret
from wsproxy import systemd
from wsproxy.config import Settings
from wsproxy.logs import FIELDS
from wsproxy.reloading import RELOADABLE, needs_restart
from wsproxy.serving import farewell

PATIENCE_S: Final = 20.0
FIRST: Final = 'listen = ["127.0.0.1:0"]\n'


@dataclass
class Serving:
    """A daemon in a process of its own, and the socket that systemd would listen on."""

    process: subprocess.Popen[str]
    told: socket.socket
    settings: Path

    def next_state(self) -> list[str]:
        return self.told.recv(4096).decode().splitlines()

    def until_logged(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
        raise AssertionError(f"{event} was never logged")

    def reload(self, more: str) -> None:
        self.settings.write_text(FIRST + more)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def serving(folder: Path, first: str = FIRST) -> Iterator[Serving]:
    path = folder / "wsproxy.toml"
    path.write_text(first)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(folder / "notify"))
        told.settimeout(PATIENCE_S)
        command = [sys.executable, "-m", "wsproxy", "serve", "--config", str(path)]
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Serving(process, told, path)
            finally:
                process.kill()


def ask(port: int, host: str, path: str = "/_wsproxy/readyz") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


def test_systemd_is_told_ready_then_stopping_and_a_reload_takes_over_what_it_can(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as daemon:
        ready, status = daemon.next_state()
        assert ready == "READY=1"
        port = int(status.rpartition(":")[2].split("/")[0])
        assert ask(port, f"agents.test:{port}") == 403
        daemon.reload('allowed_hosts = ["agents.test"]\nlog_level = "warning"\nmax_turns = 3\n')
        assert daemon.until_logged("daemon.restart_needed")["fields"] == ["max_turns"]
        assert ask(port, f"agents.test:{port}") == 200
        daemon.reload("lanes = 7\n")
        assert "lanes" in daemon.until_logged("daemon.reload_refused")["detail"]
        assert ask(port, f"agents.test:{port}") == 200
        asyncio.run(WATCH.look_at_child(f"http://127.0.0.1:{port}/v1"))
        daemon.process.terminate()
        assert daemon.next_state()[0] == "STOPPING=1"
        assert daemon.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("form", "running", "more"),
    [
        ("text", 2, {"turns": 2, "detail": "again ends them now"}),
        ("text", 0, {"turns": 0}),
        ("json", 2, {"turns": 2}),
    ],
    ids=["text", "text, none", "json"],
)
def test_the_log_says_how_many_turns_a_drain_waits_for_and_how_not_to_wait(
    form: str, running: int, more: dict[str, object]
) -> None:
    fields = farewell(running, signal.SIGINT, Settings(log_format=form))
    assert fields == {"signal": "SIGINT", **more}
    assert fields.keys() <= FIELDS


def test_a_token_is_read_again_though_its_files_name_is_the_same(tmp_path: Path) -> None:
    token = WATCH.plant(tmp_path / "token", secret("a"))
    with serving(tmp_path) as daemon:
        _, status = daemon.next_state()
        port = int(status.rpartition(":")[2].split("/")[0])
        daemon.reload(f'token_file = "{token}"\n')
        assert daemon.until_logged("daemon.reloaded")["fields"] == ["token_file"]
        assert ask(port, f"127.0.0.1:{port}") == 401
        token.write_text(secret("b"))
        daemon.reload(f'token_file = "{token}"\n')
        daemon.until_logged("daemon.reloaded")
        assert ask(port, f"127.0.0.1:{port}", f"/t/{secret('a')}/_wsproxy/readyz") == 401
        assert ask(port, f"127.0.0.1:{port}", f"/t/{secret('b')}/_wsproxy/readyz") == 200
        asyncio.run(WATCH.look_at_child(f"http://127.0.0.1:{port}/t/{secret('b')}/v1"))


def test_the_base_url_that_is_told_works_once_the_token_stands_in_it(tmp_path: Path) -> None:
    token = WATCH.plant(tmp_path / "token", secret("told"))
    with serving(tmp_path, f'{FIRST}token_file = "{token}"\n') as daemon:
        _, status = daemon.next_state()
        told = status.removeprefix("STATUS=serving ")
        port = int(told.split(":")[2].split("/")[0])
        assert told == f"http://127.0.0.1:{port}/t/TOKEN/v1"
        assert daemon.process.stdout is not None
        assert daemon.process.stdout.readline() == f"wsproxy: ready; base URL {told}\n"
        assert daemon.until_logged("daemon.ready")["base_url"] == told
        path = told.partition(f":{port}")[2].replace("TOKEN", secret("told"))
        host = f"127.0.0.1:{port}"
        assert ask(port, host, path.replace("/v1", "/_wsproxy/readyz")) == 200
        assert ask(port, host) == 401
        asyncio.run(WATCH.look_at_child(f"http://{host}{path}"))


@pytest.mark.parametrize(
    ("level", "where", "events"),
    [
        ("info", subprocess.STDOUT, ["daemon.ready", "daemon.draining", "daemon.stopped"]),
        ("info", subprocess.DEVNULL, [None]),
        ("error", subprocess.STDOUT, [None]),
    ],
    ids=["where the log is", "elsewhere", "where the log says nothing"],
)
def test_the_base_url_is_told_on_stdout_unless_the_log_told_it_there(
    level: str, where: int, events: list[str | None]
) -> None:
    command = [sys.executable, "-m", "wsproxy", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--log-level", level], stdout=subprocess.PIPE, stderr=where, text=True
    ) as daemon:
        assert daemon.stdout is not None
        first = daemon.stdout.readline()
        daemon.terminate()
        lines = [first, *daemon.stdout]
        assert daemon.wait(PATIENCE_S) == 0
    assert "http://127.0.0.1:" in first
    assert [json.loads(line)["event"] if line[0] == "{" else None for line in lines] == events


@pytest.mark.parametrize(
    ("more", "name", "warning"),
    [("", "HOST", "host_not_allowed"), ("allowed_hosts = ['proxy.lan']\n", "proxy.lan", None)],
    ids=["no name", "a name"],
)
def test_who_listens_to_other_machines_is_told_once_when_no_name_of_theirs_is_answered(
    tmp_path: Path, more: str, name: str, warning: str | None
) -> None:
    token = WATCH.plant(tmp_path / "token", secret("remote"))
    remote = f'listen = ["0.0.0.0:0"]\nallow_remote = true\ntoken_file = "{token}"\n'
    with serving(tmp_path, remote + more) as daemon:
        told = daemon.next_state()[1].removeprefix("STATUS=serving ")
        port = int(told.split(":")[2].split("/")[0])
        assert told == f"http://{name}:{port}/t/TOKEN/v1"
        path = f"/t/{secret('remote')}/_wsproxy/readyz"
        assert ask(port, f"proxy.lan:{port}", path) == (403 if warning else 200)
        asyncio.run(WATCH.look_at_child(f"http://127.0.0.1:{port}/t/{secret('remote')}/v1"))
        daemon.process.terminate()
        lines = [
            json.loads(line)
            for line in daemon.process.communicate(timeout=PATIENCE_S)[1].splitlines()
        ]
        codes = [line["code"] for line in lines if line["event"] == "daemon.left_nameless"]
        assert codes == ([warning] if warning else [])


def test_only_what_changed_and_cannot_change_is_named() -> None:
    wanted = Settings(max_turns=9, log_level="debug", lanes="off")
    assert needs_restart(Settings(), wanted) == ["lanes", "max_turns"]
    assert set(RELOADABLE) <= set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    "address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here"], ids=repr
)
def test_without_a_supervisor_nothing_happens(address: str) -> None:
    assert systemd.notify(systemd.READY, environment={"NOTIFY_SOCKET": address}) is False


def test_the_abstract_namespace_is_reached(tmp_path: Path) -> None:
    name = f"wsproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0{name}")
        told.settimeout(PATIENCE_S)
        assert systemd.notify("READY=1", environment={"NOTIFY_SOCKET": f"@{name}"})
        assert told.recv(100) == b"READY=1"
