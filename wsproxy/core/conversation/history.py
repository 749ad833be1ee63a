"""Checkpoints, and which of them a request continues. Holds digests and ids, never text.

Rules of this file
------------------
1. A conversation is recognised by its content alone; no id of a client's is needed.
2. A *chain* is a running digest over item identities. It only *finds* candidates; a candidate is
   then *verified* position by position: the client's own items exactly, the model's items by the
   table in `core/api/items.py`.
3. The pool key seeds every digest and is compared in full: keys cannot meet.
4. What the client repeats byte for byte is not parsed again: a digest of the raw prefix leads
   straight to the checkpoint whose input it was.
5. Everything is bounded, least recently used first. A checkpoint lost costs one full send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lru import LRU

from wsproxy.core.api.canonical import DIGEST_BYTES, sha
from wsproxy.core.api.items import (
    Held,
    Item,
    Pairing,
    held_aliases,
    held_id_mark,
    held_identity,
    held_type,
    is_echo,
)
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName

_Key = TypeVar("_Key")

#: Checkpoints kept of one conversation: the latest, and three for regenerate, undo and branch.
CHECKPOINTS_PER_CONVERSATION = 4
#: Other names of output items (second blob, id) that are remembered, about 150 B each.
MAX_ALIASES = 100_000
#: Conversations with the same first item that are looked at to explain a mismatch.
EXPLAINED_CONVERSATIONS = 8
#: Checkpoints of equal content, or of equal input, kept at once: one a lane of a connection.
MAX_EQUALS = 32
#: Bytes of a checkpoint beside its digests, measured with `tracemalloc` (tests/core).
CHECKPOINT_OVERHEAD_BYTES = 900


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A completed response together with the whole item sequence that led to it.

    `exact` packs the digests of the `count` input items; `held` has one entry a position, input
    and output: what the model made there, or None for the client's own. `home` is the lane whose
    latest response this is, or was: only the lane can tell.
    """

    key: PoolKey
    response_id: str
    is_stored: bool
    fields: Mapping[str, Digest]
    count: int
    exact: bytes
    held: tuple[Held | None, ...]
    chain_in: Digest
    chain: Digest
    raw: Digest
    open_calls: tuple[Pairing, ...]
    session: SessionName
    home: tuple[ConnectionId, LaneName]
    conversation: Conversation

    @property
    def size_bytes(self) -> int:
        """What it costs to keep, the parts it shares with its neighbours not counted."""
        outputs = self.held[self.count :]
        return CHECKPOINT_OVERHEAD_BYTES + len(self.exact) + 8 * len(self.held) + 150 * len(outputs)


