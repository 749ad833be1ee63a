"""Settings: the order of their sources, what each kind accepts, what a wrong one says."""

from __future__ import annotations

import os
import pickle
import pwd
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.canary import SECRET, WATCH
from wsproxy.config import (
    SETTINGS,
    Given,
    Loaded,
    Secret,
    Settings,
    SettingsError,
    load,
    read_token,
    split_address,
    state_folder,
    trace_folder,
)
from wsproxy.config.pages import toml_line
from wsproxy.config.toml import read_entries

TOKEN = SECRET
#: What the system says, whatever HOME says.
ACCOUNT = Path(pwd.getpwuid(os.getuid()).pw_dir)


def from_file(folder: Path, text: str) -> Loaded:
    path = folder / "wsproxy.toml"
    path.write_text(text, encoding="utf-8")
    return load(environment={}, file=path)


def error_of(folder: Path, text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        from_file(folder, text)
    return caught.value


def problem_of(reading: Callable[[], object]) -> str | None:
    """None where it was accepted; any other exception than SettingsError is a failure."""
    try:
        reading()
    except SettingsError as error:
        return error.problem
    return None


def test_without_any_source_everything_is_the_default() -> None:
    loaded = load(environment={"HOME": "/home/x", "PATH": "/bin"})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert set(loaded.sources) == {field.name for field in fields(Settings)}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "wsproxy.toml"
    path.write_text('lanes = "on"\ntransport = "http"\nmax_turns = 5\n')
    environment = {"WSPROXY_LANES": "off", "WSPROXY_TRANSPORT": "auto"}
    loaded = load([Given("lanes", "auto", "--lanes")], environment, path)
    assert loaded.settings == Settings(lanes="auto", transport="auto", max_turns=5)
    assert loaded.sources["lanes"] == "flag --lanes"
    assert loaded.sources["transport"] == "environment WSPROXY_TRANSPORT"
    assert loaded.sources["max_turns"] == f"file {path}"
    assert loaded.sources["compression"] == "default"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wsproxy.toml"
    path.write_text("max_turns = 7")
    assert load(environment={"WSPROXY_CONFIG": str(path)}).settings.max_turns == 7


def test_a_table_is_a_prefix_and_upstream_url_is_upstream(tmp_path: Path) -> None:
    text = """
    [upstream]
    url = "https://example.com/v1"
    proxy = "none"
    [connection]
    max_age_s = "40min"
    """
    settings = from_file(tmp_path, text).settings
    assert settings.upstream == "https://example.com/v1"
    assert settings.upstream_proxy == "none"
    assert settings.connection_max_age_s == 2400.0


def test_a_repeated_flag_replaces_the_whole_list() -> None:
    loaded = load([Given("listen", ("127.0.0.1:1", "[::1]:2"), "--listen")], {})
    assert loaded.settings.listen == ("127.0.0.1:1", "[::1]:2")


def test_an_empty_variable_counts_as_absent() -> None:
    assert load(environment={"WSPROXY_LANES": ""}).sources["lanes"] == "default"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("listen", "127.0.0.1:1,[::1]:2", ("127.0.0.1:1", "[::1]:2")),
        ("listen", "localhost:0", ("localhost:0",)),
        ("upstream", "wss://API.example.com:443/v1/", "https://api.example.com/v1"),
        ("upstream", "ws://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
        ("upstream", "http://[::1]:9", "http://[::1]:9"),
        ("upstream_proxy", "http://proxy.example:3128/", "http://proxy.example:3128"),
        ("dial_timeout_s", "250ms", 0.25),
        ("dial_timeout_s", "1.5", 1.5),
        ("event_idle_timeout_s", "1h", 3600.0),
        ("connection_idle_s", "50m", 3000.0),
        ("max_body_bytes", "15.5MiB", 16_252_928),
        ("history_bytes", "100 MB", 100_000_000),
        ("max_turns", "1_000", 1000),
        ("trace_bodies", "on", True),
        ("trace_bodies", "0", False),
        ("session_headers", "X-Session, x-other-*", ("x-session", "x-other-*")),
    ],
)
def test_text_is_read_by_the_kind_of_its_setting(name: str, text: str, value: object) -> None:
    loaded = load(environment={f"WSPROXY_{name.upper()}": text})
    assert getattr(loaded.settings, name) == value


