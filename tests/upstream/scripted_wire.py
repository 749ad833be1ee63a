"""A wire whose other end takes bytes only when told so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class ScriptedWire:
    """A `tls.Wire`: holds what is written until `take`, like a TCP transport whose peer is slow.

    As asyncio's transports do, it forgets what it holds when it is aborted or a write fails.
    """

    is_taking: bool = False
    taken: bytearray = field(default_factory=bytearray)
    held: bytearray = field(default_factory=bytearray)
    is_over: bool = False
    fails_next: bool = False

    def write(self, data: bytes) -> None:
        assert not self.is_over, "written after the end"
        if self.fails_next:
            self.abort()
            return
        (self.taken if self.is_taking and not self.held else self.held).extend(data)

    def take(self, size: int | None = None) -> bool:
        """Let bytes leave, by default all; says whether the buffer is empty now."""
        self.taken += self.held[:size]
        del self.held[:size]
        return not self.held

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def is_closing(self) -> bool:
        return self.is_over

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True
        self.held.clear()
