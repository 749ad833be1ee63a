"""What is kept of a conversation: digests and ids of its items, never text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final

from wsproxy.core.api.canonical import DIGEST_BYTES
from wsproxy.core.api.items import Held, Pairing, held_type
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName

#: A link only finds candidates, which are then compared in full: half a digest is enough.
LINK_BYTES: Final = 8

# What things cost to keep beside their digests, in bytes (tests/core/test_memory.py measures it).
CONVERSATION_BYTES: Final = 400  # with its places in the indices
CHECKPOINT_BYTES: Final = 750  # likewise
TRACK_BYTES: Final = 200
HELD_BYTES: Final = 33  # what Python adds to each bytes object
FIELD_BYTES: Final = 60
CALL_BYTES: Final = 200

#: What a model reads again, whole, in each turn. Reasoning and what compaction replaced it need
#: not; of what hosted tools brought, most was read once, inside the turn that called them.
_LASTING: Final = frozenset({"message", "function_call", "custom_tool_call"})


@dataclass(slots=True, eq=False)
class Track:
    """One item sequence in digests; checkpoints of one conversation share the longest.

    Per input item `DIGEST_BYTES` of `exact` and `LINK_BYTES` of `links` (the chain up to and with
    it); `held` has one entry an item, outputs too: what the model made there, None for the
    client's own. `before` is the track that this one goes on from, if any. `held_bytes` is what
    `held` costs to keep; `can_shrink` tells of items that a model may leave out later.
    """

    exact: bytes
    links: bytes
    held: tuple[Held | None, ...]
    before: InitVar[Track | None] = None
    held_bytes: int = field(init=False, default=0)
    can_shrink: bool = field(init=False, default=False)

    def __post_init__(self, before: Track | None) -> None:
        """Counted once, and only what is new: a turn late in a conversation costs no more."""
        known = 0
        if before is not None and self.held[: len(before.held)] == before.held:
            known = len(before.held)
            self.held_bytes, self.can_shrink = before.held_bytes, before.can_shrink
        for held in self.held[known:]:
            if held is not None:
                self.held_bytes += HELD_BYTES + len(held)
                self.can_shrink = self.can_shrink or held_type(held) not in _LASTING

    @property
    def size_bytes(self) -> int:
        """What it costs to keep."""
        known = TRACK_BYTES + len(self.exact) + len(self.links)
        return known + 8 * len(self.held) + self.held_bytes


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A completed response together with the whole item sequence that led to it.

    Of `track` the first `count` items are its input, those up to `length` its output. `chain` is
    the link after all of them, `raw` the digest of the input's bytes. `home` is the lane whose
    latest response this is, or was: only the lane can tell.
    """

    key: PoolKey
    response_id: str
    is_stored: bool
    fields: Mapping[str, Digest]
    track: Track = field(repr=False)
    count: int
    length: int
    chain: bytes
    raw: Digest
    open_calls: tuple[Pairing, ...]
    session: SessionName
    home: tuple[ConnectionId, LaneName]
    conversation: Conversation = field(repr=False)
    floor_tokens: int | None = None  # whoever continues it and remembers it cannot read fewer

    @property
    def exact(self) -> bytes:
        """The digests of its input items, in a row."""
        return self.track.exact[: self.count * DIGEST_BYTES]

    @property
    def links(self) -> bytes:
        """The links after its input items, in a row."""
        return self.track.links[: self.count * LINK_BYTES]

    @property
    def chain_in(self) -> bytes:
        """The link after its input."""
        return self.track.links[(self.count - 1) * LINK_BYTES : self.count * LINK_BYTES]

    @property
    def held(self) -> tuple[Held | None, ...]:
        """What the model made, by position, input and output."""
        return self.track.held[: self.length]

    def exact_at(self, position: int) -> bytes | None:
        """The digest of an input item; None for the output, of which only `held` is known."""
        if position >= self.count:
            return None
        return self.track.exact[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES]


@dataclass(slots=True, eq=False)
class Conversation:
    """A chain of turns, each extending the one before; a branch is a conversation of its own."""

    number: int
    key: PoolKey
    first: bytes
    checkpoints: list[Checkpoint] = field(default_factory=list)
    touched_at: float = 0.0
    size_bytes: int = 0

    def share(self, track: Track) -> None:
        """Let the checkpoints that are prefixes of `track` use it, so each digest is kept once."""
        for checkpoint in self.checkpoints:
            if (
                track.exact.startswith(checkpoint.exact)
                and track.links.startswith(checkpoint.links)
                and track.held[: checkpoint.length] == checkpoint.held
            ):
                checkpoint.track = track

    def measured_bytes(self) -> int:
        """What the conversation costs to keep now; what is shared is counted once."""
        tracks = {id(c.track): c.track.size_bytes for c in self.checkpoints}
        fields = {id(c.fields): len(c.fields) for c in self.checkpoints}
        calls = sum(len(c.open_calls) for c in self.checkpoints)
        return (
            CONVERSATION_BYTES
            + CHECKPOINT_BYTES * len(self.checkpoints)
            + sum(tracks.values())
            + FIELD_BYTES * sum(fields.values())
            + CALL_BYTES * calls
        )
