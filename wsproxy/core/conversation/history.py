"""Checkpoints, and which of them a request continues. Holds digests and ids, never text.

Rules of this file
------------------
1. A conversation is recognised by its content alone; no id of a client's is needed.
2. A *chain* is a running digest over item identities. It only *finds* candidates; a candidate is
   then *verified* position by position (`wording.py`).
3. The pool key seeds every digest and is compared in full: keys cannot meet.
4. What the client repeats byte for byte is not parsed again: a digest of the raw prefix leads
   straight to the checkpoint whose input it was.
5. Everything is bounded, least recently used first. A checkpoint lost costs one full send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from lru import LRU

from wsproxy.core.api.canonical import sha
from wsproxy.core.api.items import (
    Held,
    Item,
    Pairing,
    held_blobs,
    held_id_mark,
    held_identity,
    held_type,
)
from wsproxy.core.conversation.checkpoint import LINK_BYTES, Checkpoint, Conversation, Track
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.conversation.wording import Wording
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName

__all__ = ["Checkpoint", "Conversation", "History", "Reading"]

_Key = TypeVar("_Key")

#: Checkpoints kept of one conversation: the latest, and three for regenerate, undo and branch.
CHECKPOINTS_PER_CONVERSATION: Final = 4
#: Other names of output items (second blob, id) that are remembered, and what one costs.
MAX_ALIASES: Final = 100_000
ALIAS_BYTES: Final = 240
#: Conversations with the same first item that are looked at to explain a mismatch.
EXPLAINED_CONVERSATIONS: Final = 8
#: Checkpoints of equal content, or of equal input, kept at once: one a lane of a connection.
MAX_EQUALS: Final = 32


@dataclass(slots=True)
class Reading:
    """What one look-up found, and what a commit will need.

    `matches`: every checkpoint whose items the request starts with, longest first, each with the
    number of request items it accounts for (at least one item follows). `held`: what the model
    made of the items of the longest. `is_repeat`: a turn has had just this input. `siblings`: the
    latest checkpoints that begin with the same item, `wording`: what compares them with the
    request; a reason is looked for there once there is none to continue.
    """

    matches: list[tuple[Checkpoint, int]]
    held: tuple[Held | None, ...]
    exact: bytes | None
    links: bytes
    raw: Digest
    known_count: int
    is_repeat: bool
    siblings: Sequence[Checkpoint] = field(repr=False)
    wording: Wording = field(repr=False)


class History:
    """All checkpoints of all pool keys."""

    def __init__(
        self,
        *,
        max_conversations: int = 10_000,
        max_bytes: int = 200_000_000,
        max_age_s: float = 86_400,
        continues_without_reasoning: bool = False,
    ) -> None:
        """`continues_without_reasoning`: the setting `omitted_reasoning = "continue"`."""
        self._max_conversations = max_conversations
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._skips_reasoning = continues_without_reasoning
        self._by_chain: dict[bytes, list[Checkpoint]] = {}
        self._by_raw: dict[bytes, list[Checkpoint]] = {}
        self._by_chain_in: Counter[bytes] = Counter()
        self._raw_lengths: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()
        # A tenth of the memory at most: a name that is lost costs one full send.
        self._aliases: LRU[bytes, Digest] = LRU(
            max(1, min(MAX_ALIASES, max_bytes // (10 * ALIAS_BYTES)))
        )
        self._by_first: LRU[bytes, list[Conversation]] = LRU(max_conversations)
        # Evicted by `_bound`: a callback would tie us to a C object that gc cannot look into.
        self._conversations: LRU[int, Conversation] = LRU(max_conversations + 1)
        self._numbered = 0
        self._conversation_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<History {len(self)} conversations, {len(list(self))} checkpoints, "
            f"{self.size_bytes} bytes>"
        )

    def __len__(self) -> int:
        return len(self._conversations)

    def __iter__(self) -> Iterator[Checkpoint]:
        """All checkpoints kept."""
        return (c for checkpoints in self._by_chain.values() for c in checkpoints)

    @property
    def size_bytes(self) -> int:
        """Memory of everything kept, by count (within ±30 %: tests/core/test_memory.py)."""
        return self._conversation_bytes + ALIAS_BYTES * len(self._aliases)

    # ── Looking up ───────────────────────────────────────────────────────────────────────────

    def read(self, key: PoolKey, transcript: Transcript) -> Reading:
        """Find what a request continues. Raises `UnfitError` if a new item is not strict JSON."""
        prefixes = transcript.raw_prefixes(key, {len(transcript), *self._raw_lengths})
        known = self._longest_raw(key, prefixes)
        links = self._links(key, transcript, known)
        wording = Wording(transcript, known, skips_reasoning=self._skips_reasoning)
        matches, held = self._matches(key, links, len(transcript), wording)
        siblings = self._by_first.get(links[:LINK_BYTES], [])
        return Reading(
            matches=matches,
            held=held,
            exact=wording.exact,
            links=links,
            raw=prefixes[len(transcript)] if len(transcript) else sha(key),
            known_count=0 if known is None else known.count,
            is_repeat=self._by_chain_in[links[-LINK_BYTES:]] > 0,
            siblings=[conversation.checkpoints[-1] for conversation in siblings],
            wording=wording,
        )

    def _longest_raw(self, key: PoolKey, prefixes: Mapping[int, Digest]) -> Checkpoint | None:
        for length in sorted(prefixes, reverse=True):
            for checkpoint in reversed(self._by_raw.get(prefixes[length], ())):
                if checkpoint.key == key and checkpoint.count == length:
                    return checkpoint
        return None

    def _links(self, key: PoolKey, transcript: Transcript, known: Checkpoint | None) -> bytes:
        """The chain after each item, in a row; only what is new is looked at."""
        links = [] if known is None else [known.links]
        chain = _seed(key) if known is None else known.chain_in
        for index in range(0 if known is None else known.count, len(transcript)):
            item = transcript.item(index)
            if not (self._skips_reasoning and item.type == "reasoning"):
                chain = _linked(chain, self._canonical(key, item, transcript.is_stored))
            links.append(chain)
        return b"".join(links)

    def _canonical(self, key: PoolKey, item: Item, is_stored: bool) -> Digest:
        """The identity under which the item stands in chains, whichever name the client used."""
        name: bytes | None = None
        if item.blobs:
            name = item.identity
        elif is_stored and (item.is_reference or item.type == "reasoning"):
            name = item.id_mark
        return (
            item.identity if name is None else self._aliases.get(_alias(key, name), item.identity)
        )

    def _matches(
        self, key: PoolKey, links: bytes, count: int, wording: Wording
    ) -> tuple[list[tuple[Checkpoint, int]], tuple[Held | None, ...]]:
        """Checkpoints that end along the chain and are verified, longest first."""
        found: list[tuple[Checkpoint, int]] = []
        held: tuple[Held | None, ...] = ()
        for used in self._usable_lengths(count):
            chain = links[(used - 1) * LINK_BYTES : used * LINK_BYTES]
            for checkpoint in reversed(self._by_chain.get(chain, ())):
                made = wording.follows(checkpoint, used) if checkpoint.key == key else None
                if made is not None:
                    held = held or made
                    found.append((checkpoint, used))
        return found, held

    def _usable_lengths(self, count: int) -> Sequence[int]:
        """How many items of a request of `count` a checkpoint may account for, most first."""
        if self._skips_reasoning:
            return range(count - 1, 0, -1)  # reasoning left out of it counts for the checkpoint
        return sorted((length for length in self._lengths if length < count), reverse=True)

    # ── Committing ───────────────────────────────────────────────────────────────────────────

    def commit(
        self,
        key: PoolKey,
        transcript: Transcript,
        reading: Reading,
        *,
        fields: Mapping[str, Digest],
        response_id: str,
        outputs: Sequence[Held],
        open_calls: tuple[Pairing, ...],
        session: SessionName,
        home: tuple[ConnectionId, LaneName],
        now: float,
        tokens: tuple[int, int] | None = None,
    ) -> Checkpoint | None:
        """Remember a completed turn; None if it cannot be continued (contract §5.1).

        `tokens`: how many upstream read, and wrote visibly.
        """
        if reading.exact is None or not transcript.is_whole_context:
            return None
        if _has_unresolved_reference(transcript, reading):
            return None
        parent = reading.matches[0][0] if reading.matches else None
        if parent is not None and parent.fields == fields:
            fields = parent.fields  # kept once
        own = (None,) * (len(transcript) - len(reading.held))
        held = (*reading.held, *own, *outputs)
        before = None if parent is None else parent.track
        checkpoint = Checkpoint(
            key=key,
            response_id=response_id,
            is_stored=transcript.is_stored,
            fields=fields,
            track=Track(reading.exact, reading.links, held, before),
            count=len(transcript),
            length=len(transcript) + len(outputs),
            chain=self._extended(reading.links[-LINK_BYTES:], outputs),
            raw=reading.raw,
            open_calls=open_calls,
            session=session,
            home=home,
            conversation=self._conversation(key, parent, reading.links[:LINK_BYTES]),
        )
        if _SHORTENING.isdisjoint(fields):
            checkpoint.floor_tokens = _floor(tokens, checkpoint.track)
        self._name_aliases(checkpoint, outputs)
        self._keep(checkpoint, now)
        return checkpoint

    def _extended(self, chain: bytes, outputs: Sequence[Held]) -> bytes:
        for held in outputs:
            if not (self._skips_reasoning and held_type(held) == "reasoning"):
                chain = _linked(chain, held_identity(held))
        return chain

    def _name_aliases(self, checkpoint: Checkpoint, outputs: Sequence[Held]) -> None:
        for held in outputs:
            identity = held_identity(held)
            for blob in held_blobs(held):
                if blob != identity:
                    self._aliases[_alias(checkpoint.key, blob)] = identity
            mark = held_id_mark(held)
            if checkpoint.is_stored and mark is not None:
                self._aliases[_alias(checkpoint.key, mark)] = identity

    def _conversation(self, key: PoolKey, parent: Checkpoint | None, first: bytes) -> Conversation:
        """The conversation that is extended; one that branches off gets a number of its own."""
        if parent is not None and parent.conversation.checkpoints[-1:] == [parent]:
            return parent.conversation
        self._numbered += 1
        return Conversation(self._numbered, key, first)

    def _keep(self, checkpoint: Checkpoint, now: float) -> None:
        conversation = checkpoint.conversation
        conversation.share(checkpoint.track)
        conversation.checkpoints.append(checkpoint)
        conversation.touched_at = now
        if conversation.number not in self._conversations:
            siblings = self._by_first.get(conversation.first, [])
            self._by_first[conversation.first] = [
                *siblings[1 - EXPLAINED_CONVERSATIONS :],
                conversation,
            ]
        self._conversations[conversation.number] = conversation
        self._list(checkpoint)
        if len(conversation.checkpoints) > CHECKPOINTS_PER_CONVERSATION:
            self._unlist(conversation.checkpoints.pop(0))
        self._measure(conversation)
        self._bound(checkpoint)

    def _bound(self, latest: Checkpoint) -> None:
        """Drop what is too much; the latest checkpoint itself always stays."""
        for index, at in ((self._by_chain, latest.chain), (self._by_raw, latest.raw)):
            while len(index[at]) > MAX_EQUALS:
                self._drop(index[at][0])
        while len(self) > self._max_conversations or (
            self.size_bytes > self._max_bytes and len(self) > 1
        ):
            oldest = self._oldest()
            assert oldest is not None
            self._evict(oldest)

    # ── Forgetting ───────────────────────────────────────────────────────────────────────────

    def expire(self, now: float) -> None:
        """Drop conversations older than the age limit (call now and then)."""
        while (oldest := self._oldest()) and now - oldest.touched_at > self._max_age_s:
            self._evict(oldest)

    def _oldest(self) -> Conversation | None:
        item = self._conversations.peek_last_item() if len(self._conversations) else None
        return item[1] if item else None

    def _evict(self, conversation: Conversation) -> None:
        del self._conversations[conversation.number]
        for checkpoint in conversation.checkpoints:
            self._unlist(checkpoint)
        conversation.checkpoints.clear()
        self._conversation_bytes -= conversation.size_bytes
        kept = [c for c in self._by_first.get(conversation.first, []) if c is not conversation]
        if kept:
            self._by_first[conversation.first] = kept
        else:
            self._by_first.pop(conversation.first, None)

    def _drop(self, checkpoint: Checkpoint) -> None:
        """Drop one checkpoint, and its conversation with the last of them."""
        conversation = checkpoint.conversation
        if conversation.checkpoints == [checkpoint]:
            self._evict(conversation)
            return
        self._unlist(checkpoint)
        conversation.checkpoints.remove(checkpoint)
        self._measure(conversation)

    def _measure(self, conversation: Conversation) -> None:
        before, conversation.size_bytes = conversation.size_bytes, conversation.measured_bytes()
        self._conversation_bytes += conversation.size_bytes - before

    # ── The indices ──────────────────────────────────────────────────────────────────────────

    def _list(self, checkpoint: Checkpoint) -> None:
        self._by_chain.setdefault(checkpoint.chain, []).append(checkpoint)
        self._by_raw.setdefault(checkpoint.raw, []).append(checkpoint)
        self._by_chain_in[checkpoint.chain_in] += 1
        self._raw_lengths[checkpoint.count] += 1
        self._lengths[checkpoint.length] += 1

    def _unlist(self, checkpoint: Checkpoint) -> None:
        for index, at in (
            (self._by_chain, checkpoint.chain),
            (self._by_raw, checkpoint.raw),
        ):
            index[at].remove(checkpoint)
            if not index[at]:
                del index[at]
        _uncount(self._by_chain_in, checkpoint.chain_in)
        _uncount(self._raw_lengths, checkpoint.count)
        _uncount(self._lengths, checkpoint.length)


def _seed(key: PoolKey) -> bytes:
    return sha(b"chain:", key)[:LINK_BYTES]


def _linked(chain: bytes, identity: Digest) -> bytes:
    return sha(chain, identity)[:LINK_BYTES]


def _alias(key: PoolKey, name: bytes) -> bytes:
    """Another name of an item, as one pool key knows it."""
    return sha(key, name)


#: Members of a body by which upstream may be told to shorten what it reads.
_SHORTENING: Final = frozenset({"truncation", "context_management"})


def _floor(tokens: tuple[int, int] | None, track: Track) -> int | None:
    """How many input tokens a continuation has at least.

    It reads all that was read before, and what was written since; half of that is left for
    upstreams that count what they write in another way than what they read.
    """
    if tokens is None or track.can_shrink:
        return None
    read, written = tokens
    return read + written // 2


def _has_unresolved_reference(transcript: Transcript, reading: Reading) -> bool:
    """Whether an `item_reference` stands where nothing proves what it means (contract §5.1)."""
    used = reading.matches[0][1] if reading.matches else 0
    unproven = range(max(used, reading.known_count), len(transcript))
    return any(transcript.item(index).is_reference for index in unproven)


def _uncount(counter: Counter[_Key], at: _Key) -> None:
    counter[at] -= 1
    if counter[at] <= 0:
        del counter[at]
