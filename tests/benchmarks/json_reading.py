"""What looking at JSON costs: msgspec, orjson (if installed) and the standard library.

    python tests/benchmarks/json_reading.py

Prints µs, the best of several interleaved rounds. "Kept raw" leaves members and input items as
the bytes they came in, which only msgspec can; the others build everything and write it again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

orjson: Any = None
with contextlib.suppress(ImportError):  # a candidate, not a dependency
    orjson = importlib.import_module("orjson")

ROUNDS: Final = 7
#: Long enough for the clock, short enough for a cup of tea.
ROUND_S: Final = 0.05

DELTA: Final = (
    b'{"type":"response.output_text.delta","content_index":0,"delta":"Hello world, this is",'
    b'"item_id":"msg_0123456789abcdef0123456789abcdef","logprobs":[],"obfuscation":"CsGoBBsuRW",'
    b'"output_index":1,"sequence_number":17,"stream_id":"l01"}'
)


class Head(msgspec.Struct):
    """What a relay must know of an event."""

    type: str
    stream_id: str | None = None
    sequence_number: int | None = None


HEAD: Final = msgspec.json.Decoder(Head)
MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
ANYTHING: Final = msgspec.json.Decoder()


def body(size: int) -> bytes:
    """A request of about `size` bytes: a tool loop whose items are 2 KB each."""
    chance = random.Random(size)
    items = [
        {"type": "function_call_output", "call_id": f"call_{number}", "output": text(chance)}
        for number in range(max(1, size // 2_000))
    ]
    return json.dumps({"model": "m", "store": False, "input": items}).encode()


def completed() -> bytes:
    """A terminal event of 27 KB."""
    output = json.loads(body(26_000))["input"]
    response = {"id": "resp_1", "output": output}
    event = {"type": "response.completed", "sequence_number": 9, "response": response}
    return json.dumps(event).encode()


def text(chance: random.Random) -> str:
    """What a tool prints: lines of some forty characters, a few quotes."""
    line = partial(chance.choices, "abcdefghijklmnopqrstuvwxyz      ()=._", k=40)
    return "\n".join("".join(line()) + chance.choice(('"', "", "")) for _ in range(46))


def split(document: bytes) -> list[msgspec.Raw]:
    """A body's items, kept raw."""
    return ITEMS.decode(MEMBERS.decode(document)["input"])


def again(loads: Callable[[bytes], Any], dumps: Callable[[Any], Any], document: bytes) -> Any:
    """Read everything, keep the last two items, write the frame."""
    fields = loads(document)
    return dumps({**fields, "input": fields["input"][-2:]})


def frame(document: bytes) -> bytes:
    """The same with everything kept raw."""
    members = MEMBERS.decode(document)
    tail = b",".join(ITEMS.decode(members["input"])[-2:])
    return b'{"model":%b,"store":%b,"input":[%b]}' % (members["model"], members["store"], tail)


def best(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """µs of the fastest round of each, rounds interleaved."""
    fastest = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, candidate in candidates.items():
            fastest[name] = min(fastest[name], 1e6 * one_round(candidate))
    return fastest


def one_round(candidate: Callable[[], object]) -> float:
    """Seconds of one call, over a round."""
    began = time.perf_counter()
    count = 0
    while (spent := time.perf_counter() - began) < ROUND_S:
        candidate()
        count += 1
    return spent / count


def events(document: bytes) -> dict[str, Callable[[], object]]:
    """Ways to learn an event's type, lane and number."""
    found: dict[str, Callable[[], object]] = {"json": partial(json.loads, document)}
    if orjson is not None:
        found["orjson"] = partial(orjson.loads, document)
    found["msgspec, all of it"] = partial(ANYTHING.decode, document)
    found["msgspec, three members"] = partial(HEAD.decode, document)
    return found


def bodies(document: bytes) -> dict[str, Callable[[], object]]:
    """Ways to make a delta frame of a body."""
    found: dict[str, Callable[[], object]] = {
        "json": partial(again, json.loads, json.dumps, document)
    }
    if orjson is not None:
        found["orjson"] = partial(again, orjson.loads, orjson.dumps, document)
    found["msgspec, all of it"] = partial(again, ANYTHING.decode, msgspec.json.encode, document)
    found["msgspec, kept raw"] = partial(frame, document)
    return found


def main() -> None:
    """Print the table."""
    jobs = {
        f"look at a delta of {len(DELTA)} bytes": events(DELTA),
        "look at response.completed, 27 KB": events(completed()),
        "100 KB body to delta frame": bodies(body(100_000)),
        "1 MB body to delta frame": bodies(body(1_000_000)),
    }
    for job, candidates in jobs.items():
        print(job)
        for name, spent in best(candidates).items():
            print(f"    {name:24} {spent:10,.2f} µs")


if __name__ == "__main__":
    main()
