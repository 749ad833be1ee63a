"""Addresses in settings: where we listen, the upstream URL, the proxy on the way to it."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from wsproxy.config.kinds import Kind, Words, brief

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
SAME_AS: Final = {"ws": "http", "wss": "https"}  # people paste either; one origin serves both
HOST: Final = re.compile(r"[a-z0-9._-]+", re.ASCII | re.IGNORECASE)
UNCLEAN_PATH: Final = re.compile(r"//|/\.\.?(/|$)|[^!-~]|[\\^`{|}<>\"]")
LISTEN_FORM: Final = "HOST:PORT, such as 127.0.0.1:8787 or [::1]:8787"


def split_address(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of `HOST:PORT`. Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        raise ValueError(f"{brief(text)} is not {LISTEN_FORM}")
    if not host:
        raise ValueError(
            f"{brief(text)} names no host: write 127.0.0.1{text} for this machine only, "
            f"or 0.0.0.0{text} for every network it is on"
        )
    if not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{brief(text)} has no port from 0 to 65535 (expected {LISTEN_FORM})")
    return _bare_host(host, text), int(port)


def join_address(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host; a name other than localhost might not be."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Addresses(Words):
    @property
    def expected(self) -> str:
        return f'a list of addresses ["127.0.0.1:8787", "[::1]:8787"], each {LISTEN_FORM}'

    def parse(self, value: object) -> tuple[str, ...]:
        addresses = super().parse([value] if isinstance(value, str) else value)
        if not addresses:
            raise ValueError("an empty list leaves nothing to listen on")
        return addresses

    def parse_word(self, word: object) -> str:
        if not isinstance(word, str):
            raise self.refuse(word)
        return join_address(*split_address(word))


class UpstreamUrl(Kind[str]):
    @property
    def expected(self) -> str:
        return "an http or https URL such as https://api.openai.com/v1"

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.refuse(value)
        url = _split_url(value, self)
        scheme = SAME_AS.get(url.scheme, url.scheme)
        if scheme not in DEFAULT_PORTS:
            raise self.refuse(value)
        if "?" in value or "#" in value:
            raise ValueError(f"{brief(value)} must end with its path: no query, no fragment")
        if UNCLEAN_PATH.search(url.path):
            raise ValueError(
                f"the path of {brief(value)} must be plain: no //, no dots, no odd bytes"
            )
        return f"{scheme}://{_authority(url, scheme)}{url.path.rstrip('/')}"


class CollectorUrl(Kind[str]):
    @property
    def expected(self) -> str:
        return 'an http or https URL such as http://127.0.0.1:4318/v1/traces, or "" for none'

    def parse(self, value: object) -> str:
        if value == "":
            return ""
        if not isinstance(value, str) or _split_url(value, self).scheme not in DEFAULT_PORTS:
            raise self.refuse(value)
        if "?" in value or "#" in value:  # a log line names it, so no token may hide there
            raise ValueError(f"{brief(value)} must end with its path: no query, no fragment")
        return value


class ProxyUrl(Kind[str]):
    @property
    def expected(self) -> str:
        return '"env" (HTTPS_PROXY, NO_PROXY), "none", or the URL of an HTTP proxy'

    @property
    def advice(self) -> str:
        return "name a proxy as http://HOST:PORT"

    def parse(self, value: object) -> str:
        if value in ("env", "none"):
            return str(value)
        if not isinstance(value, str):
            raise self.refuse(value)
        url = _split_url(value, self)
        if url.scheme and url.scheme not in DEFAULT_PORTS:
            raise ValueError(f"a proxy of scheme {url.scheme} is not supported")
        if url.scheme not in DEFAULT_PORTS or url.path not in ("", "/") or url.query:
            raise self.refuse(value)
        return f"{url.scheme}://{_authority(url, url.scheme)}"


def _split_url(value: str, kind: Kind[str]) -> SplitResult:
    """The parts of a URL with a host and without credentials. Never echoes the credentials."""
    if "@" in value:
        raise ValueError(
            "a URL in the settings must not carry a user name or password; a proxy that wants "
            'one goes into the environment (HTTPS_PROXY) with upstream_proxy = "env"'
        )
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise kind.refuse(value) from None
    is_plain = value.isascii() and value.isprintable() and " " not in value
    if not url.hostname or port == 0 or not is_plain:
        raise kind.refuse(value)
    _bare_host(f"[{url.hostname}]" if ":" in url.hostname else url.hostname, value)
    return url


def _authority(url: SplitResult, scheme: str) -> str:
    host = (url.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    is_default = url.port in (None, DEFAULT_PORTS[scheme])
    return host if is_default else f"{host}:{url.port}"


def _bare_host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        bare = host[1:-1]
        try:
            if ip_address(bare).version == 6:
                return bare
        except ValueError:
            pass
        raise ValueError(f"{brief(text)} has no IPv6 address between its brackets")
    if ":" in host:
        raise ValueError(f"{brief(text)} needs brackets around its IPv6 address, as in [::1]:8787")
    if HOST.fullmatch(host) is None:
        raise ValueError(f"{brief(text)} has a host that is neither a name nor an address")
    return host
