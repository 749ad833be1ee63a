"""Who is asking, and which connection they would like: header classes, pool key, session.

Four classes of request headers (contract §3). *Identity* is every header not named elsewhere: it
is on the upgrade and in the pool key. *Session* headers choose the preferred connection, never
what continues what. *Per-request* and *hop-by-hop* headers do not travel.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from lru import LRU

from wsproxy.core.ids import PoolKey, SessionName

RawHeaders = Sequence[tuple[bytes, bytes]]

#: An unnamed header that changes is not an identity: this many values in one session say so.
VOLATILE_VALUES: Final = 3
#: Sessions whose unnamed headers are watched (LRU), and how many names in each.
WATCHED_SESSIONS: Final = 4096
WATCHED_NAMES: Final = 64
#: As many new hints in a row, none seen before, and the source is no hint (contract §3).
NEW_HINTS_IN_A_ROW: Final = 8
#: Hints remembered per pool key and source (LRU).
REMEMBERED_HINTS: Final = 1024


class Patterns:
    """Header names, lower case; a `*` at the end stands for any rest."""

    def __init__(self, names: Iterable[str]) -> None:
        lowered = [name.lower() for name in names]
        self._names = frozenset(name for name in lowered if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in lowered if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._names or (bool(self._prefixes) and name.startswith(self._prefixes))


@dataclass(frozen=True, slots=True)
class HeaderClasses:
    """The operator's lists; what none of them names is identity."""

    identity: Patterns
    session: Sequence[str]
    per_request: Patterns
    hop_by_hop: Patterns


@dataclass(frozen=True, slots=True)
class Identity:
    """What a request's headers say.

    `headers` travel on the upgrade; `hint` is source and keyed name of the first session header
    present; `is_volatile` tells that an unnamed header changes per call, so the turn goes over
    HTTPS; `new_volatile` are those found out just now, to be named once in the log.
    """

    pool_key: PoolKey
    headers: RawHeaders = field(repr=False)
    hint: tuple[str, SessionName] | None
    is_volatile: bool
    new_volatile: Sequence[str]


class Identities:
    """Reads identities; remembers which unnamed headers turned out to change per call."""

    def __init__(self, classes: HeaderClasses, secret: bytes) -> None:
        """`secret`: random bytes of this process."""
        self._classes = classes
        self._secret = secret
        self._seen: LRU[bytes, dict[bytes, set[bytes]]] = LRU(WATCHED_SESSIONS)
        self._volatile: LRU[bytes, set[bytes]] = LRU(WATCHED_SESSIONS)
        self._class_of = lru_cache(maxsize=1024)(self._classify)

    def read(self, url: str, headers: RawHeaders) -> Identity:
        """Sort the headers of one request for the upstream `url` (in full) into their classes."""
        kept: list[tuple[bytes, bytes]] = []
        unnamed: list[tuple[str, bytes]] = []
        sessions: dict[str, bytes] = {}
        connection_named = _named_by_connection(headers)
        for raw_name, value in headers:
            name = raw_name.decode("latin-1").lower()
            class_ = "hop" if name in connection_named else self._class_of(name)
            if class_ == "session":
                sessions.setdefault(name, value)
            elif class_ in ("identity", "unnamed"):
                kept.append((raw_name, value))
                if class_ == "unnamed":
                    unnamed.append((name, value))
        hint = self._hint(sessions)
        volatile, new = self._watch(url, kept, unnamed, hint) if unnamed else (False, ())
        return Identity(self._key(url, kept), kept, hint, volatile, new)

    def _classify(self, name: str) -> str:
        if name in self._classes.hop_by_hop:
            return "hop"
        if name in self._classes.session:
            return "session"
        if name in self._classes.identity:
            return "identity"
        return "request" if name in self._classes.per_request else "unnamed"

    def _hint(self, sessions: dict[str, bytes]) -> tuple[str, SessionName] | None:
        for name in self._classes.session:
            if sessions.get(name):
                return name, self.session(name, sessions[name])
        return None

    def _key(self, url: str, headers: RawHeaders) -> PoolKey:
        """HMAC over URL and identity headers: names fold case, their order does not matter.

        Lines of one name keep theirs: to upstream it can mean something.
        """
        state = hmac.new(self._secret, digestmod=hashlib.sha256)
        _feed(state, url.encode())
        for name, value in sorted(headers, key=lambda header: header[0].lower()):
            _feed(state, name.lower())
            _feed(state, value)
        return PoolKey(state.digest())

    def session(self, source: str, value: bytes) -> SessionName:
        """The keyed name of a session hint: never the hint itself."""
        state = hmac.new(self._secret, digestmod=hashlib.sha256)
        _feed(state, source.encode())
        _feed(state, value)
        return SessionName(state.digest()[:16])

    def _watch(
        self,
        url: str,
        kept: RawHeaders,
        unnamed: Sequence[tuple[str, bytes]],
        hint: tuple[str, SessionName] | None,
    ) -> tuple[bool, Sequence[str]]:
        """Count the values of unnamed headers in one session of one named identity."""
        names = {name for name, _ in unnamed}
        named = [h for h in kept if h[0].decode("latin-1").lower() not in names]
        base = self._key(url, named)
        volatile = self._volatile.setdefault(base, set())
        watched = self._seen.setdefault(base + (hint[1] if hint else b""), {})
        is_volatile, new = False, []
        for name, value in unnamed:
            mark = _mark(name.encode("latin-1"))
            if not _is_volatile(watched, mark, value) and mark not in volatile:
                continue
            is_volatile = True
            if mark not in volatile and len(volatile) < WATCHED_NAMES:
                volatile.add(mark)
                new.append(name)
        return is_volatile, new


def _is_volatile(watched: dict[bytes, set[bytes]], name: bytes, value: bytes) -> bool:
    """Whether a header has shown too many values, this one counted; or is one name too many."""
    if name not in watched and len(watched) >= WATCHED_NAMES:
        return True
    values = watched.setdefault(name, set())
    if len(values) < VOLATILE_VALUES:
        values.add(_mark(value))
    return len(values) >= VOLATILE_VALUES


def _mark(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:8]


def _named_by_connection(headers: RawHeaders) -> frozenset[str]:
    return frozenset(
        name.strip().lower()
        for raw_name, value in headers
        if raw_name.lower() == b"connection"
        for name in value.decode("latin-1").split(",")
    )


def _feed(state: hmac.HMAC, part: bytes) -> None:
    state.update(len(part).to_bytes(4, "big"))
    state.update(part)


class Hints:
    """Session hints of one pool key; a source whose values never come again is no hint."""

    def __init__(self) -> None:
        self._seen: LRU[tuple[str, SessionName], bool] = LRU(REMEMBERED_HINTS)
        self._new_in_a_row: dict[str, int] = {}

    def is_known(self, source: str, value: SessionName) -> bool:
        """Whether this hint has been seen before (it is counted now)."""
        is_known = (source, value) in self._seen
        self._seen[source, value] = True
        self._new_in_a_row[source] = 0 if is_known else self._new_in_a_row.get(source, 0) + 1
        return is_known

    def means_something(self, source: str) -> bool:
        """Whether values of this source come again at all."""
        return self._new_in_a_row.get(source, 0) < NEW_HINTS_IN_A_ROW
