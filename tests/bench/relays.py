"""Who relays which load: every subject has its turn in each round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from tests.bench.cast import Cast
from tests.bench.children import Child
from tests.bench.ledger import Ledger
from tests.bench.relay import QUARTER, Load, one_round

#: Enough to dial, and to load what is loaded once.
_WARM_UP_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Match:
    """A row of a table: `load` from `upstream` to the clients of `through`."""

    table: str
    subject: str
    load: Load
    upstream: Child
    through: Child


def matches(cast: Cast, seconds: float) -> Iterator[Match]:
    """All rows of the relay tables, 20,000 events/s in most."""
    spread, lanes = Load(20, 1_000, seconds, 20), Load(16, 1_250, seconds, 1)
    loads = {
        "relay": spread,
        QUARTER: replace(spread, rate=250),
        "burst": Load(1, 4_000, seconds, 1),
    }
    for table, load in loads.items():
        for name, through in cast.relays().items():
            yield Match(table, name, load, cast.plain, through)
    yield Match("relay", "wsproxy, no traces", spread, cast.plain, cast.untraced)
    yield Match("relay", "wsproxy, lanes", lanes, cast.plain, cast.wsproxy)
    for name, load in (("wsproxy, deflate", spread), ("wsproxy, lanes, deflate", lanes)):
        yield Match("relay", name, load, cast.deflating, cast.deflated)
    yield Match("relay", "wsproxy, TLS", spread, cast.secure, cast.secured)
    spread, lanes = replace(spread, is_in_step=True), replace(lanes, is_in_step=True)
    for name, through in cast.relays().items():
        yield Match("relay, in step", name, spread, cast.plain, through)
    yield Match("relay, in step", "wsproxy, lanes", lanes, cast.plain, cast.wsproxy)


async def relays(ledger: Ledger, cast: Cast, rounds: int, seconds: float) -> None:
    """Run them all; what the first round dials and loads is not measured."""
    rows = list(matches(cast, seconds))
    for row in rows:
        warm_up = replace(row.load, seconds=_WARM_UP_S)
        await one_round(warm_up, row.upstream, row.through)
    for _ in range(rounds):
        for row in rows:
            found = await one_round(row.load, row.upstream, row.through)
            ledger.note(row.table, row.subject, **asdict(found))
