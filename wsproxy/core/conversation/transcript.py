"""A request's input as the core sees it: digests of its items, read only as far as needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from wsproxy.core.api.canonical import DIGEST_BYTES, NotStrictError
from wsproxy.core.api.items import Item, read_item, read_text
from wsproxy.core.api.request import Request, UnfitError
from wsproxy.core.ids import Digest


class Transcript:
    """The items of one request. Reading an item raises `UnfitError` if it is not strict JSON."""

    def __init__(self, request: Request, *, max_depth: int = 64) -> None:
        self._raw: Sequence[bytes] = request.items or ()
        self._array = request.array
        self._ends: list[int] = []  # bytes of the first k raw items
        self._text = request.text
        self._length = len(self._raw) if self._text is None else 1
        self._max_depth = max_depth - 2  # below the body and its input array
        self._items: dict[int, Item] = {}
        self.prefixes: dict[int, Digest] = {}  # as they were told last
        self.is_whole_context = request.is_whole_context
        self.is_stored = not request.store_is_false

    def __len__(self) -> int:
        return self._length

    @property
    def read_count(self) -> int:
        """How many items have been parsed so far."""
        return len(self._items)

    @property
    def seen(self) -> Mapping[int, Item]:
        """The items parsed so far, by index."""
        return self._items

    def item(self, index: int) -> Item:
        """One item; parsed when first asked for."""
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = self._read(index)
        return item

    def _read(self, index: int) -> Item:
        try:
            if self._text is not None:
                return read_text(self._text)
            return read_item(bytes(self._raw[index]), max_depth=self._max_depth)
        except NotStrictError as error:
            raise UnfitError("unparsed") from error

    def let_go(self) -> None:
        """The turn runs: no item is parsed any more, so that their bytes need not be kept.

        A commit asks only for items that were parsed to find what the turn continues.
        """
        self._raw, self._array, self._text = (), b"", None

    def raw_prefixes(self, seed: bytes, lengths: Iterable[int]) -> dict[int, Digest]:
        """Digests of the raw bytes of the first k items, for each k of `lengths` that there is.

        1 MB costs about 1 ms, however many items: nothing is parsed.
        """
        state = hashlib.sha256(seed)
        if self._text is not None:
            state.update(b'"' + self._text)
            self.prefixes = {1: Digest(state.digest()[:DIGEST_BYTES])}
            return self.prefixes
        if not self._ends:
            self._ends = list(accumulate(map(len, self._raw), initial=0))
        prefixes: dict[int, Digest] = {}
        done = 0
        for length in sorted(k for k in set(lengths) if 0 < k <= len(self._raw)):
            # A comma cannot start or end an item, so the joined text splits in one way only.
            state.update(self._joined(done, length))
            state.update(b",")
            prefixes[length] = Digest(state.digest()[:DIGEST_BYTES])
            done = length
        self.prefixes = prefixes
        return prefixes

    def _joined(self, start: int, stop: int) -> bytes | memoryview:
        """The raw items with a comma between them; where the client wrote them so, its own bytes,
        for to copy 1 MB takes as long as to digest it."""
        ends = self._ends
        if len(self._array) != ends[-1] + len(self._raw) + 1:  # brackets, commas, and more
            return b",".join(self._raw[start:stop])
        begin = 1 + ends[start] + start
        return memoryview(self._array)[begin : ends[stop] + stop]