@dataclass(slots=True, eq=False)
class Conversation:
    """A chain of turns, each extending the one before; a branch is a conversation of its own."""

    number: int
    key: PoolKey
    first: Digest
    checkpoints: list[Checkpoint] = field(default_factory=list)
    touched_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a request first differs from what was expected: item index and type."""

    index: int
    type: str
    is_omitted_reasoning: bool = False


@dataclass(slots=True)
class Reading:
    """What one look-up found, and what a commit will need.

    `matches`: every checkpoint whose items the request starts with, longest first, each with the
    number of request items it accounts for (at least one item follows).
    """

    matches: list[tuple[Checkpoint, int]]
    exact: bytes | None
    known_count: int
    chain: Digest
    first: Digest
    raw: Digest
    is_repeat: bool
    difference: Difference | None


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
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._skips_reasoning = continues_without_reasoning
        self._by_chain: dict[Digest, list[Checkpoint]] = {}
        self._by_raw: dict[Digest, list[Checkpoint]] = {}
        self._by_chain_in: Counter[Digest] = Counter()
        self._raw_lengths: Counter[int] = Counter()
        self._aliases: LRU[bytes, Digest] = LRU(MAX_ALIASES)
        self._by_first: LRU[Digest, list[Conversation]] = LRU(max_conversations)
        self._conversations: LRU[int, Conversation] = LRU(
            max_conversations, callback=lambda _, conversation: self._forget(conversation)
        )
        self._numbered = 0
        self.size_bytes = 0

    def __repr__(self) -> str:
        checkpoints = sum(map(len, self._by_chain.values()))
        return (
            f"<History {len(self._conversations)} conversations, {checkpoints} checkpoints, "
            f"{self.size_bytes} bytes>"
        )

    def __len__(self) -> int:
        return len(self._conversations)

    # ── Looking up ───────────────────────────────────────────────────────────────────────────

    def read(self, key: PoolKey, transcript: Transcript) -> Reading:
        """Find what a request continues. Raises `UnfitError` if a new item is not strict JSON."""
        lengths = {len(transcript), *self._raw_lengths}
        prefixes = transcript.raw_prefixes(key, lengths)
        known = self._longest_raw(key, prefixes)
        candidates, chain, first = self._walk(key, transcript, known)
        exact = _Exact(transcript, known)
        matches = [
            (checkpoint, used)
            for checkpoint, used in reversed(candidates)
            if self._is_verified(checkpoint, used, transcript, exact)
        ]
        is_repeat = self._by_chain_in[chain] > 0
        difference = None
        if not matches and not is_repeat:
            difference = self._difference(first, transcript)
        return Reading(
            matches=matches,
            exact=exact.packed,
            known_count=0 if known is None else known.count,
            chain=chain,
            first=first,
            raw=prefixes[len(transcript)] if len(transcript) else sha(key),
            is_repeat=is_repeat,
            difference=difference,
        )

    def _longest_raw(self, key: PoolKey, prefixes: Mapping[int, Digest]) -> Checkpoint | None:
        for length in sorted(prefixes, reverse=True):
            for checkpoint in self._by_raw.get(prefixes[length], ()):
                if checkpoint.key == key and checkpoint.count == length:
                    return checkpoint
        return None

    def _walk(
        self, key: PoolKey, transcript: Transcript, known: Checkpoint | None
    ) -> tuple[list[tuple[Checkpoint, int]], Digest, Digest]:
        """Follow the chain over what is new, and gather the checkpoints that end along it."""
        found: list[tuple[Checkpoint, int]] = []
        chain = sha(b"chain:", key) if known is None else known.chain_in
        first = chain if known is None else known.conversation.first
        start = 0 if known is None else known.count
        for index in range(start, len(transcript)):
            found += [(c, index) for c in self._by_chain.get(chain, ()) if c.key == key and index]
            chain = self._linked(chain, transcript.item(index), transcript.is_stored)
            if index == 0:
                first = chain
        return found, chain, first

    def _linked(self, chain: Digest, item: Item, is_stored: bool) -> Digest:
        if self._skips_reasoning and item.type == "reasoning":
            return chain
        return sha(chain, self._canonical(item, is_stored))

    def _canonical(self, item: Item, is_stored: bool) -> Digest:
        """The identity under which the item stands in chains, whichever name the client used."""
        if item.is_reference or (item.type == "reasoning" and not item.blobs):
            if is_stored and item.id_mark is not None:
                return self._aliases.get(b"id" + item.id_mark, item.identity)
            return item.identity
        return self._aliases.get(item.identity, item.identity) if item.blobs else item.identity

    # ── Verifying ────────────────────────────────────────────────────────────────────────────

    def _is_verified(
        self,
        checkpoint: Checkpoint,
        used: int,
        transcript: Transcript,
        exact: _Exact,
    ) -> bool:
        """Whether the first `used` items are the checkpoint's, position by position."""
        start = 0
        if used == len(checkpoint.held) and exact.starts_with(checkpoint):
            start = checkpoint.count  # the same values in the same spelling as last time
        at = start
        for position in range(start, len(checkpoint.held)):
            held = checkpoint.held[position]
            is_skipped = (
                self._skips_reasoning
                and held is not None
                and held_type(held) == "reasoning"
                and (at >= used or transcript.item(at).type != "reasoning")
            )
            if is_skipped:
                continue
            if at >= used or not _is_same(checkpoint, position, held, transcript, at, exact.at(at)):
                return False
            at += 1
        return at == used

    def _difference(self, first: Digest, transcript: Transcript) -> Difference | None:
        """The first item that is not what the likeliest conversation had there."""
        best = 0
        found: Difference | None = None
        for conversation in self._by_first.get(first, []):
            checkpoint = conversation.checkpoints[-1]
            at = _common(checkpoint, transcript)
            if at <= best:
                continue
            best = at
            expected = checkpoint.held[at] if at < len(checkpoint.held) else None
            type_ = transcript.item(at).type if at < len(transcript) else "end"
            found = Difference(
                at,
                type_,
                expected is not None and held_type(expected) == "reasoning" != type_,
            )
        return found

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
    ) -> Checkpoint | None:
        """Remember a completed turn; None if it cannot be continued (contract §5.1)."""
        parent, used = reading.matches[0] if reading.matches else (None, 0)
        if reading.exact is None or not transcript.is_whole_context:
            return None
        unproven = range(max(used, reading.known_count), len(transcript))
        if any(transcript.item(index).is_reference for index in unproven):
            return None
        before = _held_before(parent, used, len(transcript))
        conversation = self._conversation(key, parent, reading.first)
        checkpoint = Checkpoint(
            key=key,
            response_id=response_id,
            is_stored=transcript.is_stored,
            fields=fields,
            count=len(transcript),
            exact=reading.exact,
            held=(*before, *outputs),
            chain_in=reading.chain,
            chain=self._extended(reading.chain, outputs),
            raw=reading.raw,
            open_calls=open_calls,
            session=session,
            home=home,
            conversation=conversation,
        )
        self._name_aliases(checkpoint, outputs)
        self._keep(checkpoint, now)
        return checkpoint

    def _extended(self, chain: Digest, outputs: Sequence[Held]) -> Digest:
        for held in outputs:
            if not (self._skips_reasoning and held_type(held) == "reasoning"):
                chain = sha(chain, held_identity(held))
        return chain

    def _name_aliases(self, checkpoint: Checkpoint, outputs: Sequence[Held]) -> None:
        for held in outputs:
            identity = held_identity(held)
            for alias in held_aliases(held):
                if alias != identity:
                    self._aliases[alias] = identity
            mark = held_id_mark(held)
            if checkpoint.is_stored and mark is not None:
                self._aliases[b"id" + mark] = identity

    def _conversation(
        self, key: PoolKey, parent: Checkpoint | None, first: Digest
    ) -> Conversation:
        """The conversation that is extended; one that branches off gets a number of its own."""
        if parent is not None and parent.conversation.checkpoints[-1:] == [parent]:
            return parent.conversation
        self._numbered += 1
        return Conversation(self._numbered, key, first)

    def _keep(self, checkpoint: Checkpoint, now: float) -> None:
        conversation = checkpoint.conversation
        conversation.checkpoints.append(checkpoint)
        conversation.touched_at = now
        if conversation.number not in self._conversations:
            siblings = self._by_first.get(conversation.first, [])
            self._by_first[conversation.first] = [
                *siblings[1 - EXPLAINED_CONVERSATIONS :],
                conversation,
            ]
        self._conversations[conversation.number] = conversation
        self._by_chain.setdefault(checkpoint.chain, []).append(checkpoint)
        self._by_raw.setdefault(checkpoint.raw, []).append(checkpoint)
        self._by_chain_in[checkpoint.chain_in] += 1
        self._raw_lengths[checkpoint.count] += 1
        self.size_bytes += checkpoint.size_bytes
        while len(conversation.checkpoints) > CHECKPOINTS_PER_CONVERSATION:
            self._drop(conversation.checkpoints.pop(0))
        for equals in (self._by_chain[checkpoint.chain], self._by_raw[checkpoint.raw]):
            if len(equals) > MAX_EQUALS:
                self._drop_whole(equals[0])
        while self.size_bytes > self._max_bytes and len(self._conversations) > 1:
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
        self._forget(conversation)

    def _forget(self, conversation: Conversation) -> None:
        for checkpoint in conversation.checkpoints:
            self._drop(checkpoint)
        conversation.checkpoints.clear()
        siblings = self._by_first.get(conversation.first, [])
        kept = [other for other in siblings if other is not conversation]
        if kept:
            self._by_first[conversation.first] = kept
        elif siblings:
            del self._by_first[conversation.first]

    def _drop_whole(self, checkpoint: Checkpoint) -> None:
        """Drop one checkpoint, and its conversation with the last of them."""
        self._drop(checkpoint)
        conversation = checkpoint.conversation
        conversation.checkpoints.remove(checkpoint)
        if not conversation.checkpoints:
            self._evict(conversation)

    def _drop(self, checkpoint: Checkpoint) -> None:
        _unlist(self._by_chain, checkpoint.chain, checkpoint)
        _unlist(self._by_raw, checkpoint.raw, checkpoint)
        _uncount(self._by_chain_in, checkpoint.chain_in)
        _uncount(self._raw_lengths, checkpoint.count)
        self.size_bytes -= checkpoint.size_bytes


