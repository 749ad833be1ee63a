"""Request bodies as clients write them, and bodies that are not for a WebSocket."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from tests.canary import TEXT


def encode_body(body: dict[str, Any], random: Random) -> bytes:
    """The body in one of the spellings that JSON libraries have."""
    if random.random() < 0.3:
        names = list(body)
        random.shuffle(names)
        body = {name: body[name] for name in names}
    is_ascii = random.random() < 0.3
    if random.random() < 0.3:
        return json.dumps(body, ensure_ascii=is_ascii, indent=1).encode()
    separators = random.choice(((",", ":"), (", ", ": ")))
    return json.dumps(body, ensure_ascii=is_ascii, separators=separators).encode()


_INPUT: Final = b'"input":' + json.dumps(TEXT).encode()
_HELLO: Final = b'"model":"sim",' + _INPUT
#: Upstream's own verdict is what the client reads.
BROKEN_BODIES: Final = (
    b"",
    b"[1]",
    b'"text"',
    b"{" + _HELLO,
    b"{" + _HELLO + b"}}",
    b"{" + _HELLO + b',"temperature":NaN}',
    b"{" + _HELLO + b',"temperature":1e400}',
    b"{" + _HELLO + b',"model":"gpt-5.6"}',
    b"{" + _HELLO + b',"user":"\xff"}',
    b"{" + _HELLO + b',"text":' + b"[" * 80 + b"]" * 80 + b"}",
    b"\xef\xbb\xbf{" + _HELLO + b"}",
    b"{" + _INPUT + b"}",
    b'{"model":"sim"}',
    b'{"model":"missing-model",' + _INPUT + b"}",
)
#: Members that upstream refuses, or that only HTTP can carry.
ODD_MEMBERS: Final[tuple[dict[str, Any], ...]] = (
    {"stream": "yes"},
    {"stream": 1},
    {"background": "no"},
    {"background": True, "stream": False},
    {"type": "response.create"},
    {"stream_id": "l01"},
    {"generate": False},
    {"input": []},
    {"input": None},
    {"input": 5},
    {"input": [5]},
    {"input": [{"type": "message", "role": "robot", "content": TEXT}]},
    {"input": [{"type": "item_reference", "id": "msg_never"}]},
    {"model": None},
    {"tools": {}},
    {"metadata": "canary"},
    {"previous_response_id": "resp_never"},
    {"previous_response_id": 7},
    {"previous_response_id": "resp_never", "conversation": "conv_never"},
    {"include": "everything"},
)