@pytest.mark.parametrize(
    ("text", "problem", "advice"),
    [
        ('lane = "on"', "wsproxy.toml:1: there is no setting 'lane'", "did you mean lanes?"),
        ("[upstream]\nurl = 3", "wsproxy.toml:2: upstream: 3 is not an http or https URL", ""),
        ("\nlanes = 'of'", "wsproxy.toml:2: lanes: 'of' is not one of", "did you mean off?"),
        ('max_turns = "5"', "'5' is not a whole number from 1 to 65,535", ""),
        ("max_turns = true", "True is not a whole number", ""),
        ("max_turns = 0", "0 is not a whole number from 1", ""),
        ("trace_bodies = 'yes'", "'yes' is not true or false", ""),
        ("head_timeout_s = nan", "nan is not a duration", ""),
        ("head_timeout_s = '5 weeks'", "is not a duration", ""),
        ("max_body_bytes = 2000.5", "2000.5 is not a size from 1 KiB to 1 GiB", ""),
        ("session_headers = ['a b']", "'a b' is not a list of header names", ""),
        ("session_headers = 'a'", "'a' is not a list of header names", ""),
        ("listen = []", "leaves nothing to listen on", ""),
        ("listen = [':8787']", "write 127.0.0.1:8787", ""),
        ("listen = ['::1:8787']", "needs brackets", ""),
        ("listen = ['[::1]']", "no port", ""),
        ("listen = ['127.0.0.1:65536']", "no port from 0 to 65535", ""),
        ("upstream = 'ftp://x/'", "is not an http or https URL", ""),
        ("upstream = 'https:///v1'", "is not an http or https URL", ""),
        ("upstream = 'https://x/v1?a'", "no query", ""),
        ("upstream = 'https://x/a/../b'", "must be plain", ""),
        ("upstream = 'https://x:0/'", "is not an http or https URL", ""),
        ("upstream = 'http://example.com/v1'", "plain text", "allow_plain_upstream"),
        ("upstream = 'http://localhost:8787/v1'", "is wsproxy itself", "another port"),
        ("listen = '0.0.0.0:1'", "from other machines", "--allow-remote and --token-file"),
        ("connection_max_age_s = 1", "connection_age_jitter_s = 300 (default) is above", ""),
        ("upstream_proxy = 'none'\nupstream.proxy = 'env'", "upstream_proxy is given twice", ""),
        ("token_file = '/nonexistent/token'", "cannot read", "secrets.token_urlsafe"),
        ("upstream_ca_file = '/nonexistent/ca'", "cannot read", "who may read it"),
        ("lanes = on", "wsproxy.toml:1: not TOML", "quotes"),
        ("[upstream", "wsproxy.toml:1: not TOML", ""),
        ("a = " + "[" * 5000, "wsproxy.toml:1: not TOML", ""),
        ("max_turns = " + "9" * 5000, "wsproxy.toml:1: not TOML", ""),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_file_says_what_and_where(
    tmp_path: Path, text: str, problem: str, advice: str
) -> None:
    error = error_of(tmp_path, text)
    assert problem in error.problem
    assert advice in error.advice


@pytest.mark.parametrize(
    ("environment", "problem", "advice"),
    [
        ({"WSPROXY_LANE": "on"}, "environment WSPROXY_LANE: there is no", "WSPROXY_LANES?"),
        ({"WSPROXY_CONFI": "x"}, "there is no such setting", "WSPROXY_CONFIG?"),
        ({"WSPROXY_\x1b[31m\n": "x"}, "environment WSPROXY_\\x1b[31m\\n: there is no", ""),
        ({"WSPROXY_TRACE_DIR": '"/tmp/x"'}, "WSPROXY_TRACE_DIR: trace_dir: ", "leave the quotes"),
        ({"WSPROXY_TRACE_DIR": "'/tmp/x'"}, "WSPROXY_TRACE_DIR: trace_dir: ", "leave the quotes"),
        ({"WSPROXY_CHANGEABLE_FIELDS": '["a"]'}, "is written as in TOML", "separated by commas"),
        ({"WSPROXY_MAX_TURNS": "-1"}, "environment WSPROXY_MAX_TURNS: max_turns: '-1'", ""),
        ({"WSPROXY_CONFIG": "/nonexistent/x"}, "cannot be read: No such file", "--config"),
        ({"WSPROXY_CONFIG": "/"}, "cannot be read: Is a directory", "--config"),
    ],
)
def test_a_wrong_environment_says_which_variable(
    environment: dict[str, str], problem: str, advice: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environment=environment)
    assert problem in caught.value.problem
    assert advice in caught.value.advice


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("WSPROXY_SERVICE_HOST", "10.96.0.7"),
        ("WSPROXY_SERVICE_PORT", "8787"),
        ("WSPROXY_SERVICE_PORT_HTTP_API", "8787"),
        ("WSPROXY_PORT", "tcp://10.96.0.7:8787"),
        ("WSPROXY_PORT", "udp://[fd00::7]:8787"),
        ("WSPROXY_PORT_8787_TCP", "tcp://10.96.0.7:8787"),
        ("WSPROXY_PORT_8787_TCP_PROTO", "tcp"),
        ("WSPROXY_PORT_8787_UDP_PORT", "8787"),
        ("WSPROXY_PORT_8787_SCTP_ADDR", "10.96.0.7"),
    ],
)
def test_what_a_kubernetes_service_of_our_name_adds_is_left_alone(variable: str, text: str) -> None:
    loaded = load(environment={variable: text, "WSPROXY_MAX_TURNS": "5"})
    assert loaded.settings == Settings(max_turns=5)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("WSPROXY_PORT", "8787"),
        ("WSPROXY_PORT", ""),
        ("WSPROXY_PORTS", "tcp://10.96.0.7:8787"),
        ("WSPROXY_PORT_TCP", "tcp://10.96.0.7:8787"),
        ("WSPROXY_PORT_8787_TCP_HOST", "10.96.0.7"),
        ("WSPROXY_PORT_8787_TCP\n", "10.96.0.7"),
        ("WSPROXY_SERVICE_HOSTS", "10.96.0.7"),
        ("WSPROXY_SERVICE_PORT_", "8787"),
        ("WSPROXY_METRICS_SERVICE_HOST", "10.96.0.7"),
    ],
)
def test_a_name_that_only_resembles_those_is_still_refused(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match="there is no such setting"):
        load(environment={variable: text})


