"""Secrets leave a kept text, however JSON spells them; everything else stays to the byte."""

from __future__ import annotations

import json

import pytest

from wsproxy.trace.redaction import REDACTED, redacted, redacted_json

TAIL = "abcdefghijklmnop1234567890"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{TAIL}+/==\n"
SECRETS = {
    "OpenAI": f"sk-proj-{TAIL}",
    "GitHub": f"ghp_{TAIL}",
    "GitHub, fine-grained": f"github_pat_{TAIL}_{TAIL}",
    "GitHub, app": f"ghu_{TAIL}",
    "AWS": "AKIAABCDEFGHIJKLMNOP",
    "AWS, for a while": "ASIAABCDEFGHIJKLMNOP",
    "Google": f"AIza{TAIL}_{TAIL}",
    "Hugging Face": f"hf_{TAIL}",
    "npm": f"npm_{TAIL}",
    "Slack": f"xoxb-{TAIL}",
    "JWT": f"eyJhbGciOiJIUzI1NiJ9.{TAIL}.{TAIL}",
    "bearer": f"Bearer {TAIL}==",
    "basic": f"Basic {TAIL}==",
    "PEM": f"{PEM}-----END RSA PRIVATE KEY-----",
}
PLACES = ["{}", "key {} there", "first line\n{}\nlast", "\t{}", '"{}"', "\\{}", "\u00eb={}"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_leaves_wherever_it_stands(secret: str, place: str) -> None:
    for text in (json.dumps({"a": [place.format(secret)]}), json.dumps({place.format(secret): 1})):
        kept = redacted_json(text.encode())
        assert TAIL not in json.dumps(json.loads(kept))
        assert "ABCDEFGHIJ" not in kept.decode()
        assert REDACTED in kept.decode()


def test_a_password_in_a_url_leaves_and_the_host_stays() -> None:
    kept = redacted("git clone https://me:hunter2@example.com/x and http://example.com:80/@me")
    assert kept == "git clone https://[redacted]@example.com/x and http://example.com:80/@me"


@pytest.mark.parametrize("dash", ["\\u002d", "\\u002D"])
def test_an_escape_hides_no_secret(dash: str) -> None:
    assert redacted_json(f'"sk{dash}{TAIL}"'.encode()) == b'"[redacted]"'


def test_a_marker_alone_takes_no_quote_with_it() -> None:
    raw = json.dumps({"code": 'if "-----BEGIN PRIVATE KEY-----" in text: stop()'}).encode()
    assert json.loads(redacted_json(raw)) == {"code": f'if "{REDACTED}" in text: stop()'}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a" : 1.0, "b":[1e2, "\\u0041\\ud83d", "basic training", "task-force-of-twenty"]}',
        b'"https://example.com:8080/a@b"',
        b'"asia, eyjafjall, bearer of news, risk_assessment_of_it"',
        b"[]",
    ],
)
def test_what_is_no_secret_stays_as_it_is(raw: bytes) -> None:
    assert redacted_json(raw) == raw
