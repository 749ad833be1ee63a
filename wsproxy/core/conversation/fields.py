"""The members of a request beside its input: which may change, and whether the rest is equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lru import LRU

from wsproxy.core.api.canonical import NotStrictError, OpaqueError, digest_of, sha, value_of
from wsproxy.core.api.request import Request, UnfitError
from wsproxy.core.ids import Digest, PoolKey

#: Handled by the frame itself: they say how the turn travels, not what it asks (contract §5.8).
TRANSPORT_FIELDS: Final = frozenset({"input", "previous_response_id", "stream", "background"})
#: Values remembered by their spelling, so that 28 KB of tools are parsed once, not every turn.
REMEMBERED_VALUES: Final = 4096
#: Shorter values are cheaper to parse than to look up.
SHORT_BYTES: Final = 32


class FieldReader:
    """Digests the members that must not change between a checkpoint and its continuation."""

    def __init__(self, changeable: Iterable[str]) -> None:
        self._ignored = TRANSPORT_FIELDS | frozenset(changeable)
        self._values: LRU[bytes, Digest] = LRU(REMEMBERED_VALUES)

    def read(self, key: PoolKey, request: Request) -> dict[str, Digest]:
        """Name → digest of the value. Raises `UnfitError` if a value is not strict JSON."""
        return {
            name: self._digest(key, member.value)
            for name, member in request.members.items()
            if name not in self._ignored
        }

    def _digest(self, key: PoolKey, raw: bytes) -> Digest:
        # No JSON text starts with "#", so a digest cannot stand for a short value.
        spelling = key + (b"#" + sha(raw) if len(raw) > SHORT_BYTES else raw)
        known = self._values.get(spelling)
        if known is None:
            known = self._values[spelling] = _value_digest(raw)
        return known


def _value_digest(raw: bytes) -> Digest:
    try:
        return digest_of(value_of(raw))
    except OpaqueError:
        return sha(b"opaque:", raw)  # equal only to its own spelling
    except NotStrictError as error:
        raise UnfitError("unparsed") from error


def changed(before: Mapping[str, Digest], now: Mapping[str, Digest]) -> Sequence[str]:
    """The names whose values differ; absent is a value of its own."""
    if before == now:
        return ()
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