@pytest.mark.parametrize(
    ("text", "has_hint"),
    [
        ("lanes = on", True),
        ("upstream = https://example.com/v1", True),
        ("listen = [localhost:8787]", True),
        ("listen = 127.0.0.1:8787", True),
        ("head_timeout_s = 15s", True),
        ("listen = [", False),
        ("[upstream", False),
        ('lanes = "on', False),
        ("trace_bodies = true false", False),
    ],
    ids=lambda value: str(value),
)
def test_quotes_are_asked_for_where_they_are_missing(
    tmp_path: Path, text: str, has_hint: bool
) -> None:
    error = error_of(tmp_path, text)
    assert "not TOML" in error.problem
    assert error.advice == ("strings need quotes in TOML" if has_hint else "")


def test_a_token_file_that_is_not_there_is_told_how_to_make_that_very_file(tmp_path: Path) -> None:
    path = tmp_path / "my token"
    with pytest.raises(SettingsError) as caught:
        read_token(path)
    assert caught.value.advice.endswith(f" > '{path}' && chmod 600 '{path}'")
    path.mkdir()
    with pytest.raises(SettingsError, match="Is a directory") as caught:
        read_token(path)
    assert "secrets" not in caught.value.advice


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    error = error_of(tmp_path, "upstream_proxy = 'http://me:hunter2@proxy:3128'")
    assert "must not carry" in error.problem
    assert "hunter2" not in str(error)


