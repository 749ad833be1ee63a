"""What outlives a connection: stored responses, their items, conversations. Per Authorization."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wsproxy.simulator.canonical import Item
from wsproxy.simulator.context import Context
from wsproxy.simulator.outputs import Event


@dataclass(slots=True)
class Kept:
    """A finished response as a parent: its whole context, output included."""

    context: Context
    depth: int  # turns in its chain so far


@dataclass(slots=True)
class Stored:
    """One persisted response; `kept` is set once it can be continued."""

    response: Item
    input_items: list[Item]
    replay: Callable[[], Iterable[Event]] = tuple
    kept: Kept | None = None


class Store:
    """Persisted state, walled by Authorization, the oldest going first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._responses: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self._items: OrderedDict[tuple[str, str], Item] = OrderedDict()
        self._conversations: dict[tuple[str, str], Context] = {}

    def put(self, owner: str, stored: Stored) -> None:
        """Persist a response under its id."""
        self._responses[owner, stored.response["id"]] = stored
        if len(self._responses) > self._limit:
            self._responses.popitem(last=False)

    def get(self, owner: str, response_id: str) -> Stored | None:
        """The response of that id, if it is that owner's."""
        return self._responses.get((owner, response_id))

    def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False if there was none."""
        return self._responses.pop((owner, response_id), None) is not None

    def put_items(self, owner: str, items: list[Item]) -> None:
        """Persist items under their ids, so that references to them resolve."""
        for item in items:
            if isinstance(item.get("id"), str):
                self._items[owner, item["id"]] = item
        while len(self._items) > 4 * self._limit:
            self._items.popitem(last=False)

    def item(self, owner: str, item_id: str) -> Item | None:
        """The item of that id, if it is that owner's."""
        return self._items.get((owner, item_id))

    def conversation(self, owner: str, name: str) -> Context:
        """The items of a conversation; one never heard of is empty."""
        return self._conversations.get((owner, name), Context())

    def put_conversation(self, owner: str, name: str, context: Context) -> None:
        """A response bound to the conversation has completed."""
        self._conversations[owner, name] = context
