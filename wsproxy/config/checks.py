"""What settings must be together, once each of them is right by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from wsproxy.config.addresses import DEFAULT_PORTS, is_loopback, split_address
from wsproxy.config.errors import SettingsError
from wsproxy.config.secret import read_token
from wsproxy.config.settings import Settings

#: The first of each must not be above the second, or a connection would be born too old.
ORDERED: Final = (
    ("connection_age_jitter_s", "connection_max_age_s"),
    ("connection_max_age_s", "connection_last_turn_end_s"),
)


def check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise SettingsError for the first combination that cannot be meant."""
    for low, high in ORDERED:
        _check_order(settings, sources, low, high)
    _check_upstream(settings, sources["upstream"])
    _check_listen(settings, sources["listen"])
    if settings.token_file is not None:
        read_token(settings.token_file)
    if settings.upstream_ca_file is not None:
        _check_authorities(settings.upstream_ca_file, sources["upstream_ca_file"])


def _check_order(settings: Settings, sources: Mapping[str, str], low: str, high: str) -> None:
    smaller, larger = getattr(settings, low), getattr(settings, high)
    if smaller > larger:
        raise SettingsError(
            f"{low} = {smaller:g} ({sources[low]}) is above {high} = {larger:g} ({sources[high]})",
            "change one of them",
        )


def _check_upstream(settings: Settings, source: str) -> None:
    url = urlsplit(settings.upstream)
    host = url.hostname or ""
    if url.scheme == "http" and not is_loopback(host) and not settings.allow_plain_upstream:
        raise SettingsError(
            f"{source}: upstream: {settings.upstream} would carry API keys in plain text",
            "use https://, or set allow_plain_upstream = true if the network is yours",
        )
    port = url.port or DEFAULT_PORTS[url.scheme]
    for address in settings.listen:
        if port and _is_same(host, port, *split_address(address)):
            raise SettingsError(
                f"{source}: upstream: {settings.upstream} is wsproxy itself (listen {address})",
                "name the API's own URL, or listen on another port",
            )


def _check_listen(settings: Settings, source: str) -> None:
    remote = [one for one in settings.listen if not is_loopback(split_address(one)[0])]
    if not remote or (settings.allow_remote and settings.token_file):
        return
    missing = [
        *([] if settings.allow_remote else ["--allow-remote"]),
        *([] if settings.token_file else ["--token-file FILE"]),
    ]
    # Without it everything would start, and every agent of another machine be refused.
    names = "" if settings.allowed_hosts else " (with --set allowed_hosts=HOST, as agents name it)"
    raise SettingsError(
        f"{source}: listen: {remote[0]} can be reached from other machines",
        f"add {' and '.join(missing)}{names}, or listen on 127.0.0.1",
    )


def _check_authorities(path: Path, source: str) -> None:
    import ssl  # only for those who set it: it takes a while

    try:
        with path.open("rb") as file:
            file.read(1)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise SettingsError(
            f"{source}: upstream_ca_file: there is no certificate in {path}",
            "name a PEM file, with -----BEGIN CERTIFICATE----- in it",
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{source}: upstream_ca_file: cannot read {path}: {error.strerror}",
            "check the path and who may read it",
        ) from None


def _is_same(host: str, port: int, other: str, other_port: int) -> bool:
    if port != other_port:
        return False
    return host == other or (is_loopback(host) and "localhost" in (host, other))