def test_remote_listening_needs_both_consent_and_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    WATCH.plant(token, TOKEN)
    base = f"listen = '0.0.0.0:1'\ntoken_file = '{token.as_posix()}'\n"
    named = f"{base}allowed_hosts = ['proxy.lan']\n"
    assert error_of(tmp_path, named).advice == "add --allow-remote, or listen on 127.0.0.1"
    assert "--allow-remote (with --set allowed_hosts=HOST" in error_of(tmp_path, base).advice
    assert from_file(tmp_path, f"{base}allow_remote = true").settings.listen == ("0.0.0.0:1",)


@pytest.mark.parametrize("text", ["short", "with spaces in its middle", "", "ü" * 20, "a/b" * 9])
def test_a_token_that_does_not_fit_a_path_is_refused_unseen(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read_token(path)
    assert not text or text not in str(caught.value)


def test_a_secret_shows_only_the_end_of_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "token"
    WATCH.plant(path, f"{TOKEN}\n")
    secret = read_token(path)
    assert secret == Secret(TOKEN)
    assert secret.matches(TOKEN)
    assert not secret.matches("\udcff")
    for shown in (repr(secret), str(secret), f"{secret}", repr({"a": [secret]})):
        assert TOKEN not in shown
        assert "Secret(…" in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_what_config_show_prints_reads_back_as_it_was(tmp_path: Path) -> None:
    text = "\n".join(toml_line(about, about.default) for about in SETTINGS.values())
    loaded = from_file(tmp_path, text)
    assert loaded.settings == Settings()
    assert "default" not in loaded.sources.values()


@given(st.floats(0.1, 3600))
def test_any_duration_survives_its_own_spelling(seconds: float) -> None:
    about = SETTINGS["head_timeout_s"]
    spelled = load(environment={about.variable: about.kind.render(seconds).strip('"')})
    assert spelled.settings.head_timeout_s == seconds


@given(st.text(max_size=60))
@example("~0")
@example("9" * 5000)
@example("1e999")
def test_any_text_is_accepted_or_refused_by_name(text: str) -> None:
    for name in SETTINGS:
        problem = problem_of(partial(load, [Given(name, text, "--set")], {}))
        assert problem is None or name in problem


@given(st.binary(max_size=200))
def test_any_file_is_accepted_or_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    problem = problem_of(lambda: read_entries(path))
    assert problem is None or "any.toml" in problem


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, Path("/var/state/wsproxy")),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, Path("/h/.local/state/wsproxy")),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, Path("/h/.local/state/wsproxy")),
        ({"HOME": "/home/x"}, Path("/home/x/.local/state/wsproxy")),
        ({"HOME": ""}, ACCOUNT / ".local/state/wsproxy"),
        ({}, ACCOUNT / ".local/state/wsproxy"),
    ],
    ids=["xdg", "relative", "empty", "home", "empty home", "no home"],
)
def test_state_lies_where_the_desktop_expects_it(environment: dict[str, str], folder: Path) -> None:
    assert state_folder(environment) == folder
    assert trace_folder(Settings(), environment) == folder / "traces"
    assert trace_folder(Settings(trace_dir=Path("/t")), environment) == Path("/t")


def test_a_tilde_means_the_accounts_folder_where_home_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "")
    loaded = load(environment={"WSPROXY_TRACE_DIR": "~/traces"})
    assert loaded.settings.trace_dir == ACCOUNT / "traces"


def test_without_any_home_folder_it_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # an account that nobody has
    with pytest.raises(SettingsError) as caught:
        trace_folder(Settings(), {"HOME": ""})
    assert "no home folder" in caught.value.problem
    assert "trace_dir" in caught.value.advice
    assert trace_folder(Settings(), {"XDG_STATE_HOME": "/s"}) == Path("/s/wsproxy/traces")


def test_an_address_is_split_into_bare_host_and_port() -> None:
    assert split_address("[::1]:8787") == ("::1", 8787)
    assert split_address("localhost:0") == ("localhost", 0)
