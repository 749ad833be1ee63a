"""What is fuzzed: each target with its check, the grammar of its inputs, and its corpus.

Rules of this folder
--------------------
1. A check raises for an input that got what no input may get (`contract.py`), else it returns.
2. `corpus/TARGET/` holds small inputs, honest, hostile and once found; each is a seed.
3. A check leaves nothing behind: the next input finds everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import answers, bodies, files, jsons, sockets, wire
from tests.fuzz.mutator import Grammar, json_tokens, lines, reshaped_json

Check = Callable[[bytes], None]
CORPUS: Final = Path(__file__).with_name("corpus")


@dataclass(frozen=True, slots=True)
class Target:
    """`open` gives the check; what it needs lives as long as the context."""

    open: Callable[[], AbstractContextManager[Check]]
    grammar: Grammar
    about: str


def _pure(check: Check) -> Callable[[], AbstractContextManager[Check]]:
    return lambda: nullcontext(check)


def _json(words: Sequence[bytes]) -> Grammar:
    return Grammar(json_tokens, words, reshaped=reshaped_json)


_EVENT_WORDS: Final = rb"""
"type" "stream_id" "sequence_number" "response" "previous_response_id" "l01" "l02" "l99" null
"response.created" "response.completed" "response.failed" "response.output_item.done" "error"
"codex.rate_limits" "response.metadata" "output_index" "item" "output" "status" "headers" "code"
"response.output_text.delta" "websocket_connection_limit_reached" "previous_response_not_found"
"\u0074ype" "\ud83d" {"a":1} [[]] 1e400 "retry-after" "usage" "id" "resp_0" "body" "detail"
""".split()
_BODY_WORDS: Final = rb"""
"input" "stream" "background" "store" "type" "tools" "previous_response_id" "conversation" "model"
"generate" "message" "function_call" "function_call_output" "call_id" "arguments" "reasoning"
"encrypted_content" "item_reference" "content" "role" "user" "\ud83d" "i\u006eput" null true {} []
NaN 1e400 -0 "{\"a\":1.0}" "{\"a\":1,\"a\":2}" "annotations" "id" "status"
""".split()
_HTTP_WORDS: Final = (
    *b"HTTP/1.1 HTTP/1.0 chunked Host: Content-Length: Transfer-Encoding: Expect: Upgrade:".split(),
    *b"Connection: Content-Encoding: Authorization: Origin: OPTIONS CONNECT gzip zstd".split(),
    *(b" ", b"\t", b":", b"\r", b"\n", b"0\r\n\r\n", b"/v1/responses", b"//", b"/_wsproxy/pools"),
)
_SHAKE_WORDS: Final = (
    *b"HTTP/1.1 101 100 103 200 302 401 429 503 Upgrade: Connection: chunked websocket".split(),
    *b"Sec-WebSocket-Accept: Sec-WebSocket-Extensions: Sec-WebSocket-Protocol:".split(),
    *b"permessage-deflate client_max_window_bits=8 server_no_context_takeover ; , =".split(),
    *(b"\r\n\r\n", b"\r\n", b"\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"),
)
_FRAME_WORDS: Final = (
    *(b"\x81\x00", b"\xc1\x00", b"\x01\x00", b"\x00\x00", b"\x80\x00", b"\x88\x00", b"\x89\x00"),
    *(b"\x88\x02\x03\xe8", b"\x81\x7e\x00\x7e", b"\x81\x7f" + bytes(8), b"\xc1\x05", b"\x82\x01a"),
    *(b"\x00\x00\xff\xff", b"\x81\x80\x00\x00\x00\x00", b"\xf0\x90\x80", b'"stream_id":"l01"'),
)
_TOML_WORDS: Final = rb"""
[upstream] url = "http://127.0.0.1:1" listen = ["127.0.0.1:0"] lanes = "auto" true false inf nan
1979-05-27 0x10 1_000 [[x]] \u0000 ''' 5s 10MiB -1 0 1e308 WSPROXY_LISTEN= WSPROXY_UPSTREAM=
WSPROXY_LANES= WSPROXY_MAX_TURNS= "[::1]:0" "https://a:b@c/v1?x#y" WSPROXY_UPSTREAM_PROXY= none
""".split()
_JOURNAL_WORDS: Final = rb"""
"kind" "turn" "run" "core" "door" "content" "connection" "dropped" "is" "TurnArrived" "at" "phases"
"TurnStarted" "TurnEnded" "ErrorReceived" "ConnectionOpened" "number" "event" "commands" "items"
1e308 -1 99999999999999999999 null {} [] "\u001b[31m" "\u202e" "digest" "" "fault" "about" "done"
""".split()

TARGETS: Final[Mapping[str, Target]] = {
    "wire": Target(
        _pure(wire.check_frames),
        Grammar(wire.frame_pieces, _FRAME_WORDS, wire.mended_frame, wire.reshaped_frames),
        "upstream's bytes behind the 101, cut in any way",
    ),
    "handshake": Target(
        _pure(wire.check_handshake),
        Grammar(lines, _SHAKE_WORDS),
        "upstream's answer to the upgrade",
    ),
    "upgrade": Target(
        _pure(wire.check_request_headers),
        Grammar(lines, _SHAKE_WORDS),
        "a client's headers on the upgrade",
    ),
    "event": Target(_pure(jsons.check_event), _json(_EVENT_WORDS), "one message of upstream"),
    "answers": Target(
        lambda: sockets.in_a_loop(nullcontext(answers.check_answers)),
        _json((*_EVENT_WORDS, b"\n")),
        "messages through core and driver to two clients",
    ),
    "body": Target(_pure(jsons.check_body), _json(_BODY_WORDS), "the body of a turn"),
    "coding": Target(
        _pure(bodies.check_coded),
        Grammar(
            lines,
            (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x78\x9c", b"\0" * 64),
            reshaped=bodies.recoded,
        ),
        "a body with a Content-Encoding",
    ),
    "http": Target(
        lambda: sockets.in_a_loop(sockets.requests()),
        Grammar(lines, _HTTP_WORDS),
        "raw bytes to the downstream server, over a socket",
    ),
    "upstream": Target(
        lambda: sockets.in_a_loop(sockets.streams()),
        Grammar(
            wire.frame_pieces,
            (*_FRAME_WORDS, *_EVENT_WORDS),
            wire.mended_frame,
            wire.reshaped_frames,
        ),
        "raw bytes of upstream through the whole daemon, over sockets",
    ),
    "config": Target(files.settings, Grammar(lines, _TOML_WORDS), "settings: TOML, environment"),
    "journal": Target(
        files.journal,
        _json(_JOURNAL_WORDS),
        "a journal, read and shown in every way",
    ),
    "replay": Target(files.replay, _json(_JOURNAL_WORDS), "a journal, run through a fresh core"),
}


def corpus_of(name: str) -> Sequence[Path]:
    """The inputs that are kept of a target, in a fixed order."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())


def seeds_of(name: str) -> Sequence[bytes]:
    """The contents of the corpus."""
    return [path.read_bytes() for path in corpus_of(name)]