class _Exact:
    """The exact digests of all items; those of a known raw prefix are not computed again."""

    def __init__(self, transcript: Transcript, known: Checkpoint | None) -> None:
        start = 0 if known is None else known.count
        new = [transcript.item(index).exact for index in range(start, len(transcript))]
        self._opaque = {start + at for at, digest in enumerate(new) if digest is None}
        before = b"" if known is None else known.exact
        self._all = before + b"".join(digest or bytes(DIGEST_BYTES) for digest in new)

    @property
    def packed(self) -> bytes | None:
        """All digests in a row; None if an item is opaque."""
        return None if self._opaque else self._all

    def starts_with(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's input stands at the start, in the same spelling."""
        return self._all.startswith(checkpoint.exact) and all(
            at >= checkpoint.count for at in self._opaque
        )

    def at(self, index: int) -> Digest | None:
        """The digest of one item; None if it is opaque."""
        if index in self._opaque:
            return None
        return Digest(self._all[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])


def _is_same(
    checkpoint: Checkpoint,
    position: int,
    held: Held | None,
    transcript: Transcript,
    at: int,
    exact: Digest | None,
) -> bool:
    if exact is None:
        return False
    if position < checkpoint.count:
        start = position * DIGEST_BYTES
        expected = checkpoint.exact[start : start + DIGEST_BYTES]
        if expected == exact:
            return True
        if held is None:
            # A string input is kept as the mark that every spelling of such a message shares.
            return expected == transcript.item(at).identity
    return held is not None and is_echo(held, transcript.item(at), is_stored=transcript.is_stored)


def _common(checkpoint: Checkpoint, transcript: Transcript) -> int:
    """How many items the request shares with the checkpoint before the first difference."""
    limit = min(len(checkpoint.held), len(transcript))
    for at in range(limit):
        item = transcript.item(at)
        if not _is_same(checkpoint, at, checkpoint.held[at], transcript, at, item.exact):
            return at
    return limit


def _held_before(parent: Checkpoint | None, used: int, count: int) -> tuple[Held | None, ...]:
    """What of the request's own items the model made, as the matched checkpoint knows it."""
    if parent is None:
        return (None,) * count
    if used == len(parent.held):
        return (*parent.held, *(None,) * (count - used))
    # Reasoning left out (an operator's choice): positions shifted, so only what is sure is kept.
    return (None,) * count


def _unlist(index: dict[Digest, list[Checkpoint]], at: Digest, checkpoint: Checkpoint) -> None:
    left = [other for other in index.get(at, ()) if other is not checkpoint]
    if left:
        index[at] = left
    else:
        index.pop(at, None)


def _uncount(counter: Counter[_Key], at: _Key) -> None:
    counter[at] -= 1
    if counter[at] <= 0:
        del counter[at]
